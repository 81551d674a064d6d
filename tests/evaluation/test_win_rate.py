"""Win rates against the published vectors, a plain optimizer, and cases with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from prefopt.evaluation.win_rate import (
    LengthControl,
    compare,
    displacement_rate,
    hacking_hints,
    length_control,
)

CASES = json.loads((Path(__file__).parents[1] / "data" / "ssapo.json").read_text())


def cases(op):
    found = [pytest.param(c["inputs"], c["expected"], id=c["name"]) for c in CASES if c["inputs"]["op"] == op]
    assert found
    return found


@pytest.mark.parametrize(("given", "expected"), cases("lc_winrate"))
def test_vectors_of_the_fit(given, expected):
    lists = given["length_model"], given["length_baseline"], given["preference_model"]
    found = length_control(*lists, l2=given["l2"])
    assert found.coef_length == pytest.approx(expected["coef_length"], abs=1e-8)
    assert found.coef_model == pytest.approx(expected["coef_model"], abs=1e-8)
    assert found.win_rate() == pytest.approx(expected["lc_win_rate"], abs=1e-8)
    rates = compare(*lists, resamples=20)
    assert rates.win_rate.value == pytest.approx(expected["win_rate"], abs=1e-8)
    assert rates.lc_win_rate.value == pytest.approx(expected["lc_win_rate"], abs=1e-8)


@pytest.mark.parametrize(("given", "expected"), cases("lc_winrate_predict"))
def test_vectors_of_the_prediction(given, expected):
    control = LengthControl(given["coef_model"], 0.3, given["coef_difficulty"])
    assert control.win_rate(given["difficulty"]) == pytest.approx(expected["lc_win_rate"], abs=1e-8)
    with pytest.raises(ValueError, match="difficulty"):
        control.win_rate()


def drawn(n, taste=1.0, lead=0.4, seed=0):
    """Lengths, difficulties, and preferences of a judge with a taste for length."""
    rng = np.random.default_rng(seed)
    ours, theirs = rng.integers(50, 400, n) + 60, rng.integers(50, 400, n)
    dlen = theirs - ours
    difficulty = rng.normal(size=n)
    z = lead - taste * np.tanh(dlen / dlen.std(ddof=1)) - 0.5 * difficulty
    return ours, theirs, 1 / (1 + np.exp(-z)), difficulty


def test_difficulty_is_a_third_coefficient():
    ours, theirs, q, difficulty = drawn(60)
    found = length_control(ours, theirs, q, difficulty)
    assert (found.coef_model, found.coef_length, found.coef_difficulty) == pytest.approx(
        (0.4, -1.0, -0.5), abs=1e-5
    )
    dlen = theirs - ours
    x = np.stack([np.tanh(dlen / dlen.std(ddof=1)), np.ones(60), difficulty], 1)
    plain = minimize(  # without derivatives
        lambda w: np.sum(np.logaddexp(0, x @ w) - q * (x @ w)), np.zeros(3), method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-10},
    ).x  # fmt: skip
    assert (found.coef_length, found.coef_model, found.coef_difficulty) == pytest.approx(
        tuple(plain), abs=1e-4
    )


def test_a_taste_for_length_is_taken_out():
    ours, theirs, q, _ = drawn(200, taste=2.0, lead=0.0)
    rates = compare(ours, theirs, q, resamples=100)
    assert rates.win_rate.value > 56
    assert rates.lc_win_rate.value == pytest.approx(50, abs=3)
    hints = hacking_hints(rates, (300.0, 200.0), (0.2, 0.0))
    assert len(hints) == 3
    assert "50% longer" in hints[0]
    assert hacking_hints(compare(ours, ours, q * 0 + 0.5, resamples=5), (200.0, 200.0), (0.0, 0.0)) == []


def test_swapping_the_sides_mirrors_the_rates():
    ours, theirs, q, _ = drawn(50)
    one, other = length_control(ours, theirs, q), length_control(theirs, ours, 1 - q)
    assert one.coef_model == pytest.approx(-other.coef_model)
    assert one.coef_length == pytest.approx(other.coef_length)


@pytest.mark.parametrize(("value", "rate"), [(0.5, 50.0), (1.0, 100.0), (0.0, 0.0)])
def test_certain_judges(value, rate):
    ours, theirs, q, _ = drawn(30)
    rates = compare(ours, theirs, q * 0 + value, resamples=20)
    assert rates.win_rate.value == pytest.approx(rate)
    assert rates.lc_win_rate.value == pytest.approx(rate, abs=1e-4)
    assert (rates.wins, rates.draws, rates.losses) == tuple(30 * (value == v) for v in (1, 0.5, 0))


def test_equal_lengths_leave_the_plain_rate():
    q = [1.0, 0.5, 0.0, 1.0, 1.0]
    assert length_control([7] * 5, [9] * 5, q).win_rate() == pytest.approx(70, abs=1e-4)


def test_intervals_cover_and_repeat():
    truth, covered = 100 / (1 + np.exp(-0.4)), 0
    for seed in range(40):
        rng = np.random.default_rng([7, seed])
        q = (rng.random(80) < truth / 100).astype(float)
        interval = compare(rng.integers(5, 50, 80), rng.integers(5, 50, 80), q, resamples=60).win_rate
        covered += interval.low <= truth <= interval.high
    assert covered >= 34  # 38 expected
    ours, theirs, q, _ = drawn(40)
    assert compare(ours, theirs, q, seed=1, resamples=30) == compare(ours, theirs, q, seed=1, resamples=30)
    assert compare(ours, theirs, q, seed=2, resamples=30) != compare(ours, theirs, q, seed=1, resamples=30)


@pytest.mark.parametrize(
    ("q", "words"),
    [
        ([0.5], "at least 2"),
        ([0.5, 1.5], "lie in"),
        ([0.5, float("nan")], r"preference\[1\] is nan"),
        ([1, 0, 1], "shape"),
    ],
)
def test_bad_values_are_refused(q, words):
    lengths = [5] * min(len(q), 2)
    with pytest.raises(ValueError, match=words):
        length_control(lengths, lengths, q)


def test_displacement():
    assert displacement_rate([-1, -2, -3, -4], [-1, -1, -1, -5]) == 0.5
    with pytest.raises(ValueError, match="equally long"):
        displacement_rate([1.0], [1.0, 2.0])
