"""Optima of the Bregman family and invariances, to the digit."""

from __future__ import annotations

import pytest

from prefopt.reproduce.bpo.gradients import gradient_scale, optimiser_caveat
from prefopt.reproduce.bpo.optimum import bregman_members, distance_to_optimum, other_divergences


@pytest.mark.parametrize("name", bregman_members(0.5))
def test_bregman_members_share_dpos_optimum(name):
    objective = bregman_members(0.5)[name]
    assert max(distance_to_optimum(seed, objective, 5, 0.5) for seed in range(3)) < 1e-6


@pytest.mark.parametrize("name", other_divergences(0.5))
def test_other_divergences_move_the_optimum(name):
    objective = other_divergences(0.5)[name]
    assert min(distance_to_optimum(seed, objective, 5, 0.5) for seed in range(3)) > 0.01


def test_exact_statements_about_gradient_scale():
    verdicts = {c.statement: c.verdict for c in gradient_scale(range(2), pairs=60, steps=5).claims}
    exact = [v for s, v in verdicts.items() if "policy = reference" in s or "4 (lambda + 1)" in s]
    assert exact == ["holds", "holds"]


def test_adam_undoes_a_constant_factor_and_clipping_does_not():
    adam, sgd, clipped = optimiser_caveat(range(2), pairs=60, steps=10).claims
    assert adam.verdict == "holds"
    assert adam.measured < 1e-9
    assert sgd.measured > 1e-2
    assert clipped.measured > 1e-4
