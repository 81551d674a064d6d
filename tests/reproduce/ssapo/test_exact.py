"""S1 and S5: the exact follower against a solver."""

from __future__ import annotations

import numpy as np
import pytest

from prefopt.reproduce.ssapo import exact as ssapo_exact
from prefopt.sources.gap_losses import Pieces
from prefopt.sources.worst_case import worst_case


def test_linear_program_by_hand():
    falling = Pieces(np.array([-1.0]), np.array([0.0]))  # h(x) = -x
    assert ssapo_exact.lp_value(np.array([1.0, 3.0]), falling, 0.0, 5.0, 0.5) == pytest.approx(-1.5)
    assert ssapo_exact.lp_value(np.array([1.0, 3.0]), falling, 0.0, 5.0, 9.0) == pytest.approx(0.0)
    hinge = Pieces(np.array([-2.0, 0.0]), np.array([2.0, 0.0]))  # 2 max(1 - x, 0): 1 gains 2 over 1, 3 over 3
    assert ssapo_exact.lp_value(np.array([1.0, 3.0]), hinge, 0.0, 5.0, 0.5) == pytest.approx(1.0)
    assert ssapo_exact.lp_value(np.array([1.0, 3.0]), hinge, 0.0, 5.0, 0.8) == pytest.approx(1.0 + 0.2)


def test_exactness_holds():
    result = ssapo_exact.exactness(range(2))
    assert len(result.claims) == 11
    assert {c.verdict for c in result.claims} == {"holds"}


def test_a_wrong_follower_is_found_out(monkeypatch):
    def weak(xi, *, epsilon, **rest):
        return worst_case(xi, epsilon=epsilon / 2, **rest)

    def strong(xi, *, epsilon, **rest):
        return worst_case(xi, epsilon=epsilon if "low" in rest else 2 * epsilon, **rest)

    monkeypatch.setattr(ssapo_exact, "worst_case", weak)
    assert ssapo_exact.against_solver(0)[0] > 1e-3
    assert ssapo_exact.theorems(0)["limit"] > 0.1
    monkeypatch.setattr(ssapo_exact, "worst_case", strong)
    assert ssapo_exact.theorems(0)["above"] > 0.1


def test_speed_tells_pairs_and_solver_apart():
    result = ssapo_exact.speed(range(2), (50, 300))
    assert [row[:2] for row in result.tables[0].rows] == [["exact", 50], ["exact", 300], ["HiGHS", 100]]
    assert all(0 <= row[3] <= row[2] <= row[4] for row in result.tables[0].rows)
    assert result.claims[0].measured == pytest.approx(result.tables[0].rows[1][4] / 1000)
