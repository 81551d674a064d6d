"""Rows that contrast pictures are made for: a prompt and its pictures, with or without answers.

images or image, prompt                              needed, in any layout that training reads
chosen, rejected                                     answers under these pictures, where there are any
contrast_chosen, contrast_rejected                   answers under the contrast that is to be made, where there are any
contrast_image(s)                                    a contrast that is there already
objects                                              names of what is in the picture
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefopt.comparisons import Item, UnusableItem
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.layouts import as_ours, columns_here, renamed
from prefopt.modalities.vision_language.media import Medium, marks_of
from prefopt.modalities.vision_language.messages import with_marks
from prefopt.modalities.vision_language.placing import pictured
from prefopt.modalities.vision_language.prompts import MARK, in_blocks, joined, marks
from prefopt.modalities.vision_language.rows import PAIRS, PICTURES, RowReader, names
from prefopt.modalities.vision_language.video.rows import VideoColumns
from prefopt.sources import cells
from prefopt.sources.collecting import check_id, named, nothing_usable
from prefopt.sources.columns import ColumnsAs
from prefopt.sources.files import load_rows
from prefopt.sources.layouts import KNOWN, prompt_columns
from prefopt.sources.picture_columns import columns_of_pictures
from prefopt.sources.report import Dropped

PROMPTS = (*(known[0] for known in KNOWN), "text")
"""Columns that hold a prompt, in any layout."""


@dataclass(frozen=True)
class Seed:
    """One row.

    Attributes:
        row: its number, counted from 1.
        id: its name.
        condition: its prompt, as training reads it, and what else the chat template is given.
        pictures: that the prompt is about; at least one.
        chosen, rejected: better and worse answer under them; None where the row has none.
        contrast: its own contrast pictures, if it has some.
        contrast_chosen, contrast_rejected: right and wrong answer under a contrast; None where the row has none.
        objects: names of what is in the picture; None: not known.
        source: where the row comes from, if it says so.
    """

    row: int
    id: str
    condition: Mapping[str, Any]
    pictures: tuple[Picture, ...]
    chosen: Any = None
    rejected: Any = None
    contrast: tuple[Picture, ...] = ()
    contrast_chosen: Any = None
    contrast_rejected: Any = None
    objects: frozenset[str] | None = None
    source: str | None = None

    @property
    def prompt(self) -> Any:
        """Of the row, pictures in their places."""
        return self.condition["prompt"]

    @property
    def asks(self) -> str:
        """What tells prompts apart."""
        return json.dumps(
            {**self.condition, "prompt": written_prompt(self.prompt)}, sort_keys=True, default=str
        )


@dataclass
class Seeds:
    """What was read.

    Attributes:
        source: of the rows.
        found: rows that can be used.
        dropped: the others, with reasons.
        rows: how many there are.
    """

    source: str
    found: list[Seed] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    rows: int = 0


def load_seeds(
    source: str | Path | list[dict[str, Any]], split: str = "train", limit: int | None = None
) -> Seeds:
    """Read rows of prompts and pictures, in any layout that training reads; answers are optional.

    Args:
        source: file, folder or hub id; or rows themselves.
        split: of the data.
        limit: take only the first so many rows.

    Raises:
        OSError: the source cannot be found or read.
        ValueError: it is corrupt, has no column of pictures or prompts, or no row can be used.
    """
    rows = load_rows(source, split)
    if limit is not None and limit < len(rows):
        first: Any = rows.rows.select(range(limit)) if rows.kind == "datasets" else rows.rows[:limit]  # type: ignore[attr-defined]
        rows = replace(rows, rows=first, numbers=rows.numbers[:limit])
    rows = ColumnsAs(renamed(rows.columns)).apply(rows)
    layout = rows.columns
    here = columns_here(layout)
    if not set(PROMPTS) & set(layout) and "chosen" not in here:
        raise ValueError(
            f"{rows.source} has the columns {', '.join(layout)}; needed prompt, and images or image"
            f"{cells.nearest(['prompt', 'images'], layout)}"
        )
    prompts = prompt_columns(here)
    table, pictures = columns_of_pictures(rows, [name for name in PICTURES if name in layout])
    # rows without answers are read here, below
    reader = RowReader(pictures, rows.folder, prompts, rows.kind in ("datasets", "parquet"), PAIRS, "paired")
    seeds = Seeds(rows.source, rows=len(rows))
    for number, row, name, state in named(table):
        try:
            check_id(row, state)
            seeds.found.append(_seed(reader, number, name, as_ours(row, layout)))
        except UnusableItem as error:
            seeds.dropped.append(Dropped(number, name, error.reason, str(error)))
    if not seeds.found:
        raise ValueError(nothing_usable(rows.source, rows.place, seeds.dropped))
    return seeds


def _seed(reader: RowReader, number: int, name: str, row: Mapping[str, Any]) -> Seed:
    if row.get("chosen") is not None and row.get("rejected") is not None:
        condition, media, answers = _pair(reader, number, row)
    else:
        condition, media, answers = _without_pair(reader, number, row)
    if not media:
        raise UnusableItem("the row has no image: there is nothing to contrast", "missing_value")
    own = tuple(medium for medium in media if isinstance(medium, Picture))
    if len(own) < len(media):
        raise UnusableItem("the row holds a video, and contrasts are made of images", "wrong_type")
    like = [] if isinstance(condition["prompt"], list) else ""
    for column in ("contrast_chosen", "contrast_rejected"):
        if row.get(column) is not None:
            answers[column] = cells.as_answer(row[column], column, like, reader.arrow)
    source = row.get("source")
    return Seed(
        number,
        name,
        condition,
        own,
        contrast=reader.of(number, row, "contrast_image"),
        objects=_objects(row.get("objects")),
        source=source if isinstance(source, str) else None,
        **answers,
    )


def _pair(
    reader: RowReader, number: int, row: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[Medium, ...], dict[str, Any]]:
    """A row as training reads it."""
    parsed = reader.parse(number, row, Counter())
    better, worse = parsed.items
    if tuple(parsed.outcome) != (1.0, 0.0, 0.0):
        raise UnusableItem("the row is a tie or a vote: needed a decided pair", "not_decided")
    if better.condition != worse.condition:
        raise UnusableItem(
            "the two answers stand under different images: the row contrasts images already", "side_images"
        )
    condition = dict(better.condition)
    own = condition.pop("pictures", ())
    return condition, own, {"chosen": better.sample, "rejected": worse.sample}


def _without_pair(
    reader: RowReader, number: int, row: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[Medium, ...], dict[str, Any]]:
    """A prompt with pictures, and one answer at most."""
    own: tuple[Medium, ...] = reader.of(number, row, "image")
    row, inline = with_marks(row, VideoColumns(reader.folder), frozenset(marks_of(own)))
    own = own or inline
    prompt = reader.prompts.read(row, reader.arrow)
    if prompt is None:
        raise UnusableItem(reader.prompts.missing, "no_prompt")
    item = pictured(Item({"prompt": reader.prompts.with_system(prompt, row)}, ""), own)
    condition = {name: value for name, value in item.condition.items() if name != "pictures"}
    like = [] if isinstance(prompt, list) else ""
    if row.get("completion") is not None and row.get("label") is not None:  # a single sample
        row = {**row, "chosen" if cells.as_flag(row["label"], "label") else "rejected": row["completion"]}
    given = {
        name: cells.as_answer(row[name], name, like, reader.arrow)
        for name in ("chosen", "rejected")
        if row.get(name) is not None
    }
    return condition, own, given


def _objects(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise UnusableItem(f"objects is {cells.shown(value)}; needed a list of names", "wrong_type")
    return frozenset(one.strip().lower() for one in value)


def written_prompt(prompt: Any) -> Any:
    """A prompt as a row holds it: without places of pictures where they all stand at its beginning, as TRL's rows have it.

    Elsewhere they are placeholders in a text, and blocks in a conversation.
    """
    count = len(marks(prompt))
    if isinstance(prompt, str):
        start = MARK * count + "\n"
        return prompt.removeprefix(start) if prompt.startswith(start) else prompt.replace(MARK, "<image>")
    if not count:
        return prompt
    first = next((n for n, message in enumerate(prompt) if message["role"] == "user"), 0)
    content = prompt[first].get("content")
    start = MARK * count
    if isinstance(content, str) and content.startswith(start):
        content = content.removeprefix(start)
    elif isinstance(content, list) and content and content[0].get("text") == start:
        content = content[1:]
    else:
        return in_blocks(prompt)
    return [*prompt[:first], {**prompt[first], "content": content}, *prompt[first + 1 :]]


def words_of(prompt: Any) -> str:
    """A prompt as a reader without eyes is told it: who says what, pictures left out."""
    if isinstance(prompt, str):
        return prompt.replace(MARK, "").strip()
    told = [(m["role"], (joined(m.get("content")) or "").replace(MARK, "").strip()) for m in prompt]
    return told[0][1] if len(told) == 1 else "\n\n".join(f"{role}: {text}" for role, text in told)


def text_of(sample: Any) -> str:
    """An answer's words."""
    if isinstance(sample, str):
        return sample
    return "\n\n".join(joined(message.get("content")) or "" for message in sample)


def in_form_of(text: str, seed: Seed) -> Any:
    """A new answer in the form of the row: one message, or text that begins as the row's own does (with a space, or without)."""
    if isinstance(seed.prompt, list):
        return [{"role": "assistant", "content": text}]
    own = next((one for one in (seed.chosen, seed.rejected) if isinstance(one, str)), "")
    return text if text[:1].isspace() else own[: len(own) - len(own.lstrip())] + text


def same(first: Sequence[Picture], second: Sequence[Picture]) -> bool:
    """Whether these are the same pictures."""
    return names(first) == names(second)
