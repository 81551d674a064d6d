"""One iteration: the special cases of the specification, gates, workers, and what is reported."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from oracles.toys import scored, toy
from prefopt.oracles.direction import Selection, direction
from prefopt.oracles.head import HeadProbe, Response
from prefopt.oracles.perturbations import Perturbations
from prefopt.oracles.plain import PlainProbe
from prefopt.oracles.step import StepReport, StepSettings, oracle_step

EVERYTHING = Selection(keep_fraction=1.0)
SETTINGS = StepSettings(perturbations=64, radius=0.01, gate=0.0, gamma=0.5, selection=EVERYTHING)


def run(settings: StepSettings, seed: int = 0, **probe: Any) -> tuple[StepReport, Tensor, Tensor]:
    """(report, weights before, weights after)."""
    weight_VD, pairs = toy()
    before = weight_VD.clone()
    report = oracle_step(HeadProbe(weight_VD, pairs, **probe), settings, seed=seed, iteration=0)
    return report, before, weight_VD


def test_a_step_is_what_the_paper_says() -> None:
    report, before, after = run(SETTINGS, fast_sampling=False)
    z_MVD = Perturbations(0, 0).draw(range(64), (20, 16), torch.float64)
    _, g = direction(z_MVD, report.bits_M)
    p = float((report.bits_M == -1).double().mean())
    assert 0 < p == report.success_rate < 1
    torch.testing.assert_close(after, before - 0.5 * p * g)
    assert report.update_norm == pytest.approx(0.5 * p)
    assert report.kept_fraction == 1
    pairs = toy()[1]
    torch.testing.assert_close(report.logp_S2, torch.stack(scored(before, pairs), -1))
    torch.testing.assert_close(report.logp_S2 + report.change_S2, torch.stack(scored(after, pairs), -1))


def test_one_successful_move_is_followed() -> None:
    weight_VD, pairs = toy()
    settings = replace(SETTINGS, perturbations=1, selection=Selection(lambda_g=0.0), gate=0.9)
    for iteration in range(50):
        before = weight_VD.clone()
        report = oracle_step(HeadProbe(weight_VD, pairs, fast_sampling=False), settings, 0, iteration)
        if not report.skipped:
            break
        assert report.skipped == "gate"
        assert torch.equal(weight_VD, before)
    z_VD = Perturbations(0, iteration).draw([0], (20, 16), torch.float64)[0]
    torch.testing.assert_close(weight_VD, before + 0.5 * z_VD / z_VD.norm())


def test_without_success_there_is_no_step() -> None:
    weight_VD, pairs = toy()
    before = weight_VD.clone()
    settings = replace(SETTINGS, gamma=1e6)
    failures = torch.ones(64, dtype=torch.int8)
    report = oracle_step(HeadProbe(weight_VD, pairs), settings, 0, 0, bits_M=failures)
    assert (report.success_rate, report.skipped, report.update_norm) == (0.0, "gate", 0.0)
    assert torch.equal(weight_VD, before)
    assert (report.change_S2 == 0).all()


def test_the_gate_is_strict() -> None:
    bits = torch.tensor([-1] * 16 + [1] * 48)
    for gate, skipped in ((0.25, "gate"), (0.2499, "")):
        weight_VD, pairs = toy()
        report = oracle_step(HeadProbe(weight_VD, pairs), replace(SETTINGS, gate=gate), 0, 0, bits_M=bits)
        assert report.skipped == skipped


def test_identical_responses_are_skipped() -> None:
    weight_VD, pairs = toy()
    before, side = weight_VD.clone(), pairs[0][0]
    twin = Response(side.hidden_TD.clone(), side.target_T)
    report = oracle_step(HeadProbe(weight_VD, [(side, twin)]), SETTINGS, 0, 0)
    assert (report.skipped, report.success_rate) == ("identical", 0.0)
    assert torch.equal(weight_VD, before)
    copy = weight_VD.clone()
    report = oracle_step(PlainProbe([copy], lambda: scored(copy, [(side, twin)])), SETTINGS, 0, 0)
    assert (report.skipped, report.success_rate) == ("gate", 0.0)


def test_votes_that_cancel_move_nothing() -> None:
    weight_VD, pairs = toy()
    settings = replace(SETTINGS, perturbations=2, antithetic=True)
    bits = torch.tensor([-1, -1])  # z and -z
    before = weight_VD.clone()
    report = oracle_step(HeadProbe(weight_VD, pairs, fast_sampling=False), settings, 0, 0, bits_M=bits)
    assert report.skipped == "zero"
    assert torch.equal(weight_VD, before)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_workers_do_not_matter(fast: bool, dtype: torch.dtype) -> None:
    weights = []
    for workers in (1, 3):
        weight_VD, pairs = toy(100, 32, ((5, 8),), dtype=dtype)
        probe = HeadProbe(weight_VD, pairs, fast_sampling=fast)
        bits = None
        if workers > 1:
            cuts = [0, 10, 11, 64]
            shares = [range(a, b) for a, b in pairwise(cuts)]
            moves = Perturbations(4, 2)
            bits = torch.cat([probe.survey(moves, share, SETTINGS.radius)[0] for share in shares])
        settings = replace(SETTINGS, selection=Selection(keep_fraction=0.1))
        report = oracle_step(probe, settings, 4, 2, bits_M=bits)
        assert not report.skipped
        weights.append(weight_VD)
    assert torch.equal(*weights)


def test_seed_and_iteration_decide() -> None:
    assert torch.equal(run(SETTINGS)[2], run(SETTINGS)[2])
    assert not torch.equal(run(SETTINGS)[2], run(SETTINGS, seed=1)[2])


def test_the_plain_path_makes_the_same_step() -> None:
    _, _, after = run(SETTINGS, fast_sampling=False)
    weight_VD, pairs = toy()
    report = oracle_step(PlainProbe([weight_VD], lambda: scored(weight_VD, pairs)), SETTINGS, 0, 0)
    torch.testing.assert_close(weight_VD, after, rtol=1e-12, atol=1e-12)
    assert not report.skipped


@pytest.mark.parametrize("fast", [False, True])
def test_the_basic_scheme_with_a_loose_bound_is_the_practical_one(fast: bool) -> None:
    practical, _, after = run(SETTINGS, fast_sampling=fast)
    basic = replace(SETTINGS, sparsity=320.0, gamma=0.5 * practical.success_rate)
    report, _, other = run(basic, fast_sampling=fast)
    torch.testing.assert_close(other, after)
    assert report.update_norm == pytest.approx(practical.update_norm)
    sparse, _, _ = run(replace(SETTINGS, sparsity=4.0))
    assert 0 < sparse.kept_fraction < 0.2


def test_the_expected_direction_never_displaces() -> None:
    settings = replace(SETTINGS, estimator="expected", gamma=0.01)
    for seed in range(10):
        weight_VD, pairs = toy(seed=seed)
        report = oracle_step(HeadProbe(weight_VD, pairs), settings, 0, 0)
        assert not report.skipped
        assert float(report.change_S2[0, 0]) > 0 > float(report.change_S2[0, 1])
        assert len(report.bits_M) == 0
    with pytest.raises(ValueError, match="uses none"):
        oracle_step(HeadProbe(*toy()), settings, 0, 0, bits_M=torch.ones(64))
    w = torch.zeros(2)
    with pytest.raises(NotImplementedError, match="HeadProbe"):
        oracle_step(PlainProbe([w], lambda: (w[:1].clone(), w[1:].clone())), settings, 0, 0)


def test_selected_entries_are_reported() -> None:
    report, before, after = run(replace(SETTINGS, selection=Selection(keep_fraction=0.05)))
    assert report.kept_fraction == 16 / 320
    assert int((before != after).sum()) == 16
    assert report.update_norm == pytest.approx(float((after - before).norm()))
    assert report.update_norm < 0.5 * report.success_rate
    report, before, after = run(replace(SETTINGS, selection=Selection(lambda_g=2.0)))
    assert report.skipped == "zero"
    assert torch.equal(before, after)


def test_acceptance() -> None:
    # so long a step overshoots: both responses become impossible
    far = replace(SETTINGS, gamma=3e3)
    for settings, skipped in (
        (far, ""),
        (replace(far, accept_check="actual"), "actual"),
        (replace(far, accept_check="trial", trial_step=0.01), ""),
        (replace(SETTINGS, accept_check="trial", trial_step=3e3), "trial"),
        (replace(SETTINGS, accept_check="actual", gamma=0.1), ""),
    ):
        report, before, after = run(settings)
        assert report.skipped == skipped
        assert torch.equal(before, after) == bool(skipped)
        assert (report.update_norm > 0) == (not skipped)


def test_a_step_into_nothing_is_refused_before_it_is_made() -> None:
    weight_VD, pairs = toy(dtype=torch.float32)
    before = weight_VD.clone()
    with pytest.raises(FloatingPointError):
        oracle_step(HeadProbe(weight_VD, pairs), replace(SETTINGS, gamma=1e39), 0, 0)
    assert torch.equal(weight_VD, before)


def test_steps_repeated_raise_the_margin() -> None:
    weight_VD, pairs = toy()
    margins = []
    for iteration in range(20):
        report = oracle_step(HeadProbe(weight_VD, pairs), SETTINGS, 0, iteration)
        margins.append(float(report.logp_S2[0, 0] - report.logp_S2[0, 1]))
    assert margins[-1] > margins[0] + 0.3
    assert all(math.isfinite(x) for x in margins)
