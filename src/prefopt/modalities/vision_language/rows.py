"""Rows of comparisons under pictures and videos, as `prefopt.comparisons.Example`s.

    images or image, prompt, chosen, rejected           TRL's: plain or conversational, with or without image blocks
    images, prompt, completion, label                   a single sample, desirable (true) or not (false)
    videos or video, and others                         see `video/rows.py`

and, where an objective asks for them,

    chosen_images, rejected_images                      pictures of one side, in place of the row's
    contrast_image(s), contrast_chosen, contrast_rejected   another picture, and the answers that are right and wrong for it
    revised                                             the model's own answer, minimally corrected (OPA-DPO)
    auxiliary_prompt, auxiliary_response, auxiliary_image(s)    an instruction to go on answering (HA-DPO)

All columns of text rows mean what they mean there, and rows without pictures are text. Each row becomes the items that the
objective reads: the pair, and its `branches`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from prefopt.comparisons import Example, Item, UnusableItem
from prefopt.modalities.text import rows as text_rows
from prefopt.modalities.text.further import FURTHER, check_further, further_answers
from prefopt.modalities.vision_language.contrasts import Change, Picture, altered
from prefopt.modalities.vision_language.layouts import SYMMPO_REST, as_ours, columns_here, renamed
from prefopt.modalities.vision_language.media import Medium, marks_of
from prefopt.modalities.vision_language.messages import placed, with_marks
from prefopt.modalities.vision_language.placing import pictured
from prefopt.modalities.vision_language.prompts import MARK, shown, shown_messages
from prefopt.modalities.vision_language.video.rows import (
    AROUND,
    FOR_THE_RECORD,
    VIDEOS,
    VideoColumns,
    undecoded,
)
from prefopt.objectives import Branch
from prefopt.sources import cells
from prefopt.sources.collecting import Comparisons, Parsed, collect, column_hints, trait_hints
from prefopt.sources.columns import AS_THEY_ARE, ColumnsAs
from prefopt.sources.files import Rows, load_rows
from prefopt.sources.hints import describe
from prefopt.sources.layouts import PromptColumns, prompt_columns
from prefopt.sources.picture_columns import PicturesOf, columns_of_pictures
from prefopt.sources.report import Hint

BASES = ("image", "chosen_image", "rejected_image", "contrast_image", "auxiliary_image")
ANSWERS = ("contrast_chosen", "contrast_rejected", "revised")
AUXILIARY = ("auxiliary_prompt", "auxiliary_response")
PICTURES = tuple(name for base in BASES for name in (base, f"{base}s"))
OTHER_MEDIA = frozenset(
    f"{side}{name}" for side in ("", "chosen_", "rejected_") for name in ("audio", "audios")
)
OWN: frozenset[str] = frozenset({"mismatched", *FURTHER})
"""Samples that are made here neither of the row's pictures nor of its answers."""
Contrast = Literal["row"] | Change


@dataclass(frozen=True)
class Wanted:
    """What an objective reads of a row beside its pair.

    Attributes:
        branches: see `Objective.branches`.
        reads_loser: whether it reads the losing answer; if not, the contrasting one may stand in its place.
        contrast: the row's own contrast picture, or what is made of its pictures.
        seed: of what is made.
        videos: how videos are read.
    """

    branches: Mapping[str, Branch] = field(default_factory=dict)
    reads_loser: bool = True
    contrast: Contrast = "row"
    seed: int = 0
    videos: VideoColumns = field(default_factory=VideoColumns)

    @property
    def of_row(self) -> dict[str, Branch]:
        """Branches that a row gives, those with a gradient first."""
        made = {name: branch for name, branch in self.branches.items() if branch.sample not in OWN}
        return dict(sorted(made.items(), key=lambda one: not one[1].gradient))

    @property
    def further(self) -> dict[str, str]:
        """Columns of further answers under the row's own prompt, by the branches' names."""
        return further_answers(self.branches)

    @property
    def samples(self) -> frozenset[str]:
        """What these are of."""
        return frozenset(branch.sample for branch in self.of_row.values())

    @property
    def conditions(self) -> frozenset[str]:
        """Under which conditions they stand; what misleads stands under the contrast, too."""
        found = {branch.condition for branch in self.of_row.values()}
        return frozenset(found | ({"contrast"} if "misled" in self.samples else set()))


