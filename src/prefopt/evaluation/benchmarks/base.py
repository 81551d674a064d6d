"""What benchmarks of vision-language models share: questions, tallies that add up, figures of them, and reading of rows.

A figure is a function of tallies summed over units (an image, a set of figures), so that a resample of units is a weighted
sum and every figure can be bootstrapped. What cannot be computed is NaN, never a division by zero, and a count says why.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from prefopt.sources.files import load_rows

Tally = Mapping[str, float]
Figures = Callable[[Tally], dict[str, float]]


@dataclass(frozen=True)
class NamedVideo:
    """The video of a question, by names.

    Attributes:
        names: under which it may lie in the folder of videos: a file, or a folder of images that are its frames.
        start_s, end_s: the part that the question is about.
        fps: frames a second of a folder of images.
        subtitles: names under which its subtitles may lie in the folder of subtitles.
        subtitles_from_s: the time in the subtitles at which the video begins.
        subtitled_prompt: what is asked where subtitles are shown; "{subtitles}" stands for them.
    """

    names: tuple[str, ...]
    start_s: float = 0.0
    end_s: float | None = None
    fps: float = 1.0
    subtitles: tuple[str, ...] = ()
    subtitles_from_s: float = 0.0
    subtitled_prompt: str = ""


@dataclass(frozen=True)
class Question:
    """One question of a benchmark.

    Attributes:
        id: unique, as a string whatever the file holds (`ident`).
        prompt: what the model is asked.
        image: names under which the image may lie in the folder of images, its bytes, or None for a question of text alone.
        row: the published row, whose other fields travel into the file of answers.
        video: shown before the prompt, or None.
    """

    id: str
    prompt: str
    image: tuple[str, ...] | bytes | None
    row: Mapping[str, Any] = field(repr=False)
    video: NamedVideo | None = None


@dataclass(frozen=True)
class Score:
    """Figures, NaN where undefined, and the counts that they are made of."""

    figures: dict[str, float]
    counts: dict[str, float]


@dataclass(frozen=True)
class Part:
    """A part of a benchmark that has figures of its own.

    Attributes:
        name: of the part.
        tallies: by unit of the bootstrap; units are what may be drawn independently of each other.
        figures: of a sum of tallies.
    """

    name: str
    tallies: Mapping[str, Tally]
    figures: Figures

    def score(self) -> Score:
        """Figures over all units."""
        return scored(self.tallies.values(), self.figures)


@dataclass(frozen=True)
class Given:
    """Files beside questions and answers.

    Attributes:
        annotations: what is true of the images, where the questions do not hold it.
        vocabulary: names of objects and their synonyms.
        judged: what a judge said of the answers.
    """

    annotations: tuple[Path, ...] = ()
    vocabulary: Path | None = None
    judged: Path | None = None


class Benchmark(Protocol):
    """What a benchmark's module offers (`BENCHMARKS` names them)."""

    ANSWERS: str
    """Name of the file of answers, as the official scorer reads it."""

    NEEDS: str
    """What has to be given for figures, where answers alone do not do; empty otherwise."""

    def questions(self, path: Path) -> list[Question]:
        """Read the published questions."""
        ...

    def read_answers(self, path: Path, questions: Sequence[Question]) -> dict[str, str]:
        """Answers by the questions' ids, those of other questions included."""
        ...

    def answers_file(self, questions: Sequence[Question], answers: Mapping[str, str]) -> str:
        """The text of a file of answers."""
        ...

    def parts(self, questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
        """What is measured; none where something is needed that is not given (`NEEDS`)."""
        ...


def ratio(part: float, whole: float) -> float:
    """part / whole; NaN of nothing.

    Example:
        >>> ratio(1, 4), ratio(0, 0)
        (0.25, nan)
    """
    return part / whole if whole else math.nan


def harmonic(precision: float, recall: float) -> float:
    """F1 of precision and recall: 0 where either is 0, also beside an undefined one; NaN where nothing is defined.

    Example:
        >>> harmonic(0.5, 1.0), harmonic(math.nan, 0.0)
        (0.6666666666666666, 0.0)
    """
    if precision == 0 or recall == 0:
        return 0.0
    return ratio(2 * precision * recall, precision + recall)


def summed(tallies: Iterable[Tally]) -> dict[str, float]:
    """Tallies added up, name by name."""
    total: Counter[str] = Counter()
    for tally in tallies:
        for name, value in tally.items():
            total[name] += value  # type: ignore[assignment]  # typeshed knows whole numbers only
    return dict(total)


def scored(tallies: Iterable[Tally], figures: Figures) -> Score:
    """Figures and counts of tallies."""
    total = summed(tallies)
    return Score(figures(total), total)


def by_unit(tallies: Iterable[tuple[str, Tally]]) -> dict[str, Tally]:
    """Tallies of the same unit added up."""
    groups: dict[str, list[Tally]] = {}
    for unit, tally in tallies:
        groups.setdefault(unit, []).append(tally)
    return {unit: summed(group) for unit, group in groups.items()}


# -- reading ---------------------------------------------------------------------------------------------------


def ident(value: Any) -> str:
    """An id or a small number as a string, so that 1, 1.0 and "1" are the same.

    Example:
        >>> ident(1), ident("1 "), ident(2.0)
        ('1', '1', '2')
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def read_rows(path: Path, needed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of a .json, .jsonl, .csv, .tsv or .parquet file, whichever of the first two a .json file holds.

    Args:
        path: the file.
        needed: fields that every row must have.

    Raises:
        ValueError: other content, no rows, or a field that is missing; says where.
        OSError: the file is not there, or cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the path of a file that is there")
    found = load_rows(path)
    rows = [dict(row) for row in found.rows]
    for number, row in zip(found.numbers, rows, strict=True):
        for name in needed:
            if row.get(name) is None:
                raise ValueError(
                    f"{path}, {found.place} {number} has no {name!r}, only {', '.join(map(repr, row)) or 'nothing'}: needed "
                    f"{', '.join(map(repr, needed))}; is this the file of another benchmark?"
                )
    return rows


def read_json(path: Path) -> Any:
    """Whatever a JSON file holds.

    Raises:
        ValueError: it is no JSON.
        OSError: it is not there, or cannot be read.
    """
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}: give the path of a file that is there") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise ValueError(f"{path} is no JSON file: {error}") from None


def keyed(rows: Iterable[tuple[str, str]], path: Path) -> dict[str, str]:
    """Answers by id.

    Raises:
        ValueError: an id twice.
    """
    found: dict[str, str] = {}
    for name, text in rows:
        if name in found:
            raise ValueError(f"{path} answers the question {name!r} twice: leave one answer out")
        found[name] = text
    return found


def asked_once(questions: list[Question], path: Path) -> list[Question]:
    """The questions.

    Raises:
        ValueError: an id twice.
    """
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise ValueError(
                f"{path} has the question {question.id!r} twice: answers are kept by id; leave one out"
            )
        seen.add(question.id)
    return questions


def complete(answers: Mapping[str, Any], ids: Collection[str], what: str) -> None:
    """Raise a ValueError unless every question has an answer: figures of a part would pass for those of the whole."""
    missing = [name for name in ids if name not in answers]
    if missing:
        raise ValueError(
            f"{what} lack {len(missing)} of {len(ids)} questions, such as {missing[0]!r}: add them, or give the questions "
            "that are answered only"
        )


def image_of(value: Any) -> tuple[str, ...] | bytes:
    """The image of a published row: a file's name, bytes, `datasets`' {"bytes", "path"}, or base64 as in .tsv files.

    Raises:
        ValueError: none of these.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and len(value) > 1024:  # no file has so long a name
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"an image of {len(value)} characters is no base64 ({error})") from None
    if isinstance(value, str) and value:
        return (value,)
    raise ValueError(f"an image is given as {type(value).__name__}; needed a file's name, bytes or base64")


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def json_list(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as one JSON array."""
    return json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n"
