"""Measures of answers, on answers made by hand."""

from __future__ import annotations

import math

import pytest

from prefopt.worlds.film.measures import Answered, measures, order
from prefopt.worlds.film.task import Clip, asked, asked_order

FILM = [Clip(k, k) for k in range(8)]


def told(slot: int, answer: str) -> Answered:
    return Answered(FILM, slot, asked(FILM[slot]), answer)


def test_accuracy_by_place_and_answers_of_other_clips():
    found = measures(
        [
            told(0, FILM[0].said),
            told(1, FILM[2].said),  # another clip's
            told(2, f"  {FILM[2].said}  "),
            told(4, "down late"),  # no clip's: clips 0 to 7 have answers 0 to 7
            told(5, f"{FILM[5].said} more"),  # nearly
            told(7, FILM[7].said),
        ]
    )
    assert found.accuracy == pytest.approx(3 / 6)
    assert found.by_bin == (1 / 2, 1.0, 0.0, 1.0)
    assert found.spread == 1.0
    assert found.hallucinated == pytest.approx(1 / 3)
    assert found.films == 6


def test_what_there_is_nothing_of_is_not_counted():
    found = measures([Answered(FILM[:2], 1, asked(FILM[1]), FILM[1].said)])
    assert found.accuracy == 1
    assert [math.isnan(share) for share in found.by_bin] == [True, True, False, True]
    assert found.spread == 0
    assert math.isnan(found.hallucinated)
    nothing = measures([])
    assert math.isnan(nothing.accuracy)
    assert math.isnan(nothing.spread)


def test_bins_are_quarters_whatever_the_length():
    for n in (4, 5, 8, 24):
        film = [Clip(k, 0) for k in range(n)]
        for p in range(n):
            found = measures([Answered(film, p, asked(film[p]), "")])
            assert [math.isnan(share) for share in found.by_bin] == [k != p * 4 // n for k in range(4)]


def test_order_counts_the_object_and_the_whole_answer():
    question = asked_order(FILM[6], FILM[3])
    right = f"{FILM[3].name} {FILM[3].motion}"
    answers = [right, f"{FILM[3].name} down", f"{FILM[6].name} {FILM[6].motion}", ""]
    assert FILM[3].motion != "down"
    found = order([Answered(FILM, 3, question, answer) for answer in answers])
    assert found == (2 / 4, 1 / 4, 4)