PAIRS = Wanted()


def load_pictured(
    source: str | Path | list[dict[str, Any]] | Any,
    split: str = "train",
    config_name: str | None = None,
    columns: Sequence[str] = (),
    optional: Iterable[str] = (),
    columns_as: ColumnsAs = AS_THEY_ARE,
    wanted: Wanted = PAIRS,
) -> Comparisons:
    """Read a data set of comparisons under pictures.

    Args:
        source, split, config_name, columns, optional, columns_as: see `text.rows.load_comparisons`.
        wanted: what the objective reads of a row.

    Raises:
        OSError: the source cannot be found or read.
        ValueError: it is corrupt, needed columns are missing, or no row can be used.

    Example:
        >>> rows = [{"image": b"P6 1 1 255 abc", "prompt": "What is it?", "chosen": "Grey.", "rejected": "A cat."}]
        >>> load_pictured(rows).report.comparisons["wins"]
        1
    """
    return to_pictured(columns_as.apply(load_rows(source, split, config_name)), columns, optional, wanted)


def to_pictured(
    rows: Rows, columns: Sequence[str] = (), optional: Iterable[str] = (), wanted: Wanted = PAIRS
) -> Comparisons:
    """Convert rows to examples; see `load_pictured`."""
    rows = undecoded(ColumnsAs(renamed(rows.columns)).apply(rows))
    layout = rows.columns
    here = replace(rows, columns=columns_here(layout))
    if "rejected" not in here.columns and not wanted.reads_loser and "contrast_chosen" in here.columns:
        here = replace(here, columns=(*here.columns, "rejected"))
    optional = tuple(optional)
    columns = (*columns, *(name for name in optional if name in here.columns and name not in columns))
    check_columns(here, wanted)
    schema = text_rows.detect_schema(
        replace(here, columns=tuple(name for name in here.columns if name not in (*PICTURES, *VIDEOS)))
    )
    prompts = prompt_columns(here.columns)
    table, pictures = columns_of_pictures(rows, [name for name in PICTURES if name in layout])
    arrow = rows.kind in ("datasets", "parquet")
    reader = RowReader(pictures, rows.folder, prompts, arrow, wanted, schema)
    media = [name for name in here.columns if name in OTHER_MEDIA]

    def parse(number: int, row: Mapping[str, Any], traits: Counter[str]) -> Parsed:
        if filled := [name for name in media if row.get(name) not in (None, [], "")]:
            raise ValueError(
                f"{rows.source}, {rows.place} {number}: column {filled[0]!r} is filled, but images, videos and text are all that is read "
                f"here: leave it out with ignore_columns=[{filled[0]}]"
            )
        return reader.parse(number, as_ours(row, layout), traits)

    try:
        examples, dropped, origins, traits = collect(replace(table, columns=here.columns), parse, columns)
    except ValueError as error:
        kind = next((kind for kind in ("image", "video") if f"missing_{kind}" in str(error)), None)
        if kind is None:
            raise
        held = ", ".join(name for name in (PICTURES if kind == "image" else VIDEOS) if name in layout)
        raise ValueError(
            f"{error}. Paths of {kind}s start at {rows.folder.resolve()}; to leave {kind}s out: ignore_columns=[{held}]"
        ) from None
    known = (
        *text_rows.COLUMNS[schema],
        *prompts.names,
        *PICTURES,
        *VIDEOS,
        *AROUND,
        *FOR_THE_RECORD,
        *ANSWERS,
        *AUXILIARY,
        *SYMMPO_REST,
        *optional,
        *wanted.further.values(),
    )
    absent = sum(drop.reason == "no_prompt" for drop in dropped)
    if 2 * absent >= len(rows):
        raise ValueError(f"{absent} of {len(rows)} rows of {rows.source} have no prompt: {prompts.missing}")
    notes = [
        *([Hint("note", prompts.note)] if prompts.note else []),
        *column_hints(here, known, columns),
        *trait_hints(traits),
        *text_rows.text_hints(traits),
        *picture_hints(traits, len(examples), dropped),
    ]
    shown_as = [readable(example) for example in examples]
    return Comparisons(
        examples=examples,
        dropped=dropped,
        report=describe(rows.source, len(rows), shown_as, dropped, origins, notes),
        origins=origins,
    )


