"""Every objective, every check: see `battery.py` for the rows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from objectives import battery
from objectives.battery import ROWS, Row, call, random_sides
from prefopt import objectives
from prefopt.objectives import Sides

rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def gradients(row: Row, s: Sides, outcome: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    """Losses, and their sum's gradient with respect to rho_w and rho_l, tokens and log-probabilities included."""
    rho_w = s.rho_w.detach().clone().requires_grad_()
    rho_l = s.rho_l.detach().clone().requires_grad_()
    moved = dataclasses.replace(
        s,
        rho_w=rho_w,
        rho_l=rho_l,
        logp_w=s.logp_w.detach() + (rho_w - rho_w.detach()),
        logp_l=s.logp_l.detach() + (rho_l - rho_l.detach()),
        rho_tokens_w=battery.tokens(rho_w, s.length_w),
        rho_tokens_l=battery.tokens(rho_l, s.length_l),
        logp_tokens_w=battery.tokens(s.logp_w.detach() + (rho_w - rho_w.detach()), s.length_w),
        logp_tokens_l=battery.tokens(s.logp_l.detach() + (rho_l - rho_l.detach()), s.length_l),
    )
    loss = call(row.objective, moved, outcome)
    grads = torch.autograd.grad(loss.sum(), [rho_w, rho_l], allow_unused=True)
    return loss.detach(), *(torch.zeros_like(rho_w) if g is None else g for g in grads)


def test_every_name_has_a_row() -> None:
    assert set(objectives.names()) <= {row.name for row in ROWS}


@rows
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_finite_loss_a_comparison_in_the_dtype_given(row: Row, dtype: torch.dtype) -> None:
    loss = call(row.objective, random_sides(dtype=dtype))
    assert loss.shape == (battery.E,)
    assert loss.dtype == dtype
    assert bool(loss.isfinite().all())


@rows
def test_finite_at_extremes_in_float32(row: Row) -> None:
    highs = torch.tensor([1e4, 1e4, 0, 5e3, 1e3, 100, 30, 10])
    lows = torch.tensor([0, 1e4, -1e4, -5e3, -1e3, -100, -30, -10])
    rho_w, rho_l = torch.cat([highs, lows]), torch.cat([lows, highs])
    counted = rho_w - rho_l > row.finite_above
    s = battery.sides(rho_w[counted], rho_l[counted])
    n = int(counted.sum())
    outcomes = [None]
    if row.objective.has_tie_term:
        outcomes.append(torch.ones(n, dtype=torch.bool))
    if row.objective.unpaired:
        outcomes = [torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)]
    for outcome in outcomes:
        for name, value in zip(("loss", "d rho_w", "d rho_l"), gradients(row, s, outcome), strict=True):
            assert bool(value.isfinite().all()), f"{name}: {value}"


@rows
def test_honest_about_overflow(row: Row) -> None:
    if not row.why_infinite:
        assert row.finite_above == -1e4
        return
    with pytest.raises(ValueError, match="r_max"):
        call(row.objective, battery.sides(torch.tensor([-1e4]), torch.tensor([0.0])))


@rows
def test_gradient_direction_at_zero_margin(row: Row) -> None:
    # log-ratios of 0 are log-probabilities of -10 for an objective without reference
    level = 0.0 if row.objective.needs_reference else -10.0
    rho = torch.full((battery.E,), level, dtype=torch.float64)
    s = battery.sides(rho, rho, equal_lengths=True)
    if row.objective.unpaired:
        good, bad = (torch.full((battery.E,), label) for label in (True, False))
        d_w, d_l = gradients(row, s, good)[1], gradients(row, s, bad)[1]
    else:
        _, d_w, d_l = gradients(row, s)
    if row.objective.batch_coupled:
        d_w, d_l = d_w.sum(), d_l.sum()
    for got, wanted in ((d_w, row.winner), (d_l, row.loser)):
        match wanted:
            case "raise":
                assert bool((got < 0).all())
            case "lower":
                assert bool((got > 0).all())
            case "keep":
                torch.testing.assert_close(got, torch.zeros_like(got))


@pytest.mark.parametrize("row", [row for row in ROWS if row.smooth], ids=lambda row: row.id)
def test_gradient_matches_finite_differences(row: Row) -> None:
    s = random_sides(seed=3)
    objective, step = row.objective, 1e-6
    outcome = torch.tensor([True, False] * battery.E)[: battery.E] if objective.unpaired else None

    def loss_at(shift_w: float, shift_l: float) -> torch.Tensor:
        moved = dataclasses.replace(
            s,
            rho_w=s.rho_w + shift_w,
            rho_l=s.rho_l + shift_l,
            logp_w=s.logp_w + shift_w,
            logp_l=s.logp_l + shift_l,
        )
        return call(objective, moved, outcome)

    _, d_w, d_l = gradients(row, s, outcome)
    scale = float(torch.maximum(d_w.abs().max(), d_l.abs().max()))
    for got, shift in ((d_w, (step, 0.0)), (d_l, (0.0, step))):
        expected = (loss_at(*shift) - loss_at(-shift[0], -shift[1])) / (2 * step)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7 * scale + 1e-9)


@rows
def test_float32_agrees_with_float64(row: Row) -> None:
    exact = gradients(row, random_sides(seed=5))
    single = gradients(row, random_sides(seed=5, dtype=torch.float32))
    for wide, narrow in zip(exact, single, strict=True):
        torch.testing.assert_close(
            narrow.double(), wide, rtol=1e-4, atol=1e-5 * float(wide.abs().max()) + 1e-7
        )


