"""How much likelier a prompt is among desirable samples: against a regression solved by Newton's method, and the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from prefopt.sources.density_ratio import FOLDS, density_ratios, logistic_regression


def newton(x_ND: np.ndarray, good_N: np.ndarray, bad_N: np.ndarray) -> np.ndarray:
    """The minimum of |w|^2 / 2 + weighted log losses, by its second derivatives; the bias last."""
    total = good_N.sum() + bad_N.sum()
    up, down = good_N * total / good_N.sum() / 2, bad_N * total / bad_N.sum() / 2
    design = np.column_stack([x_ND, np.ones(len(x_ND))])
    penalty = np.diag([1.0] * x_ND.shape[1] + [0.0])
    theta = np.zeros(design.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-design @ theta))
        gradient = penalty @ theta + design.T @ (down * p - up * (1 - p))
        curvature = penalty + design.T @ (design * ((up + down) * p * (1 - p))[:, None])
        theta -= np.linalg.solve(curvature, gradient)
    return theta


def test_the_regression_is_at_its_minimum() -> None:
    rng = np.random.default_rng(3)
    x_ND = rng.normal(size=(50, 4)) * [1, 2, 0.5, 1]
    good_N, bad_N = rng.integers(0, 3, 50).astype(float), rng.integers(0, 5, 50).astype(float)
    weight_D, bias = logistic_regression(x_ND, good_N, bad_N)
    expected = newton(x_ND, good_N, bad_N)
    np.testing.assert_allclose([*weight_D, bias], expected, atol=2e-4)


def test_ratios_of_two_known_laws() -> None:
    """Normal laws of equal width: the log ratio is linear in the point, as the regression takes it to be."""
    rng = np.random.default_rng(5)
    n, shift = 4000, 1.2
    point_P = np.concatenate([rng.normal(shift, 1, n), rng.normal(0, 1, 3 * n)])[:, None]
    good_P = np.repeat([1.0, 0.0], [n, 3 * n])
    found = density_ratios(point_P, good_P, 1 - good_P, 10**6, seed=0)
    true_P = norm.pdf(point_P[:, 0], shift) / norm.pdf(point_P[:, 0], 0)
    np.testing.assert_allclose(np.log(found.ratio_P), np.log(true_P), atol=0.25)
    assert found.accuracy == pytest.approx(
        norm.cdf(shift / 2), abs=0.02
    )  # of the best rule, kinds counted alike
    assert found.sampled == 4 * n


def test_prompts_are_judged_by_classifiers_that_have_not_seen_them() -> None:
    """In more dimensions than there are prompts those that were fitted could be told apart whatever they were."""
    rng = np.random.default_rng(1)
    point_PD = rng.normal(size=(200, 500))
    good_P = (np.arange(200) % 2).astype(float)
    found = density_ratios(point_PD, good_P, 1 - good_P, 10**6, seed=0)
    assert 0.35 < found.accuracy < 0.65


def test_a_sample_of_the_prompts_is_enough_and_counted() -> None:
    rng = np.random.default_rng(2)
    good_P = np.repeat([1.0, 0.0], [300, 300])
    point_PD = rng.normal(size=(600, 3)) + 2 * good_P[:, None]
    found = density_ratios(point_PD, good_P, 1 - good_P, 50, seed=0)
    assert found.sampled == 100
    assert found.ratio_P.shape == (600,)
    assert np.mean((found.ratio_P > 1) == (good_P > 0)) > 0.9
    again = density_ratios(point_PD, good_P, 1 - good_P, 50, seed=0)
    np.testing.assert_array_equal(found.ratio_P, again.ratio_P)
    assert (density_ratios(point_PD, good_P, 1 - good_P, 50, seed=1).ratio_P != found.ratio_P).any()


def test_prompts_of_both_kinds_have_ratios_of_1() -> None:
    point_PD = np.random.default_rng(0).normal(size=(4 * FOLDS, 3))
    both_P = np.ones(len(point_PD))
    found = density_ratios(point_PD, both_P, both_P, 100, seed=0)
    np.testing.assert_allclose(found.ratio_P, 1, atol=1e-6)
    assert found.accuracy == 0.5


def test_a_kind_without_prompts_is_named() -> None:
    with pytest.raises(ValueError, match=r"1 prompt\(s\) have undesirable"):
        density_ratios(np.zeros((3, 2)), np.ones(3), np.array([0.0, 0.0, 4.0]), 100, seed=0)
