"""Differences with paired intervals, and verdicts that need CHAIR and coverage both."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from prefopt.evaluation.benchmarks import chair, pope
from prefopt.evaluation.benchmarks.base import Part, harmonic, ident, image_of, ratio, summed
from prefopt.evaluation.benchmarks.chair import Caption
from prefopt.evaluation.benchmarks.comparison import Difference, differences, paired, verdict


def accuracies(right: np.ndarray) -> Part:
    return Part(
        "pope", {str(n): pope.tally("yes", "yes" if r else "no") for n, r in enumerate(right)}, pope.figures
    )


def captions(mentions: list[list[str]], truth: list[set[str]]) -> Part:
    pairs = zip(mentions, truth, strict=True)
    return Part(
        "chair", {str(n): chair.tally(Caption(m, t)) for n, (m, t) in enumerate(pairs)}, chair.figures
    )


def test_the_interval_is_that_of_scipys_paired_bootstrap():
    drawn = np.random.default_rng(1)
    ours, theirs = drawn.random(300) < 0.7, drawn.random(300) < 0.5
    found = differences(accuracies(ours), accuracies(theirs), resamples=4000)["accuracy"]
    assert found.value == pytest.approx(ours.mean() - theirs.mean())
    theirs_too = bootstrap(
        (ours.astype(float) - theirs,),
        np.mean,
        method="percentile",
        n_resamples=4000,
        random_state=np.random.default_rng(2),  # `rng` in scipy 1.15 and later, which take both
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs_too.low, theirs_too.high), abs=0.01)


def test_sides_are_drawn_together():
    right = np.random.default_rng(0).random(50) < 0.5
    found = differences(accuracies(right), accuracies(right))
    assert all((d.value, d.low, d.high) == (0, 0, 0) for d in found.values())


def test_ratios_of_sums_are_bootstrapped_and_not_means_of_ratios():
    ours = captions([["a"] * 1, ["a", "b", "c", "d"]], [{"a"}, {"z"}])
    theirs = captions([["a"], ["z"]], [{"a"}, {"z"}])
    assert differences(ours, theirs)["chair_i"].value == pytest.approx(4 / 5)


def test_resamples_without_a_figure_are_counted():
    ours = captions([["a"], []], [{"a"}, {"a"}])
    found = differences(ours, ours, resamples=400)
    assert 50 < found["chair_i"].undefined < 150  # a quarter draws the silent caption twice
    assert (found["chair_i"].low, found["recall"].undefined) == (0, 0)
    silent = differences(captions([[]], [{"a"}]), captions([["a"]], [{"a"}]), resamples=10)["chair_i"]
    assert math.isnan(silent.value)
    assert math.isnan(silent.low)
    assert silent.undefined == 10


def test_what_cannot_be_compared():
    part = accuracies(np.array([True, False]))
    with pytest.raises(ValueError, match="answer other questions, such as of '2'"):
        differences(part, accuracies(np.array([True, False, True])))
    with pytest.raises(ValueError, match="resamples of at least 2"):
        differences(part, part, resamples=1)
    assert paired([part], [part]) == [(part, part)]
    with pytest.raises(ValueError, match="the model has the parts pope, the baseline none"):
        paired([part], [])


def of(chair_i: tuple[float, float], recall: tuple[float, float]) -> dict[str, Difference]:
    return {
        name: Difference(sum(interval) / 2, *interval, 0)
        for name, interval in (("chair_i", chair_i), ("recall", recall))
    }


@pytest.mark.parametrize(
    ("chair_i", "recall", "begins"),
    [
        ((-0.2, -0.1), (-0.01, 0.02), "improved"),
        ((-0.2, -0.1), (0.01, 0.02), "improved"),
        ((-0.2, -0.1), (-0.3, -0.1), "no improvement shown: fewer hallucinations, and less is covered"),
        ((-0.2, -0.1), (-0.019, -0.001), "no improvement shown"),
        ((-0.2, -0.1), (-0.03, 0.02), "undecided: fewer hallucinations, but a loss of coverage above 2%"),
        ((-0.2, 0.1), (0.1, 0.2), "undecided: the interval of chair_i includes no change"),
        ((-0.2, 0.0), (0.1, 0.2), "undecided"),
        ((0.1, 0.2), (0.1, 0.2), "not improved: more hallucinations, though more is covered"),
        ((0.1, 0.2), (-0.1, 0.2), "not improved: more hallucinations, and no more"),
        ((math.nan, math.nan), (0.1, 0.2), "no verdict"),
        ((-0.2, -0.1), (math.nan, math.nan), "no verdict"),
    ],
)
def test_verdicts_need_both(chair_i, recall, begins):
    said = verdict(of(chair_i, recall))
    assert said.startswith(begins)
    assert "chair_i" in said
    assert "recall" in said


def test_no_chair_no_verdict_and_no_verdict_on_chair_alone():
    assert verdict({"accuracy": Difference(0.5, 0.4, 0.6, 0)}) is None
    assert verdict({"chair_i": Difference(-0.5, -0.6, -0.4, 0)}) is None


def test_saying_less_is_no_improvement():
    truth = [{"a", "b", "c", "d"}] * 60
    talkative = captions([["a", "b", "c", "x"]] * 60, truth)
    terse = captions([["a"]] * 60, truth)
    found = differences(terse, talkative)
    assert found["chair_i"].value == -0.25
    assert verdict(found).startswith("no improvement shown")


def test_small_helpers():
    assert math.isnan(ratio(0, 0))
    assert [ident(v) for v in (1, "1", 1.0, " 1 ", "VD", 1.5)] == ["1", "1", "1", "1", "VD", "1.5"]
    assert summed([{"a": 1, "b": True}, {"a": 2, "c": 0}]) == {"a": 3, "b": 1, "c": 0}
    assert harmonic(1, 0.5) == pytest.approx(2 / 3)
    assert math.isnan(harmonic(math.nan, 0.5))
    assert image_of({"bytes": b"x", "path": "y"}) == b"x"
    assert image_of({"bytes": None, "path": "y"}) == image_of("y") == ("y",)
    for wrong in (3, "", None):
        with pytest.raises(ValueError, match="needed a file's name"):
            image_of(wrong)
    with pytest.raises(ValueError, match="is no base64"):
        image_of("?" * 2000)