@rows
def test_rows_are_independent_unless_declared(row: Row) -> None:
    objective, s = row.objective, random_sides(seed=8)
    state = objective.next_state(objective.initial_state(), objective.statistics(s, None))
    together = call(objective, s, state=state)
    alone = torch.cat(
        [call(objective, battery.at(s, torch.tensor([i])), state=state) for i in range(battery.E)]
    )
    if objective.batch_coupled:
        assert not torch.allclose(together, alone)
    else:
        torch.testing.assert_close(together, alone)


@rows
def test_ties_are_symmetric_or_refused(row: Row) -> None:
    objective, s = row.objective, random_sides(seed=9)
    if objective.unpaired:
        return
    ties = torch.ones(battery.E, dtype=torch.bool)
    if not objective.has_tie_term:
        with pytest.raises(ValueError, match=r"drop"):
            call(objective, s, ties)
        return
    torch.testing.assert_close(call(objective, s, ties), call(objective, s.swapped(), ties))
    zero = battery.sides(*[torch.zeros(2, dtype=torch.float64)] * 2, equal_lengths=True)
    _, d_w, d_l = gradients(row, zero, torch.ones(2, dtype=torch.bool))
    assert d_w.tolist() == d_l.tolist() == [0.0, 0.0]  # exactly


@rows
def test_votes_interpolate(row: Row) -> None:
    objective, s = row.objective, random_sides(seed=11)
    if objective.unpaired:
        return
    p = torch.linspace(0, 1, battery.E, dtype=torch.float64)
    none = torch.zeros_like(p)
    if objective.needs == {"logp", "length"} and not objective.needs_reference and not row.smooth:
        return  # sft over the batch divides by the tokens of its winners, and those are what the votes say
    state = objective.next_state(objective.initial_state(), objective.statistics(s, None))
    win = call(objective, s, state=state)
    lose = call(objective, s.swapped(), state=state)
    shares = torch.stack([p, 1 - p, none], -1)
    if objective.wins_only:
        with pytest.raises(ValueError, match="takes plain wins"):
            call(objective, s, shares, state)
        wins = torch.stack([none + 1, none, none], -1)
        torch.testing.assert_close(call(objective, s, wins, state), win)
        tied = torch.stack([1 - p, none, p], -1)  # held-out ties are kept for their margins, and cost nothing
        torch.testing.assert_close(objective.losses(s, tied, state), (1 - p) * win)
        return
    if not row.soft_votes:
        # rows are turned towards the majority before they meet; a batch of plain wins or losses is as if called so
        for hard, expected in ((1.0, win), (0.0, lose)):
            full = torch.full_like(p, hard)
            got = call(objective, s, torch.stack([full, 1 - full, none], -1), state)
            torch.testing.assert_close(got, expected)
        even = torch.stack([none + 0.5, none + 0.5, none], -1)
        rho_w = s.rho_w.clone().requires_grad_()
        assert bool(call(objective, dataclasses.replace(s, rho_w=rho_w), even, state).isfinite().all())
        return
    torch.testing.assert_close(call(objective, s, shares, state), p * win + (1 - p) * lose)
    if objective.has_tie_term:
        tie = call(objective, s, torch.ones_like(p, dtype=torch.bool), state)
        got = call(objective, s, torch.stack([p / 2, (1 - p) / 2, none + 0.5], -1), state)
        torch.testing.assert_close(got, (p * win + (1 - p) * lose + tie) / 2)


@rows
def test_statistics_add_up_over_processes(row: Row) -> None:
    objective, s = row.objective, random_sides(seed=13)
    label = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    outcome = torch.stack([label, 1 - label, 0 * label], -1)
    joint = objective.statistics(s, outcome)
    parts = [torch.arange(3), torch.arange(3, battery.E)]
    split = [objective.statistics(battery.at(s, i), outcome[i]) for i in parts]
    assert all(joint.keys() == part.keys() for part in split)
    for name, value in joint.items():
        assert not value.requires_grad
        torch.testing.assert_close(split[0][name] + split[1][name], value)
    state = objective.next_state(objective.initial_state(), joint)
    assert state.keys() == objective.initial_state().keys()


@rows
def test_frozen_hashable_and_replaceable(row: Row) -> None:
    objective = row.objective
    assert hash(objective) == hash(row.objective)
    assert objective == row.objective
    field = next((f.name for f in dataclasses.fields(objective)), "beta")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(objective, field, 1)
    assert objective.replace() == objective
    if hasattr(objective, "beta"):
        assert objective.replace(beta=0.7).beta == 0.7
        assert objective.reward_scale == row.reward * objective.beta
    assert isinstance(objective.reward_scale, float)


@rows
def test_diagnostics_are_one_value_a_comparison(row: Row) -> None:
    objective, s = row.objective, random_sides(seed=15)
    state = objective.next_state(objective.initial_state(), objective.statistics(s, None))
    for value in objective.diagnostics(s, state).values():
        assert value.shape == (battery.E,)
        assert not value.requires_grad


@rows
def test_missing_columns_are_named(row: Row) -> None:
    objective = row.objective
    if not objective.needs and not objective.branches:
        return
    s = random_sides()
    ones = torch.ones(battery.E, dtype=torch.bool)
    args = (s.rho_w, ones) if objective.unpaired else (s.rho_w, s.rho_l)
    with pytest.raises(ValueError, match="also needs"):
        objective(*args)


@rows
def test_nonsense_values_are_refused(row: Row) -> None:
    objective = row.objective
    if not hasattr(objective, "beta"):
        return
    for value in (0.0, -1.0, float("nan"), float("inf"), "much", None, True):
        if value == 0.0 and row.takes_beta_0:
            continue
        with pytest.raises(ValueError, match="beta"):
            objective.replace(beta=value)
    assert objective.replace(beta="1e-1").beta == 0.1  # YAML reads 1e-1 as a string
