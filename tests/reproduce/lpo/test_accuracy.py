"""E1: accuracies of judges, on constructed rankings."""

from __future__ import annotations

import math

import pytest

from prefopt.reproduce.lpo import accuracy as lpo_accuracy
from prefopt.reproduce.lpo.judges import EXACT, LRM, PIXEL, SCRATCH, Ranking


def ranking_of(lrm_low: float, lrm_high: float, pixel_low: float, pixel_high: float, n: int = 200) -> Ranking:
    def right(low: float, high: float) -> dict[int, tuple[float, ...]]:
        shares = {1: low, 201: low, 601: (low + high) / 2, 801: high, 901: high}
        return {t: tuple(float(k < share * n) for k in range(n)) for t, share in shares.items()}

    pixel = right(pixel_low, pixel_high)
    return Ranking({LRM: right(lrm_low, lrm_high), PIXEL: pixel, SCRATCH: pixel, EXACT: pixel})


def test_accuracy_claims_follow_the_numbers_both_ways():
    better = [ranking_of(0.85, 0.75 + 0.005 * s, 0.80 + 0.005 * s, 0.62) for s in range(3)]
    found = lpo_accuracy.claims(better)
    assert len(found) == 8
    assert {c.verdict for c in found} == {"holds"}, [(c.statement, c.interval) for c in found]
    worse = [ranking_of(0.80 - 0.005 * s, 0.62, 0.85, 0.75 + 0.005 * s) for s in range(3)]
    assert {c.verdict for c in lpo_accuracy.claims(worse)} == {"does not hold here"}


def test_bootstrap_interval_has_the_width_of_the_normal_one():
    values = [1.0] * 300 + [0.0] * 100
    low, high = lpo_accuracy.bootstrap([values, values])
    half = 1.96 * math.sqrt(0.75 * 0.25 / 800)
    assert (low, high) == (pytest.approx(0.75 - half, abs=0.006), pytest.approx(0.75 + half, abs=0.006))
