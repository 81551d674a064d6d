"""Frechet distance, against the golden values and a root of matrices by scipy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from prefopt.metrics.frechet import frechet_distance, frechet_of_moments

GOLDEN = {
    c["name"]: c for c in json.loads((Path(__file__).parents[1] / "data/condition_po.json").read_text())
}


def features(seed: int, count: int, width: int = 6, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) @ mix + shift


def plain(a: torch.Tensor, b: torch.Tensor) -> float:
    """As the formula is written."""
    x, y = a.double().numpy(), b.double().numpy()
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    gap = x.mean(0) - y.mean(0)
    return float(gap @ gap + np.trace(s1 + s2 - 2 * sqrtm(s1 @ s2).real))


def test_golden_values():
    case = GOLDEN["metric_frechet"]
    given = [
        torch.tensor(case["inputs"][k], dtype=torch.float64) for k in ("mean_1", "cov_1", "mean_2", "cov_2")
    ]
    assert frechet_of_moments(*given) == pytest.approx(case["expected"]["distance"], abs=1e-10)


@pytest.mark.parametrize(("n", "m"), [(200, 300), (7, 50)])
def test_as_by_a_root_of_matrices(n, m):
    a, b = features(0, n), features(1, m, shift=0.5)
    assert frechet_distance(a, b) == pytest.approx(plain(a, b), rel=1e-9)
    moments = [x for f in (a, b) for x in (f.mean(0), torch.cov(f.T))]
    assert frechet_of_moments(*moments) == pytest.approx(plain(a, b), rel=1e-9)


def test_few_samples_of_many_dimensions():
    """Of rank 4 in 300 dimensions, where a root of the product of covariances is noise."""
    a = features(0, 5, 300)
    shift = torch.zeros(300, dtype=torch.float64)
    shift[0] = 2
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + shift) == pytest.approx(4, abs=1e-9)
    assert frechet_distance(a, 3 * (a - a.mean(0)) + a.mean(0)) == pytest.approx(
        4 * float(torch.cov(a.T).trace()), rel=1e-9
    )


def test_it_is_symmetric_and_of_single_precision_too():
    a, b = features(0, 30), features(1, 20)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a.float(), b.float()) == pytest.approx(frechet_distance(a, b), rel=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 5), "of one width"),
        (torch.zeros(1, 4), torch.zeros(3, 4), "two or more"),
        (torch.full((3, 4), torch.nan), torch.zeros(3, 4), "not finite"),
    ],
)
def test_what_has_no_distance_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(a, b)


def test_moments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="of one D"):
        frechet_of_moments(torch.zeros(2), torch.eye(3), torch.zeros(2), torch.eye(2))
