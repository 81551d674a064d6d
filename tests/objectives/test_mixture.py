"""Weighted sums of objectives."""

from __future__ import annotations

import pytest
import torch

from objectives import battery
from prefopt import objectives

S = battery.random_sides(seed=41)


def test_sum_of_its_terms() -> None:
    mpo = objectives.get(["dpo", "bco_pair", "sft"], weights=[0.8, 0.2, 1.0], beta=0.1)
    expected = (
        0.8 * battery.call(objectives.get("dpo", beta=0.1), S)
        + 0.2 * battery.call(objectives.get("bco_pair", beta=0.1), S)
        + battery.call(objectives.get("sft"), S)
    )
    torch.testing.assert_close(battery.call(mpo, S), expected)
    assert mpo.needs == {"logp", "length"}
    assert mpo.needs_reference
    assert mpo.reward_scale == 0.1


def test_reference_free_terms_see_the_policy_alone() -> None:
    mixed = objectives.get("dpo+simpo", beta=0.5)
    policy = battery.sides(S.logp_w, S.logp_l)
    simpo = objectives.get("simpo", beta=0.5)
    expected = battery.call(objectives.get("dpo", beta=0.5), S) + simpo(
        policy.rho_w, policy.rho_l, length_w=S.length_w, length_l=S.length_l
    )
    torch.testing.assert_close(battery.call(mixed, S), expected)
    assert "logp" in mixed.needs
    free = objectives.get("simpo+0.1*slic")
    assert not free.needs_reference
    assert free.needs == {"length"}


def test_states_do_not_meet() -> None:
    mixed = objectives.get("kto+2*bco", beta=0.2)
    label = torch.tensor([True, False, True, False, True, True, False])
    kto, bco = objectives.get("kto", beta=0.2), objectives.get("bco", beta=0.2)
    expected = battery.call(kto, S, label) + 2 * battery.call(bco, S, label)
    torch.testing.assert_close(battery.call(mixed, S, label), expected)
    assert set(mixed.initial_state()) == {"0.z0", "1.sum_good", "1.count_good", "1.sum_bad", "1.count_bad"}


def test_two_running_terms_of_a_kind() -> None:
    mixed = objectives.get("beta_dpo+beta_dpo")
    once = objectives.get("beta_dpo")
    torch.testing.assert_close(battery.call(mixed, S), 2 * battery.call(once, S))


def test_ties_need_a_tie_term_everywhere() -> None:
    ties = torch.ones(battery.E, dtype=torch.bool)
    both = objectives.get("dpo_rk+0.5*dpo_d")
    expected = battery.call(objectives.get("dpo_rk"), S, ties) + 0.5 * battery.call(
        objectives.get("dpo_d"), S, ties
    )
    torch.testing.assert_close(battery.call(both, S, ties), expected)
    with pytest.raises(ValueError, match="SFT has no tie term"):
        objectives.get("dpo_rk+sft").check_data(has_ties=True)


def test_pairs_and_single_samples_do_not_mix() -> None:
    with pytest.raises(ValueError, match="KTO takes single labelled samples and DPO takes pairs"):
        objectives.get("dpo+kto")


def test_a_sum_needs_terms() -> None:
    with pytest.raises(ValueError, match="at least one term"):
        objectives.get([])


def test_mpo_is_its_sum_with_a_key_a_weight() -> None:
    s, p = battery.random_sides(seed=4), torch.linspace(0, 1, 7, dtype=torch.float64)
    votes = torch.stack([p, 1 - p, 0 * p], -1)
    for given, expression in (
        ({}, "0.8*dpo+0.2*bco_pair+sft"),
        (
            {"preference_weight": 2.0, "quality_weight": 0.3, "generation_weight": 0.5},
            "2*dpo+0.3*bco_pair+0.5*sft",
        ),
    ):
        mpo, summed = objectives.get("mpo", beta=0.3, **given), objectives.get(expression, beta=0.3)
        for outcome in (None, votes):
            torch.testing.assert_close(mpo.losses(s, outcome, {}), summed.losses(s, outcome, {}))
        assert mpo.needs == summed.needs
        assert mpo.reward_scale == summed.reward_scale
    with pytest.raises(ValueError, match="quality_weight must be positive"):
        objectives.get("mpo", quality_weight=0)
