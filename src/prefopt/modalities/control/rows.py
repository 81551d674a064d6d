"""Rows of control comparisons, as `prefopt.comparisons.Example`s.

    prompt, image, chosen_condition, rejected_condition     one image, explained by two conditions; the true one is chosen
    prompt, chosen_image, rejected_image, condition         two images under one condition
    prompt, image, condition                                one image under one condition, desirable unless `label` is false

Conditions may also be called winner and loser, or winner_KIND and loser_KIND (winner_canny), as released. They are images like
any other: paths, bytes, Pillow images, what `datasets` stores. Further columns are those of image pairs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from prefopt.comparisons import LOSE, WIN, Item, Outcome, UnusableItem
from prefopt.modalities.image.data_report import describe_images
from prefopt.modalities.image.rows import (
    CHOSEN,
    COLUMNS,
    IMAGE,
    PROMPT,
    REJECTED,
    caption,
)
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
from prefopt.sources.files import Rows, evaluation_split, load_rows
from prefopt.sources.picture_columns import picture_columns
from prefopt.sources.pictures import ImageRef, decode
from prefopt.sources.report import Dropped
from prefopt.worlds import world_modality, world_of, world_prompts

Kind = Literal["conditions", "images", "single"]
CONDITION = ("condition", "condition_file_name", "conditioning_image", "conditioning_image_file_name")
SIDES = (
    ("chosen_condition", "rejected_condition"),
    ("chosen_condition_file_name", "rejected_condition_file_name"),
    ("winner", "loser"),
)
LEVELS = 256
SEE_THROUGH = ("RGBA", "RGBa", "LA", "La", "PA", "P")
SAME_SHAPE = 0.02  # relative difference of two aspect ratios: resizing rounds to whole pixels


class Form(NamedTuple):
    """Which kind of row a table has, and what its columns are called."""

    kind: Kind
    prompt: str
    pictures: tuple[str, ...]
    """The shared one, the chosen one, the rejected one; of single images the condition and the image."""


def load_control_comparisons(
    source: str | Path | list[dict[str, Any]] | Any,
    *,
    split: str = "train",
    config_name: str | None = None,
    columns: Sequence[str] = (),
    columns_as: ColumnsAs = AS_THEY_ARE,
    thorough: bool = False,
    without_losers: bool = False,
) -> Comparisons:
    """Read a data set of control comparisons.

    Args:
        source: file, folder, hub id, rows or `datasets.Dataset`; see `files.load_rows`.
        split: split to take.
        config_name: configuration of a hub data set.
        columns: numeric columns of the rows that ride along to the objective as `Comparison.columns`.
        columns_as: columns to leave out or to call otherwise.
        thorough: decode every picture to find damage in the middle of a file.
        without_losers: losing conditions will be made: of each row only its true one is read, and stands for both.

    Returns:
        Examples whose items have the condition {"prompt": text, "control": ImageRef} and an `ImageRef` as their sample,
        dropped rows and report.

    Raises:
        OSError: the source cannot be found or read.
        ValueError: it is corrupt, needed columns are missing, or no row can be used.
    """
    rows = columns_as.apply(load_rows(source, split, config_name))
    return to_control_comparisons(rows, columns, thorough, without_losers)


def to_control_comparisons(
    rows: Rows, columns: Sequence[str] = (), thorough: bool = False, without_losers: bool = False
) -> Comparisons:
    """Convert rows to examples; see `load_control_comparisons`."""
    form = detect_form(rows)
    if without_losers and form.kind == "images":
        raise ValueError(
            f"{rows.source} compares images under one condition, and losing_condition=online makes conditions: give rows of "
            "prompt, image and condition, or leave losing_condition out"
        )
    rows, pictures = picture_columns(rows, form.pictures)

    def parse(number: int, row: Mapping[str, Any], traits: Counter[str]) -> Parsed:
        prompt = caption(row, form.prompt)
        if form.kind == "single":
            control, image = (pictures(number, row, name, thorough) for name in form.pictures)
            check_plain(control)
            check_shapes(form, (control, image))
            good = row.get("label") is None or cells.as_flag(row["label"], "label")
            one = Item({"prompt": prompt, "control": control}, image)
            if without_losers and not good:
                raise UnusableItem("not labelled good: its condition is not a true one", "not_good")
            return Parsed((one, one), WIN) if without_losers else Parsed((one,), WIN if good else LOSE)
        outcome, scores = judgement(row, traits)
        if without_losers:
            read = (form.pictures[0], true_side(outcome, form.pictures[1:]))
            shared, true = (pictures(number, row, column, thorough) for column in read)
            check_plain(true)
            check_shapes(form._replace(pictures=read), (shared, true))
            one = Item({"prompt": prompt, "control": true}, shared)
            return Parsed((one, one), WIN)
        shared, first, second = (pictures(number, row, name, thorough) for name in form.pictures)
        what = "conditions" if form.kind == "conditions" else "images"
        if first.digest == second.digest:
            raise UnusableItem(f"both {what} are the same file: nothing to learn", "identical_sides")
        for side in (first, second) if form.kind == "conditions" else (shared,):
            check_plain(side)
        check_shapes(form, (shared, first, second))
        if form.kind == "conditions":
            ends = [Item({"prompt": prompt, "control": side}, shared) for side in (first, second)]
        else:
            condition = {"prompt": prompt, "control": shared}
            ends = [Item(condition, side) for side in (first, second)]
        if outcome.lose > outcome.win:  # samples are drawn under the first
            ends, scores = ends[::-1], (scores[1], scores[0])
            outcome = Outcome(outcome.lose, outcome.win, outcome.tie)
            traits["swapped"] += 1
        return Parsed(tuple(ends), outcome, *scores)

    examples, dropped, origins, traits = collect(rows, parse, columns)
    known = (*COLUMNS["single" if form.kind == "single" else "pair"], "score")
    notes = [
        *column_hints(rows, known, (*columns, *form.pictures, form.prompt)),
        *trait_hints(traits),
    ]
    report = describe_images(rows.source, len(rows), examples, dropped, origins, notes)
    return Comparisons(examples, dropped, report, origins)


def check_shapes(form: Form, refs: Sequence[ImageRef]) -> None:
    """Raise `UnusableItem` for conditions that do not lie over their image: each is cut and resized as the image is.

    Two images under one condition may have any shape themselves only if both have that of the condition.
    """
    ratios = [ref.size[0] / ref.size[1] for ref in refs]
    for name, ref, ratio in zip(form.pictures[1:], refs[1:], ratios[1:], strict=True):
        if abs(ratio / ratios[0] - 1) > SAME_SHAPE:
            (w, h), (u, v) = refs[0].size, ref.size
            raise UnusableItem(
                f"{name} is {u} x {v} and {form.pictures[0]} {w} x {h}: needed the same proportions, since both are cut alike",
                "wrong_shape",
            )


def check_plain(ref: ImageRef) -> ImageRef:
    """A control image that means the same to everybody.

    Raises:
        UnusableItem: it has transparent parts, which would become white, where most conditions say nothing in black; or grey
            of 16 bits that would be black in 8, which are class ids more likely than grey.
    """
    mode = ref.facts.mode
    if not mode.startswith("I") and mode not in SEE_THROUGH:
        return ref
    import io

    from PIL import Image

    decode(ref)  # tells what is damaged
    picture = Image.open(io.BytesIO(ref.read()))
    if mode.startswith("I"):
        most = np.asarray(picture).max()
        if 0 < most < LEVELS:
            raise UnusableItem(
                f"{ref.name} has 16 bits a pixel and levels up to {most} of 65535, which are black in 8 bits: if they are class "
                "ids, save it with 8 bits a pixel; if they are grey, spread them over all levels",
                "dark_16_bits",
            )
    elif mode != "P" or "transparency" in picture.info:
        least = np.asarray(picture.convert("RGBA"))[..., 3].min()
        if least < LEVELS - 1:
            raise UnusableItem(
                f"{ref.name} has transparent parts, and what is behind them is not known (black says nothing in most control "
                "images): save it without an alpha channel",
                "transparent",
            )
    return ref


def true_side(outcome: Outcome, sides: tuple[str, ...]) -> str:
    """Of two columns of conditions, that which votes favour.

    Raises:
        UnusableItem: neither.
    """
    if outcome.win == outcome.lose:
        raise UnusableItem("its two conditions tie: neither is the true one", "tie")
    return sides[outcome.lose > outcome.win]


def takes_columns(columns: Collection[str]) -> bool:
    """Whether rows with these columns compare under control images.

    Example:
        >>> takes_columns(["prompt", "image", "winner_canny", "loser_canny"]), takes_columns(["prompt", "chosen_image"])
        (True, False)
    """
    if sides_of(columns) is not None:
        return True
    pairs = any(name in columns for name in CHOSEN) and any(name in columns for name in REJECTED)
    single = any(name in columns for name in IMAGE)
    return (pairs or single) and any(name in columns for name in CONDITION)


def sides_of(columns: Collection[str]) -> tuple[str, str] | None:
    """Columns of the chosen and the rejected condition, where both are there."""
    for winner in columns:
        if winner.startswith("winner_") and winner.replace("winner", "loser", 1) in columns:
            return winner, winner.replace("winner", "loser", 1)
    return next((pair for pair in SIDES if set(pair) <= set(columns)), None)


def detect_form(rows: Rows) -> Form:
    """Which kind of control rows these columns make.

    Raises:
        ValueError: none; says which columns are there, which are needed, and the nearest names.
    """
    first = {
        what: next((name for name in names if name in rows.columns), None)
        for what, names in (("prompt", PROMPT), ("image", IMAGE), ("condition", CONDITION))
    }
    chosen, rejected = (next((n for n in names if n in rows.columns), None) for names in (CHOSEN, REJECTED))
    sides = sides_of(rows.columns)
    if first["prompt"] and first["image"] and sides:
        return Form("conditions", first["prompt"], (first["image"], *sides))
    if first["prompt"] and first["condition"] and chosen and rejected:
        return Form("images", first["prompt"], (first["condition"], chosen, rejected))
    if first["prompt"] and first["condition"] and first["image"] and not (chosen or rejected):
        return Form("single", first["prompt"], (first["condition"], first["image"]))
    needed: dict[str, str | None] = {"prompt": first["prompt"]}
    if chosen or rejected or first["condition"]:
        needed |= {"chosen_image": chosen, "rejected_image": rejected, "condition": first["condition"]}
    else:
        needed |= {"image": first["image"], "chosen_condition": None, "rejected_condition": None}
        needed |= dict(zip(("chosen_condition", "rejected_condition"), sides or (None, None), strict=True))
    absent = [name for name, column in needed.items() if column is None]
    rest = [name for name in rows.columns if name not in needed.values()]
    hints = cells.nearest(absent, rest)
    raise ValueError(
        f"{rows.source} has the columns {', '.join(rows.columns)}; needed prompt, image, chosen_condition and "
        "rejected_condition (one image, two conditions), or prompt, chosen_image, rejected_image and condition (two images, "
        f"one condition), or prompt, image and condition (single images). Missing: {', '.join(absent)}{hints}"
    )


# -- true conditions -----------------------------------------------------------------------------------------


class Conditioned(NamedTuple):
    """A prompt and its true condition: what one samples under."""

    row: int
    """Number of the row, from 1."""
    id: str
    prompt: str
    control: ImageRef
    image: ImageRef | None
    """The real image that the condition was found in, where the rows have it."""


@dataclass(frozen=True)
class TrueConditions:
    """True conditions of a data set, and the rows that gave none."""

    source: str
    rows: int
    """Of the data set."""
    found: list[Conditioned]
    dropped: list[Dropped]


def load_conditions(source: str | Path | list[dict[str, Any]] | Any, split: str = "train") -> TrueConditions:
    """Read prompts and their true conditions, of rows that may hold more (images, losing conditions).

    Args:
        source: file, folder, hub id, rows or `datasets.Dataset`, with `prompt` and `condition`, `chosen_condition`, `winner`
            or `winner_KIND`; an `image` is the real one. Of two conditions the true one is that which `label` or votes favour;
            single images must not be labelled as not good.
        split: split to take.

    Raises:
        OSError: the source cannot be found or read.
        ValueError: it is corrupt, needed columns are missing, or no row can be used.
    """
    rows = load_rows(source, split)
    sides = sides_of(rows.columns)
    names = {
        "prompt": next((n for n in PROMPT if n in rows.columns), None),
        "condition": next((n for n in CONDITION if n in rows.columns), sides[0] if sides else None),
        "image": next((n for n in IMAGE if n in rows.columns), None),
    }
    absent = [name for name in ("prompt", "condition") if names[name] is None]
    if absent:
        rest = [name for name in rows.columns if name not in names.values()]
        raise ValueError(
            f"{rows.source} has the columns {', '.join(rows.columns)}; needed prompt and condition (image too, where there is "
            f"one). Missing: {', '.join(absent)}{cells.nearest(absent, rest)}"
        )
    there = {name: column for name, column in names.items() if column is not None}
    shown = [there[name] for name in ("condition", "image") if name in there]
    if sides is not None and there["condition"] == sides[0]:
        shown.append(sides[1])
    rows, pictures = picture_columns(rows, shown)
    found: list[Conditioned] = []
    dropped: list[Dropped] = []
    for number, row, name, state in named(rows):
        try:
            check_id(row, state)
            prompt = caption(row, there["prompt"])
            column = there["condition"]
            if sides is not None and column == sides[0]:
                column = true_side(judgement(row, Counter())[0], sides)
            elif (
                "image" in there and row.get("label") is not None and not cells.as_flag(row["label"], "label")
            ):
                raise UnusableItem("not labelled good: its condition is not a true one", "not_good")
            control = check_plain(pictures(number, row, column, False))
            image = pictures(number, row, there["image"], False) if "image" in there else None
            if image is not None:
                check_shapes(Form("conditions", there["prompt"], (there["image"], column)), (image, control))
            found.append(Conditioned(number, name, prompt, control, image))
        except UnusableItem as error:
            dropped.append(Dropped(number, name, error.reason, str(error)))
    if not found:
        raise ValueError(nothing_usable(rows.source, rows.place, dropped))
    return TrueConditions(rows.source, len(rows), found, dropped)


def conditions_of(source: str, split: str | None, limit: int | None = None) -> TrueConditions:
    """`load_conditions` of a data set, or of a world: any split of it but "train" is "test".

    Args:
        source: see `load_conditions`, or world:NAME.
        split: split to take; None for the one to judge by, see `evaluation_split`.
        limit: take only the first so many.
    """
    world = world_of(source)
    if world is None:
        found = load_conditions(source, split or evaluation_split(source))
    else:
        part: Literal["train", "test"] = "train" if split == "train" else "test"
        n = min(limit or math.inf, world_prompts(source, part))
        if world_modality(source) != "control":
            raise ValueError(
                f"{source} has no control images: give world:scene, or rows of prompt and condition"
            )
        found = load_conditions(
            world.singles(int(n), split=part)
        )  # its comparisons are where its own model erred
    return found if limit is None else replace(found, found=found.found[:limit])
