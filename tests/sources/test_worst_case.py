"""The follower of SSAPO: golden vectors, a linear program as its judge, and what theory says of its value."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import expit

from prefopt.sources.gap_losses import (
    Pieces,
    exact_margin,
    exact_probability,
    tangents_margin,
    tangents_probability,
)
from prefopt.sources.worst_case import UNMOVED, follower, worst_case

CASES = json.loads((Path(__file__).parents[1] / "data" / "ssapo.json").read_text())
CLOSE = {"rtol": 0.0, "atol": 1e-8}


def cases(*ops: str) -> Any:
    found = [c for c in CASES if c["inputs"]["op"] in ops]
    assert found
    return pytest.mark.parametrize("case", found, ids=lambda c: c["name"])


@cases("tangents_margin", "tangents_prob")
def test_tangent_vectors(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    margin = inputs["op"] == "tangents_margin"
    pieces = tangents_margin(inputs["knots"]) if margin else tangents_probability(inputs["K"])
    x = np.array(inputs["x"])
    np.testing.assert_allclose(pieces.slope_K, expected["slope"], **CLOSE)
    np.testing.assert_allclose(pieces.intercept_K, expected["intercept"], **CLOSE)
    np.testing.assert_allclose(pieces(x), expected["pwl"], **CLOSE)
    if margin:
        np.testing.assert_allclose(exact_margin(x), expected["exact"], **CLOSE)
        assert (pieces(x) <= exact_margin(x) + 1e-12).all()
    else:
        inside = x > 0
        assert (pieces(x)[inside] <= exact_probability(x[inside]) + 1e-12).all()


@cases("follower", "follower_exact", "follower_grouped")
def test_follower_vectors(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    loss = Pieces(inputs["slope"], inputs["intercept"]) if "slope" in inputs else exact_margin
    found = follower(
        inputs["xi"], loss, *inputs["support"], inputs["epsilon"], group_size=inputs.get("group_size")
    )
    np.testing.assert_allclose(found.moved_N, expected["moved"], rtol=0, atol=1e-9)
    names = {"shift": found.shift_N, "gain_slope": found.gain_N, "center_value": found.center_value}
    names |= {"worst_value": found.worst_value, "lp_value": found.worst_value, "transport": found.transport}
    for name, got in names.items():
        if name in expected:
            np.testing.assert_allclose(got, expected[name], **CLOSE, err_msg=name)
    assert found.dual_value == pytest.approx(found.worst_value, abs=1e-8)
    if "closed_form_unbounded" in expected:
        assert expected["closed_form_unbounded"] == pytest.approx(found.center_value + inputs["epsilon"])
        assert found.worst_value < expected["closed_form_unbounded"]


# -- a solver as judge -----------------------------------------------------------------------------------------


def lp_value(value: np.ndarray, pieces: Pieces, low: float, high: float, epsilon: float) -> float:
    """Theorem 3.3 as printed, with q = q+ - q-: the slow way, over 3 N K variables."""
    n, k = len(value), len(pieces.slope_K)
    a, b = np.tile(pieces.slope_K, n), np.tile(pieces.intercept_K, n)
    x, eye, zero = np.repeat(value, k), np.eye(n * k), np.zeros(n * k)
    gain = np.concatenate([a * x + b, -a, a]) / n
    inequalities = np.block(
        [[zero, np.ones(2 * n * k) / n], [np.diag(low - x), eye, -eye], [np.diag(x - high), -eye, eye]]
    )
    bounds = np.concatenate([[epsilon], np.zeros(2 * n * k)])
    sums = np.hstack([np.kron(np.eye(n), np.ones(k)), np.zeros((n, 2 * n * k))])
    found = linprog(-gain, inequalities, bounds, sums, np.ones(n), bounds=(0, None), method="highs")
    assert found.status == 0
    return -float(found.fun)


@pytest.mark.parametrize("space", ["margin", "probability"])
@pytest.mark.parametrize("seed", range(12))
def test_equals_the_linear_program(space: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 12)), int(rng.integers(1, 7))
    xi = rng.normal(size=n) * rng.choice([0.1, 1.0, 3.0])
    epsilon = float(rng.choice([0.0, 0.01, 0.1, 0.5, 2.0]))
    found = worst_case(xi, epsilon=epsilon, space=space, pieces=k)
    if space == "margin":
        knots = [(found.low + found.high) / 2] if k == 1 else np.linspace(found.low, found.high, k)
        value, pieces = xi, tangents_margin(knots)
    else:
        value, pieces = expit(xi), tangents_probability(k)
    assert found.worst_value == pytest.approx(
        lp_value(value, pieces, found.low, found.high, epsilon), abs=1e-8
    )
    assert found.dual_value == pytest.approx(found.worst_value, abs=1e-9)
    assert found.transport <= epsilon + 1e-12
    assert ((found.moved_N > 0) & (found.moved_N < 1)).sum() <= 1


# -- what theory says ------------------------------------------------------------------------------------------

gaps = st.lists(st.floats(-8, 8), min_size=1, max_size=25).map(np.array)
radii = st.floats(0, 4)
spaces = st.sampled_from([("margin", None), ("margin", 3), ("probability", 6)])


@settings(max_examples=60, deadline=None)
@given(xi=gaps, first=radii, second=radii, space=spaces)
def test_value_rises_with_the_radius_and_is_concave(xi: Any, first: float, second: float, space: Any) -> None:
    at = [
        worst_case(xi, epsilon=e, space=space[0], pieces=space[1]).worst_value
        for e in (min(first, second), (first + second) / 2, max(first, second))
    ]
    assert at[0] - 1e-10 <= at[1] <= at[2] + 1e-10
    assert at[1] >= (at[0] + at[2]) / 2 - 1e-10


@settings(max_examples=60, deadline=None)
@given(xi=gaps, epsilon=radii, group_size=st.integers(1, 30), seed=st.integers(0, 9), space=spaces)
def test_order_groups_and_duality(xi: Any, epsilon: float, group_size: int, seed: int, space: Any) -> None:
    options: dict[str, Any] = {"epsilon": epsilon, "space": space[0], "pieces": space[1]}
    whole = worst_case(xi, **options)
    grouped = worst_case(xi, group_size=group_size, **options)
    assert whole.dual_value == pytest.approx(whole.worst_value, abs=1e-9)
    assert grouped.dual_value == pytest.approx(grouped.worst_value, abs=1e-9)
    assert grouped.worst_value <= whole.worst_value + 1e-10
    for start in range(0, len(xi), group_size):
        part = slice(start, start + group_size)
        assert (grouped.moved_N * grouped.shift_N)[part].mean() <= epsilon + 1e-10
    if group_size >= len(xi):
        assert np.array_equal(grouped.moved_N, whole.moved_N)
    order = np.random.default_rng(seed).permutation(len(xi))
    if len(np.unique(expit(xi))) == len(xi):
        moved = worst_case(xi[order], **options).moved_N
        np.testing.assert_allclose(moved, whole.moved_N[order], rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(xi=gaps, epsilon=radii, seed=st.integers(0, 99))
def test_no_distribution_in_the_ball_is_worse(xi: Any, epsilon: float, seed: int) -> None:
    """Also Theorem 2.4: the loss of any of them exceeds the mean by epsilon at most."""
    rng = np.random.default_rng(seed)
    step = rng.normal(size=len(xi))
    step *= epsilon * rng.random() / max(np.abs(step).mean(), 1e-9)
    moved = xi + step
    found = worst_case(
        xi, epsilon=epsilon, low=min(xi.min(), moved.min()) - 1, high=max(xi.max(), moved.max())
    )
    assert exact_margin(moved).mean() <= found.worst_value + 1e-10
    assert found.worst_value <= found.center_value + epsilon + 1e-10


def test_more_pieces_approach_the_exact_loss_from_below() -> None:
    """Proposition 3.2, for nested knots."""
    xi = np.random.default_rng(3).normal(size=40)
    values = [worst_case(xi, epsilon=0.2, pieces=2**k + 1).worst_value for k in range(1, 9)]
    exact = worst_case(xi, epsilon=0.2).worst_value
    assert all(a <= b + 1e-12 for a, b in zip(values, [*values[1:], exact], strict=True))
    assert values[-1] == pytest.approx(exact, abs=1e-4)
    assert values[0] < exact - 1e-3


def test_without_a_floor_the_adversary_gains_the_radius() -> None:
    """Lemma 3.1, as a limit."""
    xi = np.random.default_rng(4).normal(size=30)
    short = [
        exact_margin(xi).mean() + 0.3 - worst_case(xi, epsilon=0.3, low=low).worst_value
        for low in (-1e1, -1e2, -1e3, -1e4, -1e5)
    ]
    assert all(a > b > 0 for a, b in pairwise(short))
    assert short[-1] < 1e-4


def test_special_cases() -> None:
    xi = np.array([2.0, -1.0, 0.5])
    assert not worst_case(xi, epsilon=0.0).moved_N.any()
    everything = worst_case(xi, epsilon=100.0)
    assert everything.moved_N.tolist() == [1, 1, 1]
    assert everything.worst_value == pytest.approx(float(exact_margin(np.array([-2.0]))[0]))
    assert everything.lambda_N.tolist() == [0, 0, 0]
    affine = worst_case(xi, epsilon=0.4, pieces=1)
    assert affine.worst_value == pytest.approx(affine.center_value + float(expit(np.array([-0.5]))[0]) * 0.4)
    stuck = follower([-1.0, -1.0], exact_margin, -1.0, 2.0, 0.5)
    assert (stuck.moved_N.tolist(), stuck.transport, stuck.worst_value) == ([0, 0], 0, stuck.center_value)
    huge = worst_case([-1e4, 1e4], epsilon=1.0)
    assert np.isfinite([huge.worst_value, huge.dual_value]).all()


def test_equal_gaps_go_by_index_and_saturated_probabilities_by_gap() -> None:
    assert worst_case([1.0, 1.0, 1.0], epsilon=0.5, low=0.0).moved_N.tolist() == [1.0, 0.5, 0.0]
    found = worst_case([60.0, 50.0, 40.0], epsilon=1 / 3, space="probability", pieces=6)
    assert found.shift_N.tolist() == [1, 1, 1]
    assert found.moved_N.tolist() == [0, 0, 1]


def test_a_window_that_does_not_hold_the_gaps_is_refused_or_clipped() -> None:
    with pytest.raises(ValueError, match=r"2 of 4 values .*\[-1, 1\].*first is pair 1 with 3.*clip=True"):
        worst_case([0.0, 3.0, 0.5, -2.0], epsilon=0.1, low=-1.0, high=1.0)
    found = worst_case([0.0, 3.0, 0.5, -2.0], epsilon=0.1, low=-1.0, high=1.0, clip=True)
    assert (found.clipped, found.shift_N.tolist()) == (2, [1.0, 2.0, 1.5, 0.0])
    assert found.summary()["clipped"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xi": [0.0, np.nan]}, "xi of pair 1 is nan"),
        ({"xi": [np.inf]}, "xi of pair 0 is inf"),
        ({"xi": []}, "at least one number"),
        ({"epsilon": -0.1}, "epsilon"),
        ({"epsilon": np.inf}, "epsilon"),
        ({"epsilon": np.nan}, "epsilon"),
        ({"pieces": 0}, "pieces"),
        ({"pieces": 2.0}, "pieces"),
        ({"group_size": 0}, "group_size"),
        ({"tau": 0.0}, "tau"),
        ({"space": "logit"}, "space must be margin or probability"),
        ({"space": "probability"}, "infinite at v = 0.*give pieces"),
        ({"low": 2.0, "high": 1.0}, "low <= high"),
        ({"low": -np.inf}, "finite"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    settings = {"xi": [0.0, 1.0], "epsilon": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        worst_case(settings.pop("xi"), **settings)


def test_the_exact_loss_in_probability_needs_a_floor() -> None:
    found = worst_case([0.0, 1.0], epsilon=0.1, space="probability", low=0.01)
    assert found.dual_value == pytest.approx(found.worst_value, abs=1e-12)
    assert found.worst_value > worst_case([0.0, 1.0], epsilon=0.1, space="probability", pieces=6).worst_value


def test_pieces_must_fall() -> None:
    with pytest.raises(ValueError, match=r"piece 1 has the positive slope 0\.5"):
        Pieces(np.array([-1.0, 0.5]), np.zeros(2))
    with pytest.raises(ValueError, match="2 slopes and 1 intercepts"):
        Pieces(np.array([-1.0, -0.5]), np.zeros(1))


def test_columns_are_those_of_the_space() -> None:
    margin = worst_case([0.5, 2.0], epsilon=0.1).columns()
    assert margin[0] == {
        "robust_moved": 0.2,
        "robust_shift": 1.0,
        "robust_lambda": margin[0]["robust_lambda"],
        "robust_low": -0.5,
    }
    assert set(worst_case([0.5], epsilon=0.1, space="probability", pieces=6).columns()[0]) == {
        "robust_moved",
        "robust_shift",
    }


def test_without_a_budget_pairs_are_outside_the_game() -> None:
    found = worst_case([0.5, 2.0], epsilon=0.0)
    assert found.lambda_N.min() > 0
    for row in found.columns():
        assert row["robust_lambda"] == UNMOVED["robust_lambda"] < 0
        assert row["robust_moved"] == 0


def test_a_hundred_thousand_pairs_in_under_a_second() -> None:
    xi = np.random.default_rng(5).normal(size=100_000)
    for options in ({}, {"pieces": 6}, {"pieces": 6, "space": "probability"}, {"group_size": 100}):
        start = time.process_time()  # of this process: the machine may be busy
        found = worst_case(xi, epsilon=0.05, **options)
        assert time.process_time() - start < 1.0
        assert found.transport == pytest.approx(0.05, abs=1e-9)
        assert found.dual_value == pytest.approx(found.worst_value, abs=1e-9)
