"""Losses in which rows meet: running references, sorting, sampling."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from objectives import battery
from prefopt import objectives
from prefopt.objectives import BetaDPO, Sides

S = battery.random_sides(seed=31)
GOOD = torch.tensor([True, False, True, True, False, False, True])


def test_kto_reference_point_is_the_clamped_mean_over_mismatched_rows() -> None:
    kto = objectives.get("kto", beta=0.1, desirable_weight=1.2)
    for shift in (2.0, -2.0):
        mismatched = torch.linspace(-1, 1, 7, dtype=torch.float64) + shift
        z0 = max(shift, 0.0)
        got = kto(S.rho_w, GOOD, rho_mismatched=mismatched)
        expected = torch.where(
            GOOD, 1.2 * (1 - torch.sigmoid(0.1 * (S.rho_w - z0))), 1 - torch.sigmoid(0.1 * (z0 - S.rho_w))
        )
        torch.testing.assert_close(got, expected)


def test_kto_reference_point_carries_no_gradient() -> None:
    mismatched = torch.ones(7, dtype=torch.float64, requires_grad=True)
    assert not objectives.get("kto")(S.rho_w, GOOD, rho_mismatched=mismatched).requires_grad


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize("name", ["kto", "bco"])
def test_a_batch_of_one_kind(name: str, label: bool) -> None:
    loss = battery.call(objectives.get(name), S, torch.full((7,), label))
    assert bool(loss.isfinite().all())


def test_bco_shift_is_the_midpoint_since_the_start() -> None:
    bco = objectives.get("bco", beta=0.5)
    state = bco.initial_state()
    rewards, labels = [], []
    for seed in range(3):
        s = battery.random_sides(seed=seed)
        outcome = torch.stack([GOOD, ~GOOD, torch.zeros_like(GOOD)], -1).double()
        state = bco.next_state(state, bco.statistics(s, outcome))
        rewards.append(0.5 * s.rho_w)
        labels.append(GOOD)
    r, good = torch.cat(rewards), torch.cat(labels)
    delta = (r[good].mean() + r[~good].mean()) / 2
    got = bco(S.rho_w, GOOD, state=state)
    sign = torch.where(GOOD, -1.0, 1.0)
    torch.testing.assert_close(got, torch.nn.functional.softplus(sign * (0.5 * S.rho_w - delta)))


def test_aot_compares_order_statistics() -> None:
    beta = 0.3
    policy = S.logp_w - S.logp_l
    reference = policy - (S.rho_w - S.rho_l)
    margins = policy.sort().values - reference.sort().values
    expected = torch.nn.functional.softplus(-beta * margins)
    got = battery.call(objectives.get("aot", beta=beta), S)
    torch.testing.assert_close(got.sort().values, expected.sort().values)
    torch.testing.assert_close(got[policy.argsort()], expected)  # on the rows that hold the policy's values
    margins = S.rho_w.sort().values - S.rho_l.sort().values
    expected = 0.9 * torch.nn.functional.softplus(-beta * margins) + 0.1 * torch.nn.functional.softplus(
        beta * margins
    )
    unpaired = objectives.get("aot_unpaired", beta=beta, label_smoothing=0.1)
    torch.testing.assert_close(battery.call(unpaired, S)[S.rho_w.argsort()], expected)


@pytest.mark.parametrize("name", ["aot", "aot_unpaired", "beta_dpo"])
def test_losers_stored_first_are_turned_before_rows_meet(name: str) -> None:
    objective = objectives.get(name)
    turn = torch.tensor([True, False, False, True, True, False, False])
    mirrored = S.swapped()
    turned = dataclasses.replace(
        S,
        **{
            f.name: torch.where(
                turn.reshape(-1, *[1] * (getattr(S, f.name).dim() - 1)),
                getattr(mirrored, f.name),
                getattr(S, f.name),
            )
            for f in dataclasses.fields(Sides)
            if f.name not in ("columns", "branches")
        },
    )
    outcome = torch.stack([~turn, turn, torch.zeros_like(turn)], -1).double()
    torch.testing.assert_close(battery.call(objective, turned, outcome), battery.call(objective, S))


def test_beta_dpo_follows_the_batch() -> None:
    objective = BetaDPO(beta=0.1, a=0.6, drop=0.0)
    margin = S.rho_w - S.rho_l
    state = objective.next_state(objective.initial_state(), objective.statistics(S, None))
    torch.testing.assert_close(state["M0"], margin.mean())
    torch.testing.assert_close(state["S0"], margin.std(correction=0))
    later = battery.random_sides(seed=32)
    m = later.rho_w - later.rho_l
    state = objective.next_state(state, objective.statistics(later, None))
    torch.testing.assert_close(state["M0"], 0.9 * margin.mean() + 0.1 * m.mean())
    assert int(state["step"]) == 2
    beta = max(1e-3, 0.1 * (1 + 0.6 * float(m.mean() - state["M0"])))
    torch.testing.assert_close(
        battery.call(objective, later, state=state), torch.nn.functional.softplus(-beta * m)
    )


def test_beta_dpo_draws_by_counted_noise() -> None:
    s = battery.random_sides(seed=33, n=50)
    objective = BetaDPO()
    state = objective.next_state(objective.initial_state(), objective.statistics(s, None))
    first, again = (battery.call(objective, s, state=state) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert int((first > 0).sum()) == 40  # floor(0.8 * 50)
    other_step = battery.call(objective, s, state={**state, "step": state["step"] + 1})
    other_seed = battery.call(objective.replace(seed=1), s, state=state)
    for other in (other_step, other_seed):
        assert bool(((other > 0) != (first > 0)).any())


def test_beta_dpo_prefers_typical_margins() -> None:
    m = torch.cat([torch.linspace(-1, 1, 40), torch.tensor([30.0, -30.0])]).double()
    s = battery.sides(m, 0 * m)
    objective = BetaDPO()
    state = {"M0": torch.tensor(0.0), "S0": torch.tensor(1.0), "step": torch.tensor(5)}
    for step in range(20):
        kept = battery.call(objective, s, state={**state, "step": torch.tensor(step)}) > 0
        assert not bool(kept[-2:].any())


def test_beta_dpo_mean_is_the_mean_over_kept_rows() -> None:
    s = battery.random_sides(seed=34, n=10)
    objective = BetaDPO()
    state = objective.next_state(objective.initial_state(), objective.statistics(s, None))
    values = battery.call(objective, s, state=state)
    kept = values > 0
    m = (s.rho_w - s.rho_l)[kept]
    beta = max(1e-3, 0.1 * (1 + 0.6 * float(m.mean() - state["M0"])))
    assert float(values.mean()) == pytest.approx(float(torch.nn.functional.softplus(-beta * m).mean()))


def test_beta_dpo_of_equal_margins_and_of_one_row() -> None:
    for n in (1, 5):
        s = battery.sides(torch.ones(n), torch.zeros(n))
        assert bool(battery.call(BetaDPO(), s).isfinite().all())


def test_sft_over_the_batch_weighs_tokens_equally() -> None:
    values = battery.call(objectives.get("sft", average="batch"), S)
    assert float(values.mean()) == pytest.approx(float(-S.logp_w.sum() / S.length_w.sum()))
    values = battery.call(objectives.get("sft"), S)
    torch.testing.assert_close(values, -S.logp_w / S.length_w)


def test_sft_over_the_batch_counts_the_tokens_of_whoever_won() -> None:
    lost = torch.tensor([True, False, False, True, False, True, False])
    outcome = torch.stack([~lost, lost, torch.zeros_like(lost)], -1).double()
    winners = torch.where(lost, S.logp_l, S.logp_w), torch.where(lost, S.length_l, S.length_w)
    values = battery.call(objectives.get("sft", average="batch"), S, outcome)
    assert float(values.mean()) == pytest.approx(float(-winners[0].sum() / winners[1].sum()))
