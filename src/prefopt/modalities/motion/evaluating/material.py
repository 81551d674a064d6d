"""True motions with their captions, as an evaluation takes them: one motion a row, cut as training cuts it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from prefopt.comparisons import Example
from prefopt.modalities.motion.likelihood import shown_part
from prefopt.modalities.motion.refs import MotionRef
from prefopt.modalities.motion.rows import to_motion_comparisons
from prefopt.motion.clips import MotionClip
from prefopt.motion.codec import find_codec
from prefopt.sources.files import Rows, evaluation_split, load_rows
from prefopt.sources.motion_folders import is_motion_folder
from prefopt.sources.report import Dropped
from prefopt.worlds import world_modality, world_of, world_prompts


@dataclass(frozen=True)
class Sample:
    """A true motion and what is said of it.

    Attributes:
        id: of the row.
        captions: one or more, of which each repetition takes one.
        tagged: the same with parts of speech, "a/DET person/NOUN walk/VERB"; empty where the data have none.
        ref: the motion.
        length: frames that count, from the first.
    """

    id: str
    captions: tuple[str, ...]
    tagged: tuple[str, ...]
    ref: MotionRef
    length: int

    def read(self) -> Tensor:
        """(length, D) features in physical units."""
        return self.ref.read().float()[: self.length]


@dataclass(frozen=True)
class Material:
    """What models are measured on.

    Attributes:
        source, split: where it comes from.
        samples: in the order of the rows.
        dropped: rows that cannot be used.
        world: whose exact verdicts there are; None for data.
    """

    source: str
    split: str
    samples: tuple[Sample, ...]
    dropped: tuple[Dropped, ...]
    world: Any = None

    def tagged_only(self) -> Material:
        """Captions with parts of speech alone, for a judge that reads these.

        Raises:
            ValueError: no caption has any.
        """
        kept, lost = [], []
        for n, sample in enumerate(self.samples, 1):
            pairs = [(text, tags) for text, tags in zip(sample.captions, sample.tagged, strict=False) if tags]
            if pairs:
                captions, tagged = zip(*pairs, strict=True)
                kept.append(replace(sample, captions=captions, tagged=tagged))
            else:
                lost.append(Dropped(n, sample.id, "no_tags", "no caption has parts of speech"))
        if not kept:
            raise ValueError(
                f"the captions of {self.source} have no parts of speech, which the T2M evaluator reads ('a/DET person/NOUN walk/VERB'): "
                "they stand in the text files of HumanML3D and KIT-ML; give such a folder as --data, or a judge retrieval:DIR"
            )
        return replace(self, samples=tuple(kept), dropped=(*self.dropped, *lost))


def read_material(source: str, split: str | None, limit: int | None, facts: Mapping[str, Any]) -> Material:
    """True motions of a folder, of rows, or of a world.

    Args:
        source: folder of HumanML3D or KIT-ML, rows of captions and motions (of pairs the chosen ones), or world:motion.
        split: None for "test" where there is one, else the one to judge by.
        limit: take only the first so many rows.
        facts: of the model, see `models.facts_of`: whose features, how long.

    Raises:
        OSError, ValueError: nothing can be read or used.
    """
    world = world_of(source)
    if world is not None:
        if world_modality(source) != "motion":
            raise ValueError(
                f"{source} has no motions: give world:motion, a folder of motions, or rows of caption and motion"
            )
        part: Literal["train", "test"] = "train" if split == "train" else "test"
        made = world.comparisons(int(min(limit or math.inf, world_prompts(source, part))), split=part)
        rows, split = load_rows(made), part
    else:
        split = split or test_split(source)
        rows = load_rows(source, split)
    samples, dropped = samples_of(rows, facts)
    return Material(source, split, tuple(samples[:limit]), tuple(dropped), world)


def test_split(source: str) -> str:
    """The split to report numbers of."""
    folder = Path(source).expanduser()
    if is_motion_folder(folder) and (folder / "test.txt").is_file():
        return "test"
    return evaluation_split(source)


def samples_of(rows: Rows, facts: Mapping[str, Any]) -> tuple[list[Sample], list[Dropped]]:
    """The motions of rows that can be used, and the rows that cannot.

    Raises:
        ValueError: none can be.
    """
    unit, most = int(facts["unit_length"]), int(facts["max_frames"])
    read = to_motion_comparisons(rows, (), find_codec(facts["codec"]), most, unit)
    tokens = {
        str(row.get("id")): row["motion"] for _, row in rows if isinstance(row.get("motion"), MotionClip)
    }
    found, dropped = [], list(read.dropped)
    for number, example in enumerate(read.examples, 1):
        item = example.items[best_of(example)]
        if example.comparisons[0].second is None and example.comparisons[0].outcome.lose > 0:
            dropped.append(
                Dropped(number, example.id, "undesirable", "labelled as no good example of its caption")
            )
            continue
        condition = item.condition
        captions = tuple(condition.get("captions", (condition["prompt"],)))
        clip = tokens.get(example.id)
        tagged: tuple[str, ...] = ()
        if clip is not None and len(clip.tokens) == len(captions):
            tagged = tuple(" ".join(words) for words in clip.tokens)
        length = shown_part(item.sample.frames, most, unit)
        found.append(Sample(example.id, captions, tagged, item.sample, length))
    return found, dropped


def best_of(example: Example) -> int:
    """Index of the motion that the first comparison favours."""
    edge = example.comparisons[0]
    if edge.second is not None and edge.outcome.lose > edge.outcome.win:
        return edge.second
    return edge.first
