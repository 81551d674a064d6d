"""T1 and T3: frontiers, matched drift, preservation."""

from __future__ import annotations

from itertools import count

import pytest

from prefopt.reproduce.page import measured
from prefopt.reproduce.ties.frontier import (
    METHODS,
    better_at_matched_kl,
    frontier_claims,
    frontier_in_log_linear_world,
)


def numbers(result):
    return [(c.statement, c.measured, c.interval, c.verdict) for c in result.claims]


def test_frontier_claims_report_a_frontier_that_contradicts_the_paper():
    steps = count()

    def points(kl, score):
        """Three seeds, two beta, slightly different seeds."""
        return {
            b: (
                [kl * f + 0.001 * (next(steps) % 7) for _ in range(3)],
                [score * f + 0.001 * i for i in range(3)],
            )
            for b, f in ((1.0, 1.0), (0.1, 3.0))
        }

    paper = dict(zip(METHODS, (points(2, 5), points(1.5, 4), points(1, 5), points(1, 5)), strict=True))
    assert {c.verdict for c in frontier_claims(paper, "", "x")} == {"holds"}
    opposite = dict(zip(METHODS, (points(1, 5), points(1.5, 6), points(2, 5), points(2, 5)), strict=True))
    assert {c.verdict for c in frontier_claims(opposite, "", "x")} == {"does not hold here"}


def test_a_pair_of_frontiers_apart_is_not_measured_rather_than_a_crash():
    far = {1.0: ([1.0, 1.0], [5.0, 5.0]), 0.1: ([2.0, 2.0], [6.0, 6.0])}
    near = {1.0: ([8.0, 8.0], [5.0, 5.0]), 0.1: ([9.0, 9.0], [6.0, 6.0])}
    claim = better_at_matched_kl({"a": far, "b": near}, "a", "b", "x")
    assert claim.verdict == "inconclusive"
    assert "share no KL range" in claim.how
    assert measured(claim) == "not measured"


@pytest.mark.slow
def test_ties_frontier_shows_claim_b_at_the_default_size():
    result = frontier_in_log_linear_world(range(5), steps=400)
    claim_b = [c for c in result.claims if "at the same KL" in c.statement]
    assert len(claim_b) == 4
    assert {c.verdict for c in claim_b} == {"holds"}
