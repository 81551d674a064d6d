"""What films are answered by: exact match by length and by place, and how often an answer is another clip's.

Answers are judged word for word. A hallucinated answer is a wrong one that is right for another clip of the film: the model
looked in the wrong place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from prefopt.metrics.positions import accuracy_by_position
from prefopt.worlds.film.task import Clip, right_answer

BINS = 4


class Answered(NamedTuple):
    """One question and what was answered.

    Attributes:
        film: that the question is about.
        slot: place in it of the clip that the answer is in.
        question: words of it.
        answer: of the model.
    """

    film: Sequence[Clip]
    slot: int
    question: str
    answer: str

    @property
    def right(self) -> bool:
        """Whether the answer is the right one, word for word."""
        return self.answer.split() == right_answer(self.film, self.question).split()

    @property
    def is_elsewhere(self) -> bool:
        """Whether the answer is that of some clip of the film."""
        return " ".join(self.answer.split()) in {clip.said for clip in self.film}


class Measures(NamedTuple):
    """Of answers about films of one length; shares in [0, 1], NaN where there is nothing to take a share of.

    Attributes:
        accuracy: share of the answers that are right.
        by_bin: the same by the quarter of the film that the answer is in.
        spread: largest less smallest of `by_bin`.
        hallucinated: share of the wrong answers that are right for another clip of the film.
        films: how many.
    """

    accuracy: float
    by_bin: tuple[float, ...]
    spread: float
    hallucinated: float
    films: int


def measures(records: Sequence[Answered]) -> Measures:
    """The measures of answers to questions about one object each."""
    if not records:
        return Measures(math.nan, (math.nan,) * BINS, math.nan, math.nan, 0)
    rights = [record.right for record in records]
    found = accuracy_by_position(
        rights, [record.slot for record in records], [len(record.film) for record in records], BINS
    )
    wrong = [record for record, right in zip(records, rights, strict=True) if not right]
    return Measures(
        accuracy=found.accuracy,
        by_bin=tuple(math.nan if share is None else share for share in found.bin_accuracy),
        spread=found.spread,
        hallucinated=_mean([record.is_elsewhere for record in wrong]),
        films=len(records),
    )


class Order(NamedTuple):
    """Of answers to the question which of two objects comes first; shares in [0, 1].

    Attributes:
        first: share of the answers that name the right object.
        accuracy: share of the answers that are right, where it goes included.
        films: how many.
    """

    first: float
    accuracy: float
    films: int


def order(records: Sequence[Answered]) -> Order:
    """The measures of answers to the question which of two objects comes first."""
    named = [
        record.answer.split()[:2] == right_answer(record.film, record.question).split()[:2]
        for record in records
    ]
    return Order(_mean(named), _mean([record.right for record in records]), len(records))


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else math.nan
