"""Rows of image comparisons, single labelled images and prompts, as `prefopt.comparisons.Example`s.

    caption, jpg_0, jpg_1, label_0          Pick-a-Pic: 1 and 0 say which image is better, 0.5 that they tie
    prompt, chosen_image, rejected_image    a pair, with the optional columns of text pairs: label, votes, weight, ...
    prompt, image, label                    a single image, desirable (true) or not (false)

`prompt` may also be called `caption` or `text`. An image is a path (relative to the data file), bytes, a Pillow image,
or what `datasets` stores for one; in the metadata file of an image folder its column ends in `file_name`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

from prefopt.comparisons import LOSE, TIE, WIN, Item, Outcome, UnusableItem
from prefopt.modalities.image.data_report import describe_images
from prefopt.sources import cells
from prefopt.sources.collecting import (
    Comparisons,
    Parsed,
    check_id,
    collect,
    column_hints,
    judgement,
    named,
    nothing_usable,
    trait_hints,
)
from prefopt.sources.columns import AS_THEY_ARE, ColumnsAs
from prefopt.sources.files import Rows, load_rows
from prefopt.sources.picture_columns import picture_columns
from prefopt.sources.report import Dropped

Kind = Literal["pick_a_pic", "pair", "single"]

PROMPT = ("prompt", "caption", "text")
CHOSEN = ("chosen_image", "chosen_image_file_name", "chosen_file_name")
REJECTED = ("rejected_image", "rejected_image_file_name", "rejected_file_name")
IMAGE = ("image", "image_file_name", "file_name")

_SHARED = ("id", "weight", "source", "rule")
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "pick_a_pic": (*_SHARED, "jpg_0", "jpg_1", "label_0", "label_1", "has_label", "num_example_per_prompt"),
    "pair": (*_SHARED, "label", "is_tie", "votes", "target", "score_chosen", "score_rejected"),
    "single": (*_SHARED, "label"),
}
# in Pick-a-Pic as published, of no use here, and no misspelling of anything
PICK_A_PIC_REST = (
    *("are_different", "best_image_uid", "created_at", "ranking_id", "user_id", "__index_level_0__"),
    *("image_0_uid", "image_1_uid", "image_0_url", "image_1_url", "model_0", "model_1"),
)


class Form(NamedTuple):
    """Which kind of row a table has, and what its columns of captions and images are called."""

    kind: Kind
    prompt: str
    images: tuple[str, ...]


def load_image_comparisons(
    source: str | Path | list[dict[str, Any]] | Any,
    *,
    split: str = "train",
    config_name: str | None = None,
    columns: Sequence[str] = (),
    columns_as: ColumnsAs = AS_THEY_ARE,
    inverse_weight: str | None = None,
    thorough: bool = False,
) -> Comparisons:
    """Read a data set of image comparisons or of single labelled images.

    Args:
        source: file, folder, hub id, rows or `datasets.Dataset`; see `files.load_rows`.
        split: split to take.
        config_name: configuration of a hub data set.
        columns: numeric columns of the rows that ride along to the objective as `Comparison.columns`.
        columns_as: columns to leave out or to call otherwise.
        inverse_weight: column whose reciprocal multiplies a row's weight; with Pick-a-Pic's "num_example_per_prompt"
            each prompt counts once (PickScore, arXiv 2305.01569).
        thorough: decode every image to find damage in the middle of a file. Otherwise each is read and its header and
            end are looked at, and what is damaged elsewhere shows when it is encoded.

    Returns:
        Examples whose items have the condition {"prompt": text} and an `ImageRef` as their sample, dropped rows and
        report.

    Raises:
        OSError: the source cannot be found or read.
        ValueError: it is corrupt, needed columns are missing, or no row can be used.

    Example:
        >>> rows = [{"prompt": "a cat", "chosen_image": b"P6 1 1 255 abc", "rejected_image": b"P6 1 1 255 xyz"}]
        >>> load_image_comparisons(rows).report.comparisons["wins"]
        1
    """
    rows = columns_as.apply(load_rows(source, split, config_name))
    return to_image_comparisons(rows, columns, inverse_weight, thorough)


def to_image_comparisons(
    rows: Rows, columns: Sequence[str] = (), inverse_weight: str | None = None, thorough: bool = False
) -> Comparisons:
    """Convert rows to examples; see `load_image_comparisons`."""
    form = detect_form(rows)
    if inverse_weight is not None and inverse_weight not in rows.columns:
        raise ValueError(
            f"{rows.source} has no column {inverse_weight!r} for inverse_weight"
            f"{cells.near(inverse_weight, rows.columns)}. Its columns are {', '.join(rows.columns)}"
        )
    rows, pictures = picture_columns(rows, form.images)

    def parse(number: int, row: Mapping[str, Any], traits: Counter[str]) -> Parsed:
        condition = {"prompt": caption(row, form.prompt)}
        factor = 1.0 if inverse_weight is None else 1 / _count(row, inverse_weight)
        scores: tuple[float | None, float | None] = (None, None)
        if form.kind == "pick_a_pic":
            outcome = _pick_a_pic_label(row)
        elif form.kind == "pair":
            outcome, scores = judgement(row, traits)
        else:
            if row.get("label") is None:
                raise UnusableItem("label is absent; needed true or false", "missing_value")
            outcome = WIN if cells.as_flag(row["label"], "label") else LOSE
        refs = [pictures(number, row, column, thorough) for column in form.images]
        if len(refs) == 2 and refs[0].digest == refs[1].digest:
            raise UnusableItem("both images are the same file: nothing to learn", "identical_sides")
        if outcome == LOSE and len(refs) == 2:
            # the same comparison, told from the winner's side, so that "chosen" means chosen in every metric
            refs, outcome, scores = refs[::-1], WIN, (scores[1], scores[0])
            traits["swapped"] += form.kind == "pair"  # in Pick-a-Pic the order says nothing
        return Parsed(tuple(Item(condition, ref) for ref in refs), outcome, *scores, factor)

    examples, dropped, origins, traits = collect(rows, parse, columns)
    also = (*columns, *form.images, form.prompt, *([inverse_weight] if inverse_weight else []))
    rest = PICK_A_PIC_REST if form.kind == "pick_a_pic" else ()
    notes = [*column_hints(rows, COLUMNS[form.kind], (*also, *rest)), *trait_hints(traits)]
    return Comparisons(
        examples=examples,
        dropped=dropped,
        report=describe_images(rows.source, len(rows), examples, dropped, origins, notes),
        origins=origins,
    )


# -- columns -------------------------------------------------------------------------------------------------


def looks_like_images(columns: Iterable[str]) -> bool:
    """Whether rows with these columns compare images, or label single ones, and not texts about images.

    Example:
        >>> looks_like_images(["caption", "jpg_0", "jpg_1", "label_0"])
        True
        >>> looks_like_images(["prompt", "chosen", "rejected", "image"])
        False
    """
    names = set(columns)
    texts = {"chosen", "rejected", "completion", "candidates", "chosen_condition", "rejected_condition"}
    return not names & texts and bool(names & {"jpg_0", "jpg_1", *CHOSEN, *REJECTED, *IMAGE})


def detect_form(rows: Rows) -> Form:
    """Which kind of image rows these columns make.

    Raises:
        ValueError: none; says which columns are there, which are needed, and the nearest names.
    """
    prompt, chosen, rejected, image = (
        next((name for name in names if name in rows.columns), None)
        for names in (PROMPT, CHOSEN, REJECTED, IMAGE)
    )
    if prompt and {"jpg_0", "jpg_1", "label_0"} <= set(rows.columns):
        return Form("pick_a_pic", prompt, ("jpg_0", "jpg_1"))
    if prompt and chosen and rejected:
        return Form("pair", prompt, (chosen, rejected))
    if prompt and image and "label" in rows.columns:
        return Form("single", prompt, (image,))
    needed: dict[str, str | None] = {"prompt": prompt}
    if {"jpg_0", "jpg_1"} & set(rows.columns):
        needed |= {name: name if name in rows.columns else None for name in ("jpg_0", "jpg_1", "label_0")}
    elif image and not (chosen or rejected):
        needed |= {"label": "label" if "label" in rows.columns else None}
    else:
        needed |= {"chosen_image": chosen, "rejected_image": rejected}
    absent = [name for name, column in needed.items() if column is None]
    rest = [name for name in rows.columns if name not in needed.values()]
    hints = cells.nearest(absent, rest)
    raise ValueError(
        f"{rows.source} has the columns {', '.join(rows.columns)}; needed a prompt (or caption) and chosen_image and "
        "rejected_image, or jpg_0, jpg_1 and label_0 (Pick-a-Pic), or image and label for single images; a folder of "
        f"images needs them in a metadata.jsonl, with columns named ...file_name. Missing: {', '.join(absent)}{hints}"
    )


# -- one row -------------------------------------------------------------------------------------------------


def caption(row: Mapping[str, Any], column: str) -> str:
    """The prompt of a row.

    Raises:
        UnusableItem: there is none.
    """
    text = row.get(column)
    if text is None:
        raise UnusableItem(f"{column} is absent", "missing_value")
    if not isinstance(text, str):
        raise UnusableItem(f"{column} is {cells.shown(text)}; needed text", "wrong_type")
    if not text.strip():
        raise UnusableItem(f"{column} is empty", "empty_prompt")
    return cells.as_text(text, column)


def _count(row: Mapping[str, Any], column: str) -> float:
    count = cells.as_number(row.get(column), column, "bad_weight")
    if count <= 0:
        raise UnusableItem(f"{column} is {count:g}; needed a positive number", "bad_weight")
    return count


def _pick_a_pic_label(row: Mapping[str, Any]) -> Outcome:
    if not row.get("has_label", True):
        raise UnusableItem("has_label is false: nobody judged this pair", "missing_value")
    if row.get("label_0") is None:
        raise UnusableItem("label_0 is absent; needed 0, 0.5 or 1", "missing_value")
    label = cells.as_number(row["label_0"], "label_0", "unknown_label")
    if label not in (0, 0.5, 1):
        raise UnusableItem(f"label_0 is {label:g}; needed 0, 0.5 or 1", "unknown_label")
    if (other := row.get("label_1")) is not None and other != 1 - label:
        raise UnusableItem(
            f"label_0 is {label:g} and label_1 is {other}; they must sum to 1", "contradicting_labels"
        )
    return {0: LOSE, 0.5: TIE, 1: WIN}[label]


# -- prompts -------------------------------------------------------------------------------------------------


class Prompt(NamedTuple):
    """One prompt to sample for."""

    id: str
    prompt: str


@dataclass(frozen=True)
class Prompts(Sequence[Prompt]):
    """A list of prompts, and the rows that gave none.

    Attributes:
        prompts: in the order of the rows, repeated ones included.
        dropped: rows without text, or with something else.
    """

    prompts: list[Prompt]
    dropped: list[Dropped]

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        return self.prompts[index]

    def __len__(self) -> int:
        return len(self.prompts)


def load_prompts(
    source: str | Path | list[dict[str, Any]] | Any,
    *,
    split: str = "train",
    config_name: str | None = None,
    columns_as: ColumnsAs = AS_THEY_ARE,
) -> Prompts:
    """Read prompts for a method that makes its own images.

    Args:
        source: a .txt file with one prompt a line, or whatever `files.load_rows` reads, with a column `prompt`,
            `caption` or `text`; further columns (images, say) are not looked at.
        split: split to take.
        config_name: configuration of a hub data set.
        columns_as: columns to leave out or to call otherwise.

    Returns:
        (id, prompt) pairs as a sequence; ids are the column `id`, or "row-1", "row-2", ... by line or row number.

    Raises:
        OSError: the source cannot be found or read.
        ValueError: it is corrupt, has no such column, or no row can be used.

    Example:
        >>> list(load_prompts([{"caption": "a cat"}]))
        [Prompt(id='row-1', prompt='a cat')]
    """
    rows = columns_as.apply(load_rows(source, split, config_name, lines="prompt"))
    column = next((name for name in PROMPT if name in rows.columns), None)
    if column is None:
        hints = "".join(cells.near(name, rows.columns) for name in PROMPT[:2])
        raise ValueError(
            f"{rows.source} has the columns {', '.join(rows.columns)}; needed prompt or caption{hints}"
        )
    if rows.kind == "datasets":  # leave images on disk
        table: Any = rows.rows
        rows = replace(rows, rows=table.select_columns([c for c in ("id", column) if c in rows.columns]))
    prompts: list[Prompt] = []
    dropped: list[Dropped] = []
    for number, row, name, state in named(rows):
        try:
            check_id(row, state)
            prompts.append(Prompt(name, caption(row, column)))
        except UnusableItem as error:
            dropped.append(Dropped(number, name, error.reason, str(error)))
    if not prompts:
        raise ValueError(nothing_usable(rows.source, rows.place, dropped))
    return Prompts(prompts, dropped)