def check_columns(rows: Rows, wanted: Wanted) -> None:
    """Refuse rows that lack what the objective reads.

    Raises:
        ValueError: columns are missing.
    """
    check_further(rows, wanted.further)
    needed = [name for name in ANSWERS if name in wanted.samples]
    if "contrast" in wanted.conditions and wanted.contrast == "row":
        needed.append("contrast_image")
    if "auxiliary" in wanted.samples:
        needed += AUXILIARY
    there = {name.removesuffix("s") if name in PICTURES else name for name in rows.columns}
    missing = [name for name in needed if name not in there]
    if missing:
        made = (
            " (contrast_image=crop, noise, mask or black makes one of the row's own)"
            if "contrast_image" in missing
            else ""
        )
        raise ValueError(
            f"{rows.source} has no column {', '.join(missing)}, which this objective reads of every row{made}. Its columns are "
            f"{', '.join(rows.columns)}{cells.nearest(missing, rows.columns)}. `prefopt build contrast` makes contrast images "
            "and answers"
        )


@dataclass(frozen=True)
class RowReader:
    """Reads single rows.

    Attributes:
        pictures: of a row's column.
        folder: where paths in messages start.
        prompts: columns of its prompt.
        arrow: whether rows come from a table.
        wanted: what the objective reads.
        schema: pairs or single samples.
    """

    pictures: PicturesOf
    folder: Path
    prompts: PromptColumns
    arrow: bool
    wanted: Wanted
    schema: text_rows.Schema

    def parse(self, number: int, row: Mapping[str, Any], traits: Counter[str]) -> Parsed:
        """Items and outcome of a row."""
        if not self.wanted.reads_loser and row.get("rejected") is None:
            row = {**row, "rejected": row.get("contrast_chosen")}
        videos = replace(self.wanted.videos, folder=self.folder)
        own: tuple[Medium, ...] = (*self.of(number, row, "image"), *videos.of(row, "video"))
        given: dict[str, tuple[Medium, ...]] = {
            side: (*self.of(number, row, f"{side}_image"), *videos.of(row, f"{side}_video"))
            for side in ("chosen", "rejected")
        }
        shown_kinds = marks_of((*own, *given["chosen"], *given["rejected"]))
        row, inline = with_marks(row, videos, frozenset(shown_kinds))
        if inline and own and len(inline) != len(own):
            raise UnusableItem(
                f"the messages hold {len(inline)} image(s) or video(s) and the row's own columns {len(own)}: give them once",
                "image_places",
            )
        own = own or inline
        ends = {side: found or own for side, found in given.items()}
        if self.schema == "unpaired":
            parsed = text_rows.unpaired(row, self.prompts, self.arrow, traits)
            traits["pictured"] += bool(own)
            single = tuple(videos.around(pictured(item, own), row) for item in parsed.items)
            return parsed._replace(items=single)
        other = names(ends["chosen"]) != names(ends["rejected"])
        swapped = traits["swapped"]
        parsed = text_rows.paired(
            row, self.prompts, self.arrow, traits, alike=other, further=self.wanted.further
        )
        first, second = ("rejected", "chosen") if traits["swapped"] > swapped else ("chosen", "rejected")
        sides = (first, second, *[first] * len(parsed.branches))
        items = [
            videos.around(pictured(item, ends[side]), row)
            for item, side in zip(parsed.items, sides, strict=True)
        ]
        traits["pictured"] += bool(ends["chosen"] or ends["rejected"])
        if not self.wanted.of_row:
            return parsed._replace(items=tuple(items))
        if tuple(parsed.outcome) != (1.0, 0.0, 0.0):
            raise UnusableItem(
                "the row is a tie or a vote, and the objective compares pictures, whose order votes do not tell: give decided "
                "rows, or set ties=as_win",
                "not_decided",
            )
        made = self.branches(number, row, items, ends["chosen"])
        return parsed._replace(
            items=(*items, *made.values()),
            branches={**parsed.branches, **{name: len(items) + k for k, name in enumerate(made)}},
        )

    def of(self, number: int, row: Mapping[str, Any], base: str) -> tuple[Picture, ...]:
        """Pictures of a row under a name, in its singular or plural column."""
        return tuple(Picture(ref) for name in (base, f"{base}s") for ref in self.pictures(number, row, name))

    def branches(
        self, number: int, row: Mapping[str, Any], items: Sequence[Item], media: tuple[Medium, ...]
    ) -> dict[str, Item]:
        """Further items, by the names that the objective gives them."""
        wanted = self.wanted
        own = tuple(medium for medium in media if isinstance(medium, Picture))
        if len(own) < len(media):
            raise UnusableItem(
                "the row holds a video, and the objective contrasts images: give rows of images, or an objective of answers alone",
                "wrong_type",
            )
        if not own:
            raise UnusableItem("the row has no image, and the objective contrasts images", "missing_value")
        condition = dict(items[0].condition)
        conditions = {"own": condition}
        if "contrast" in wanted.conditions:
            conditions["contrast"] = {**condition, "pictures": self.contrast(number, row, own)}
        if "blank" in wanted.conditions:
            conditions["blank"] = {**condition, "pictures": altered(own, "blank", 0)}
        samples = {"chosen": items[0].sample, "rejected": items[1].sample}
        for name in ANSWERS:
            if name in wanted.samples:
                samples[name] = cells.as_answer(row.get(name), name, samples["chosen"], self.arrow)
        if samples.get("contrast_chosen") == samples["chosen"]:
            raise UnusableItem(
                "chosen and contrast_chosen are the same: the pair under the contrast image says nothing",
                "identical_answers",
            )
        if "auxiliary" in wanted.samples:
            conditions["auxiliary"], samples["auxiliary"] = self.auxiliary(number, row)
        made = {}
        for name, branch in wanted.of_row.items():
            if branch.sample == "misled":
                misled = {**conditions[branch.condition], "misled_by": conditions["contrast"]["pictures"]}
                made[name] = Item(misled, samples["chosen"])
            else:
                made[name] = Item(conditions[branch.condition], samples[branch.sample])
        return made

    def contrast(self, number: int, row: Mapping[str, Any], own: tuple[Picture, ...]) -> tuple[Picture, ...]:
        """The pictures that contrast with the row's own."""
        if self.wanted.contrast != "row":
            return altered(own, self.wanted.contrast, self.wanted.seed)
        found = self.of(number, row, "contrast_image")
        if not found:
            raise UnusableItem("contrast_image is absent", "missing_value")
        if len(found) != len(own):
            raise UnusableItem(
                f"{len(own)} image(s) but {len(found)} contrast image(s): needed as many", "image_places"
            )
        if names(found) == names(own):
            raise UnusableItem(
                "image and contrast_image are the same picture: there is no contrast", "identical_images"
            )
        return found

    def auxiliary(self, number: int, row: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
        """Condition and answer of a row's instruction."""
        prompt = cells.as_sample(row.get("auxiliary_prompt"), "auxiliary_prompt", self.arrow)
        pictures = self.of(number, row, "auxiliary_image")
        prompt = placed(prompt, frozenset(MARK)) if isinstance(prompt, str) and pictures else prompt
        return dict(pictured(Item({"prompt": prompt}, ""), pictures).condition), cells.as_answer(
            row.get("auxiliary_response"),
            "auxiliary_response",
            [] if isinstance(prompt, list) else "",
            self.arrow,
        )


def names(pictures: Iterable[Medium]) -> tuple[str, ...]:
    """What tells pictures apart."""
    return tuple(picture.digest for picture in pictures)


def readable(example: Example) -> Example:
    """An example whose prompts and answers are for a reader."""

    def text(item: Item) -> Item:
        return Item({**item.condition, "prompt": shown_messages(item.condition["prompt"])}, item.sample)

    return Example(example.id, tuple(map(text, example.items)), example.comparisons)


def picture_hints(traits: Counter[str], kept: int, dropped: Sequence[Any]) -> list[Hint]:
    """What was noticed of the pictures."""
    hints = []
    if kept and not traits["pictured"]:
        hints.append(Hint("note", "no row has an image or video: the model is trained on text alone"))
    elif 0 < traits["pictured"] < kept:
        hints.append(Hint("note", f"{kept - traits['pictured']} of {kept} rows have no image or video"))
    same = sum(drop.reason == "identical_answers" for drop in dropped)
    if same > 0.01 * (kept + same):
        hints.append(Hint("warn", f"{same} row(s) have the same answer for both images, and were dropped"))
    return hints


__all__ = ["PAIRS", "Wanted", "load_pictured", "shown", "to_pictured"]
