"""What must hold to the digit: ideal policies of both tie models, optima of the Bregman family, invariances."""

from __future__ import annotations

import math

import pytest
import torch

from prefopt import objectives
from prefopt.reproduce import tabular
from prefopt.reproduce.bpo.gradients import gradient_scale, optimiser_caveat
from prefopt.reproduce.bpo.optimum import bregman_members, distance_to_optimum, other_divergences
from prefopt.reproduce.ties.ideal import ideal_policies, outcome_shares


def test_minimiser_of_dpo_is_the_bradley_terry_policy():
    # arXiv 2409.17431, eq. 4: ratio* = reference ratio * (p / (1 - p))^(1 / beta)
    log_ref = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    policy = tabular.minimise(
        objectives.get("dpo", beta=0.5), log_ref, torch.tensor([[0.8, 0.2, 0.0]], dtype=torch.float64)
    )
    assert float(policy[0] / policy[1]) == pytest.approx(3 / 7 * 4**2, rel=1e-6)


@pytest.mark.parametrize(("name", "nu"), [("dpo_rk", 3.0), ("dpo_d", 1.0)])
def test_gold_shares_are_the_models_own_probabilities(name, nu):
    d = torch.linspace(-3, 3, 7, dtype=torch.float64)
    shares = outcome_shares(name, nu, d)
    torch.testing.assert_close(shares, objectives.get(name, beta=1.0, nu=nu).probabilities(d))
    assert float(shares[3, 2]) == pytest.approx(0.5)  # two equals tie half of the time at the default nu


def test_ideal_policies_reach_their_closed_forms():
    claims = ideal_policies(range(4)).claims
    assert len(claims) == 2
    for claim in claims:
        assert claim.verdict == "holds", claim
        assert claim.measured < 1e-6


def test_wrong_nu_misses_the_ideal_policy_of_rao_kupper():
    shares = outcome_shares("dpo_rk", 3.0, torch.tensor([1.0], dtype=torch.float64))
    log_ref = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    ratios = [
        float(policy[0] / policy[1])
        for nu in (3.0, 2.0)
        for policy in [tabular.minimise(objectives.get("dpo_rk", beta=1.0, nu=nu), log_ref, shares)]
    ]
    assert ratios[0] == pytest.approx(math.e, rel=1e-5)
    assert abs(ratios[1] - math.e) > 0.1


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
