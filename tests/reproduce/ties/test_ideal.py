"""Ideal policies of both tie models, to the digit."""

from __future__ import annotations

import math

import pytest
import torch

from prefopt import objectives
from prefopt.reproduce import tabular
from prefopt.reproduce.ties.ideal import ideal_policies, outcome_shares


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
