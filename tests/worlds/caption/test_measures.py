"""Measures of captions on cases that were worked out by hand."""

from __future__ import annotations

import math

import pytest

from prefopt.worlds.caption.measures import f1, hallucinated, is_exact, measures, mentioned

# red square (0), whose companion is red plus (1), whose companion is blue square (6)
RED, PLUS, BLUE, YELLOW = 0, 1, 6, 11

RECORDS = [
    ((RED, YELLOW), "red square, yellow triangle"),  # exact
    ((RED, BLUE), "red square, red plus, blue square"),  # names a companion
    ((RED, PLUS, BLUE), "red square, red square"),  # leaves out two, which are companions, and repeats one
    ((RED, YELLOW), "green triangle"),  # all wrong, and no companion of either
]


def test_measures_of_four_captions():
    found = measures(RECORDS)
    # named 2 + 3 + 1 + 1, made up 0 + 1 + 0 + 1; shown 2 + 2 + 3 + 2, found 2 + 2 + 1 + 0
    assert found.captions == 4
    assert found.mentions == 7 / 4
    assert found.chair_i == 2 / 7
    assert found.chair_s == 2 / 4
    assert found.cover == 5 / 9
    assert found.f1 == pytest.approx(2 * (5 / 7) * (5 / 9) / (5 / 7 + 5 / 9))
    assert found.cog == 1 / 7
    assert found.cover_prior == 0 / 2
    assert found.exact == 1 / 4


def test_cover_of_companions_counts_the_objects_that_the_prior_expects():
    found = measures([((RED, PLUS, BLUE), "red plus, red square"), ((RED, YELLOW), "red square")])
    assert found.cover_prior == 1 / 2
    assert found.cover == 3 / 5
    assert found.cog == 0  # red plus is a companion that is there
    assert found.exact == 0


def test_another_order_is_not_exact():
    found = measures([((RED, BLUE), "blue square, red square")])
    assert (found.f1, found.exact) == (1, 0)


def test_captions_that_name_nothing_have_no_chair():
    found = measures([((RED,), ""), ((BLUE, RED), "red, plus")])
    assert math.isnan(found.chair_i)
    assert math.isnan(found.cog)
    assert math.isnan(found.f1)
    assert (found.chair_s, found.cover, found.mentions, found.captions) == (0, 0, 0, 2)
    assert measures([((RED,), ""), ((RED,), "red square")]).chair_i == 0
    wrong = measures([((RED,), "blue plus")])
    assert (wrong.chair_i, wrong.cover, wrong.f1) == (1, 0, 0)
    nothing = measures([])
    assert nothing.captions == 0
    assert math.isnan(nothing.exact)


@pytest.mark.parametrize(
    ("caption", "score"),
    [
        ("red square, blue square", 1),
        ("blue square, red square, red square", 1),
        ("red square", 2 / 3),
        ("red square, red plus, blue square", 4 / 5),
        ("red plus", 0),
        ("", 0),
    ],
)
def test_f1_of_one_caption(caption, score):
    assert f1((RED, BLUE), caption) == pytest.approx(score)


def test_f1_agrees_with_the_one_of_torchmetrics():
    torch, metrics = (
        pytest.importorskip("torch"),
        pytest.importorskip("torchmetrics.functional.classification"),
    )
    for objects, caption in RECORDS:
        there, told = (
            torch.zeros(12, dtype=torch.int).index_fill(0, torch.tensor(sorted(classes)), 1)
            for classes in (objects, mentioned(caption))
        )
        assert f1(objects, caption) == pytest.approx(float(metrics.binary_f1_score(told, there)), abs=1e-6)


def test_marks_are_where_the_words_are():
    caption = "red square, red plus, blue square, red plus"
    marked = hallucinated((RED, BLUE), caption)
    assert [caption[m.start : m.end] for m in marked] == ["red plus", "red plus"]
    assert [m.start for m in marked] == [12, 35]
    assert hallucinated((RED, PLUS, BLUE), caption) == []


def test_exact_is_the_order_and_no_word_more():
    objects = (RED, BLUE)
    assert is_exact(objects, "red square, blue square")
    assert is_exact(objects, " Red square ,blue  square")
    for wrong in ("blue square, red square", "red square blue square", "red square, blue square, red", ""):
        assert not is_exact(objects, wrong)
