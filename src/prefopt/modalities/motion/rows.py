"""Rows of motions, as `prefopt.comparisons.Example`s.

    prompt, chosen_motion, rejected_motion     a pair, with the optional columns of other pairs: label, votes, weight, ...
    prompt, motion[, label]                    a single motion: good unless `label` says otherwise
    a folder of HumanML3D or KIT-ML            its clips and captions, each good

`prompt` may also be called `caption` or `text`; `captions` is a list, of which each epoch shows one. A motion is features, positions of
joints, or the path of a file (`refs.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prefopt.comparisons import LOSE, WIN, Example, Item, UnusableItem
from prefopt.modalities.motion.refs import SHORTEST, as_ref
from prefopt.motion.codec import CODECS, Codec, find_codec
from prefopt.sources import cells
from prefopt.sources.collecting import (
    Comparisons,
    Parsed,
    collect,
    column_hints,
    judgement,
    trait_hints,
)
from prefopt.sources.columns import AS_THEY_ARE, ColumnsAs
from prefopt.sources.files import Rows, load_rows
from prefopt.sources.hints import assemble
from prefopt.sources.report import Hint, Measures, summary

Kind = Literal["pair", "single"]

PROMPT = ("captions", "prompt", "caption", "text")
CHOSEN, REJECTED, MOTION = "chosen_motion", "rejected_motion", "motion"
_SHARED = ("id", "weight", "source", "rule", "fps")
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "pair": (*_SHARED, "label", "is_tie", "votes", "target", "score_chosen", "score_rejected"),
    "single": (*_SHARED, "label"),
}


class Form(NamedTuple):
    """Which kind of row a table has, and what its columns are called."""

    kind: Kind
    prompt: str
    motions: tuple[str, ...]


def looks_like_motions(columns: Iterable[str]) -> bool:
    """Whether rows with these columns hold motions.

    Example:
        >>> looks_like_motions(["caption", "motion"])
        True
    """
    return bool({CHOSEN, REJECTED, MOTION} & set(columns))


def load_motion_comparisons(
    source: str | Path | list[dict[str, Any]] | Any,
    *,
    split: str = "train",
    config_name: str | None = None,
    columns: Sequence[str] = (),
    columns_as: ColumnsAs = AS_THEY_ARE,
    codec: str = "humanml3d",
    max_frames: int | None = None,
    shortest: int = SHORTEST,
) -> Comparisons:
    """Read a data set of motion comparisons, or of single motions.

    Args:
        source: file, folder, hub id, rows or `datasets.Dataset`, see `files.load_rows`; or a folder of HumanML3D or KIT-ML.
        split: split to take.
        config_name: configuration of a hub data set.
        columns: numeric columns of the rows that ride along to the objective.
        columns_as: columns to leave out or to call otherwise.
        codec: of the model that motions are for.
        max_frames: longest motion of the model, for the report.
        shortest: frames below which a motion is dropped.

    Returns:
        Examples whose items have the condition {"prompt": text} (and "captions", where there are several) and a `MotionRef`.

    Raises:
        OSError: the source cannot be found or read.
        ValueError: it is corrupt, needed columns are missing, or no row can be used.
    """
    rows = columns_as.apply(load_rows(source, split, config_name))
    return to_motion_comparisons(rows, columns, find_codec(codec), max_frames, shortest)


def to_motion_comparisons(
    rows: Rows,
    columns: Sequence[str],
    codec: Codec,
    max_frames: int | None = None,
    shortest: int = SHORTEST,
) -> Comparisons:
    """Convert rows to examples; see `load_motion_comparisons`."""
    form = detect_form(rows)
    folder = rows.folder

    def parse(number: int, row: Mapping[str, Any], traits: Counter[str]) -> Parsed:
        condition = condition_of(row, form.prompt)
        scores: tuple[float | None, float | None] = (None, None)
        if form.kind == "pair":
            outcome, scores = judgement(row, traits)
        else:
            good = row.get("label") is None or cells.as_flag(row["label"], "label")
            outcome = WIN if good else LOSE
        refs = [as_ref(row.get(column), column, folder, codec, shortest) for column in form.motions]
        if len(refs) == 2 and refs[0].digest == refs[1].digest:
            raise UnusableItem("chosen_motion and rejected_motion are the same motion", "identical_sides")
        traits["cut"] += sum(max_frames is not None and ref.frames > max_frames for ref in refs)
        return Parsed(tuple(Item(condition, ref) for ref in refs), outcome, *scores)

    examples, dropped, origins, traits = collect(rows, parse, columns)
    also = (*columns, *form.motions, form.prompt)
    notes = [*column_hints(rows, COLUMNS[form.kind], also), *trait_hints(traits)]
    if traits["cut"]:
        notes.append(
            Hint(
                "note",
                f"{traits['cut']} motion(s) are longer than {max_frames} frames: each epoch shows a stretch",
            )
        )
    report = assemble(rows.source, len(rows), examples, dropped, origins, measures_of(examples), notes, [])
    return Comparisons(examples, dropped, replace(report, own={"motions": facts(examples, codec)}), origins)


def condition_of(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    """The captions of a row.

    Raises:
        UnusableItem: there is none, or something else.
    """
    given = row.get(column)
    texts = list(given) if isinstance(given, list | tuple) else [given]
    if not texts:
        raise UnusableItem(f"{column} is an empty list", "empty_prompt")
    for text in texts:
        if text is None:
            raise UnusableItem(f"{column} is absent", "missing_value")
        if not isinstance(text, str):
            raise UnusableItem(f"{column} is {cells.shown(text)}; needed text", "wrong_type")
        if not text.strip():
            raise UnusableItem(f"{column} is empty", "empty_prompt")
    found = [cells.as_text(str(text), column) for text in texts]
    condition: dict[str, Any] = {"prompt": found[0]}
    if len(found) > 1:
        condition["captions"] = tuple(found)
    return condition


def detect_form(rows: Rows) -> Form:
    """Which kind of motion rows these columns make.

    Raises:
        ValueError: none; says which columns are there, which are needed, and the nearest names.
    """
    prompt = next((name for name in PROMPT if name in rows.columns), None)
    pair = {CHOSEN, REJECTED} <= set(rows.columns)
    if prompt and pair:
        return Form("pair", prompt, (CHOSEN, REJECTED))
    if prompt and MOTION in rows.columns and not {CHOSEN, REJECTED} & set(rows.columns):
        return Form("single", prompt, (MOTION,))
    wanted = (CHOSEN, REJECTED) if {CHOSEN, REJECTED} & set(rows.columns) else (MOTION,)
    absent = [name for name in wanted if name not in rows.columns]
    absent = absent if prompt else ["prompt", *absent]
    rest = [name for name in rows.columns if name not in wanted]
    raise ValueError(
        f"{rows.source} has the columns {', '.join(rows.columns)}; needed a prompt (or caption, captions) and chosen_motion "
        f"and rejected_motion, or motion. Missing: {', '.join(absent)}{cells.nearest(absent, rest)}"
    )


def guess_codec(rows: Rows) -> str:
    """Whose features the first motion of rows has, by their number; for rows that are looked at without a model."""
    form = detect_form(rows)
    for _, row in rows:
        value = row.get(form.motions[0])
        for name in CODECS:
            try:
                as_ref(value, form.motions[0], rows.folder, find_codec(name))
            except UnusableItem:
                continue
            return name
    return "humanml3d"


def measures_of(examples: Sequence[Example]) -> Measures:
    """Lengths of captions; what is known of motions is told in `facts`."""
    return Measures(
        lengths={
            "unit": "characters",
            "prompt": summary([len(e.items[0].condition["prompt"]) for e in examples]),
            "chosen": None,
            "rejected": None,
        },
        length_gap={"mean": None, "share_chosen_longer": None},
        histograms={},
    )


def facts(examples: Sequence[Example], codec: Codec) -> dict[str, Any]:
    """How many motions, and how long."""
    refs = [item.sample for e in examples for item in e.items]
    frames = summary([ref.frames for ref in refs])
    captions = sum(len(e.items[0].condition.get("captions", (1,))) for e in examples)
    return {
        "codec": codec.name,
        "count": len(refs),
        "distinct": len({ref.digest for ref in refs}),
        "captions": captions,
        "frames": frames,
        "fps": codec.fps,
    }
