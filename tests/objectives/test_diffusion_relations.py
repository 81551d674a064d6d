"""Objectives of image diffusion: their reductions to each other, their algebra, and the faults of released code."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from objectives import battery
from objectives.diffusion_cases import CASES, exact, grads, gradspo, leaf, mean, spo
from prefopt import methods, objectives
from prefopt.objectives import (
    LRM,
    ClippedMargin,
    DiffusionDPO,
    DiffusionKTO,
    MaPO,
    Objective,
    Sides,
    StepDPO,
    apply_ties_policy,
)
from prefopt.objectives.stable import x_over_expm1
from prefopt.training.metrics import SumsAndCounts, add_comparison_metrics

STEPS = torch.Generator().manual_seed(0)
SMALL = tuple(0.05 * torch.randn(50, generator=STEPS, dtype=torch.float64) for _ in range(2))


def test_without_clip_step_dpo_is_dpo() -> None:
    dpo = objectives.get("dpo", beta=10.0)
    torch.testing.assert_close(StepDPO(beta=10.0, clip_eps=None)(*SMALL), dpo(*SMALL))
    torch.testing.assert_close(StepDPO(beta=10.0, clip_eps=0.5)(*SMALL), dpo(*SMALL))
    assert not torch.allclose(StepDPO(beta=10.0)(*SMALL), dpo(*SMALL))


def test_half_of_beta_is_the_scale_of_dpo() -> None:
    halved, dpo = DiffusionDPO(beta=5000.0), objectives.get("dpo", beta=2500.0)
    torch.testing.assert_close(halved(*SMALL), dpo(*SMALL))
    assert halved.reward_scale == dpo.reward_scale == 2500.0


@pytest.mark.parametrize("objective", [DiffusionDPO(beta=20.0), StepDPO(), StepDPO(clip_eps=None), LRM()])
def test_swapping_the_sides_turns_the_margin(objective: Objective) -> None:
    """softplus(-z) - softplus(z) = -z, and z is odd in the sides."""
    rho_w, rho_l = (r.clone().requires_grad_() for r in SMALL)
    there, back = objective(rho_w, rho_l), objective(rho_l, rho_w)
    z = back - there
    assert bool((z.sign() == (rho_w - rho_l).sign()).all())
    torch.testing.assert_close(objective(rho_w, rho_w.detach()), torch.full_like(z, math.log(2)))
    assert torch.equal(grads(there.sum(), rho_w)[0] == 0, grads(back.sum(), rho_w)[0] == 0)
    torch.testing.assert_close(there, torch.nn.functional.softplus(-z, threshold=100))


def test_the_clip_has_slope_one_on_the_closed_interval() -> None:
    low, high = ClippedMargin(clip_eps=0.1).bounds
    beyond = [math.nextafter(low, -1), math.nextafter(high, 1)]
    rho = leaf([low, high, *beyond, 0.0])
    (slope,) = grads(ClippedMargin(clip_eps=0.1).score(rho).sum(), rho)
    assert slope.tolist() == [1, 1, 0, 0, 1]
    assert [low, high] == [pytest.approx(math.log(0.9)), pytest.approx(math.log(1.1))]


def test_a_clipped_side_gives_no_gradient_even_on_the_wrong_side() -> None:
    rho_w, rho_l = leaf([-0.5, -0.5, 0.02]), leaf([0.5, 0.02, 0.5])
    grad_w, grad_l = grads(StepDPO()(rho_w, rho_l).sum(), rho_w, rho_l)
    assert (grad_w != 0).tolist() == [False, False, True]
    assert (grad_l != 0).tolist() == [False, True, False]


def test_clipping_is_counted() -> None:
    s = Sides(rho_w=exact([0.5, 0.0, -0.5, 0.0]), rho_l=exact([-0.5, 0.5, 0.0, 0.0]))
    shown = StepDPO().diagnostics(s, {})
    assert {name: value.tolist() for name, value in shown.items()} == {
        "step_dpo/clipped_chosen": [1, 0, 1, 0],
        "step_dpo/clipped_rejected": [1, 1, 0, 0],
        "step_dpo/clipped_both": [1, 0, 0, 0],
    }
    assert StepDPO(clip_eps=None).diagnostics(s, {}) == {}


def test_any_link_takes_the_clipped_margin() -> None:
    rk = objectives.get("dpo_rk", margin="clipped", beta=10.0)
    ties = torch.tensor([False, True])
    inside = rk(exact([0.05, 0.05]), exact([0.0, 0.0]), ties)
    torch.testing.assert_close(
        inside, objectives.get("dpo_rk", beta=10.0)(exact([0.05, 0.05]), exact([0.0, 0.0]), ties)
    )
    far = leaf([5.0, 5.0])
    assert grads(rk(far, exact([0.0, 0.0]), ties).sum(), far)[0].tolist() == [0, 0]


def unclipped(name: str) -> dict[str, Any]:
    (case,) = [c for c in CASES if c["name"] == name]
    return {**case, "inputs": {**case["inputs"], "clip_eps": None}}


@pytest.mark.parametrize("name", ["default_small", "image_shape", "one_branch_clipped"])
def test_without_clip_gradspo_forgets_its_anchor_and_its_averaging(name: str) -> None:
    """z = -2 beta g sqrt(1 - abar) mean[(e_best - e_worst)(eps - eps_ref)]: spec 4.4 (a)."""
    case = unclipped(name)
    inputs = case["inputs"]
    objective = StepDPO(beta=inputs["beta"], clip_eps=None)
    noise = exact(inputs["noise_best"]) - exact(inputs["noise_worst"])
    drift = exact(inputs["eps_theta"]) - exact(inputs["eps_ref"])
    weight = 2 * inputs["grad_scale"] * (1 - exact(inputs["alphas_cumprod_t"])).sqrt()
    z = -inputs["beta"] * weight * mean(noise * drift)
    elsewhere = torch.full_like(drift, 3.0)
    variants = {"as given": gradspo(case), "other anchor": gradspo(case, elsewhere)}
    variants["raw noise"] = gradspo({**case, "inputs": {**inputs, "average_noise": False}})
    found = {}
    for label, (eps, rho) in variants.items():
        torch.testing.assert_close(objective.u(Sides(rho_w=rho[0], rho_l=rho[1])).detach(), z)
        found[label] = grads(objective(*rho).sum(), eps)[0]
    torch.testing.assert_close(found["other anchor"], found["as given"])
    torch.testing.assert_close(found["raw noise"], found["as given"])


def test_spo_is_the_same_with_another_weight_over_time() -> None:
    """z = beta (b / s) mean[(e_best - e_worst)(eps - eps_ref)]: spec 4.4 (a)."""
    case = unclipped("spo_default")
    inputs, expected = case["inputs"], case["expected"]
    _, rho = spo(case)
    noise = exact(inputs["noise_best"]) - exact(inputs["noise_worst"])
    drift = exact(inputs["eps_theta"]) - exact(inputs["eps_ref"])
    weight = exact(expected["b_coefficient"]) / exact(expected["sigma"])
    z = inputs["beta"] * weight * mean(noise * drift)
    got = StepDPO(beta=inputs["beta"], clip_eps=None).u(Sides(rho_w=rho[0], rho_l=rho[1]))
    torch.testing.assert_close(got.detach(), z)


def test_diffusion_kto_is_kto_with_the_batch_as_its_own_reference_point() -> None:
    s = battery.random_sides(seed=41)
    good = torch.arange(battery.E) % 2 == 0
    for shift in (0.0, 20.0):  # the mean is negative, then positive
        rho = s.rho_w + shift
        kto = objectives.get("kto", beta=0.1, undesirable_weight=1.3)
        got = DiffusionKTO(beta=0.1, undesirable_weight=1.3)(rho, good)
        torch.testing.assert_close(got, kto(rho, good, rho_mismatched=rho))
        q = max(0.0, float(rho.mean()))
        assert (q > 0) == (shift > 0)
        torch.testing.assert_close(got[0], torch.sigmoid(0.1 * (q - rho[0])))
    rho = leaf(s.rho_w.tolist())
    (slope,) = grads(DiffusionKTO(beta=0.1)(rho, good)[0], rho)
    assert slope[1:].tolist() == [0.0] * (battery.E - 1)  # nothing flows through the reference point


def test_utilities() -> None:
    rho, good = exact([0.3, -0.2]), torch.tensor([True, False])
    state = {"z0": torch.zeros((), dtype=torch.float64)}
    z = 2.0 * exact([0.3, 0.2])
    log_sigma = torch.nn.functional.logsigmoid
    for utility, u in {
        "sigmoid": torch.sigmoid(z),
        "loss_averse": log_sigma(z),
        "risk_seeking": -log_sigma(-z),
    }.items():
        objective = DiffusionKTO(beta=2.0, utility=utility, desirable_weight=3.0)  # type: ignore[arg-type]
        torch.testing.assert_close(objective(rho, good, state=state), exact([3.0, 1.0]) * (1 - u))


def test_mapo_without_preference_is_sft_and_sft_is_the_error_of_the_winner() -> None:
    mse_w, mse_l = exact([0.1, 0.3]), exact([0.2, 0.1])
    one = torch.ones(2, dtype=torch.float64)  # an image is one unit: its likelihood is already a mean
    sft = objectives.get("sft")(-mse_w, -mse_l, logp_w=-mse_w, logp_l=-mse_l, length_w=one, length_l=one)
    torch.testing.assert_close(sft, mse_w)
    torch.testing.assert_close(MaPO(beta=1e-12)(-mse_w, -mse_l), sft)
    torch.testing.assert_close(MaPO()(-mse_w, -mse_w), mse_w + 0.1 * math.log(2))


def test_x_over_expm1() -> None:
    x = exact([-700.0, -30.0, -2.0, -0.1001, -0.0999, -1e-9, 0.0, 1e-9, 0.0999, 0.1001, 2.0, 30.0, 700.0])
    x.requires_grad_()
    y = x_over_expm1(x)
    (slope,) = grads(y.sum(), x)

    def by_hand(v: float) -> tuple[float, float]:
        if abs(v) < 1e-6:
            return 1 - v / 2, -0.5 + v / 6
        value = v / math.expm1(v)
        return value, value * (1 / v - 1 + 1 / -math.expm1(v) if v < 0 else 1 / v - 1 / -math.expm1(-v))

    expected = [by_hand(v) for v in x.tolist()]
    torch.testing.assert_close(y.detach(), exact([value for value, _ in expected]), rtol=1e-14, atol=0)
    torch.testing.assert_close(slope, exact([d for _, d in expected]), rtol=1e-11, atol=0)
    single = torch.tensor([-1e4, 0.0, 1e-3, 1e4], requires_grad=True)
    torch.testing.assert_close(
        grads(x_over_expm1(single).sum(), single)[0],
        torch.tensor([-1.0, -0.5, -0.49983333, 0.0]),
        rtol=1e-6,
        atol=0,
    )


def test_presets_are_the_methods_defaults() -> None:
    shared = [m for m in methods.all_methods().values() if m.objective == "step_dpo"]
    of_steps = {name for name, (of, _) in objectives.registry.PRESETS.items() if of == "step_dpo"}
    assert {m.name for m in shared} == {"spo", "lpo", "d3po", "gradspo"} == of_steps
    for method in shared:
        own = {k: v for k, v in method.defaults.items() if k in objectives.hyperparameters("step_dpo")}
        assert objectives.get(method.name) == objectives.get("step_dpo", **own)
        assert objectives.canonical_name(method.name) == "step_dpo"
        assert objectives.get(method.name, beta=3.0, clip_eps=None) == StepDPO(beta=3.0, clip_eps=None)
        assert objectives.hyperparameters(method.name)["beta"].default == own["beta"]
    assert objectives.get("lpo+0.1*mapo").terms[0][1] == StepDPO(beta=500.0)  # type: ignore[attr-defined]


# -- faults of released code ------------------------------------------------------------------------------------------


def test_the_worst_clipped_pair_has_a_finite_loss() -> None:
    """SPO and LPO take -log(sigmoid(z)), infinite at z = 500 (log 0.9 - log 1.1) = -100.3 in float32."""
    rho_w, rho_l = torch.tensor([-9.0], requires_grad=True), torch.tensor([9.0])
    z = torch.tensor([500 * (math.log(0.9) - math.log(1.1))], requires_grad=True)
    released = -torch.log(torch.sigmoid(z))
    assert not bool(released.isfinite()) or not bool(grads(released.sum(), z)[0].isfinite())
    loss = objectives.get("lpo")(rho_w, rho_l)
    assert float(loss.detach()) == pytest.approx(100.335, rel=1e-4)
    assert grads(loss.sum(), rho_w)[0].tolist() == [0.0]
    near = torch.tensor([-0.09], requires_grad=True)  # not clipped: the gradient is beta, not NaN
    (slope,) = grads(objectives.get("lpo", beta=1200.0)(near, rho_l).sum(), near)
    assert float(slope) == pytest.approx(-1200.0)


def test_the_clip_comes_before_the_exponential() -> None:
    """SPO, LPO, D3PO and GradSPO clamp e^rho, whose overflow makes even a clipped side's gradient NaN."""
    rho = torch.tensor([1e4], requires_grad=True)
    released = torch.log(torch.clamp(torch.exp(rho), 0.9, 1.1))
    assert bool(grads(released.sum(), rho)[0].isnan())
    loss = StepDPO()(rho, torch.zeros(1))
    assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(-10 * math.log(1.1))))
    assert grads(loss.sum(), rho)[0].tolist() == [0.0]


def test_a_tie_is_not_a_win() -> None:
    """diffusers' scripts read Pick-a-Pic's 0.5 as a win of the first image; PickScore's code knows ties."""
    zero, tie = torch.zeros(1), torch.tensor([True])
    for name in ("diffusion_dpo", "step_dpo", "mapo"):
        with pytest.raises(ValueError, match="drop"):
            objectives.get(name)(zero, zero, tie)
    rho = torch.zeros(1, requires_grad=True)
    halves, _ = apply_ties_policy(torch.tensor([[0.0, 0.0, 1.0]]), "soft_half")
    assert grads(DiffusionDPO()(rho, zero, halves).sum(), rho)[0].tolist() == [0.0]
    assert LRM()(zero, zero, tie).tolist() == [0.0]
    assert LRM()(zero + 2, zero, tie).tolist() == LRM()(zero, zero + 2, tie).tolist()
    assert float(LRM()(zero + 2, zero, tie)) > 0


@pytest.mark.parametrize("name", ["diffusion_dpo", "spo", "lrm"])
def test_equal_sides_count_one_half_as_right(name: str) -> None:
    """Released code counts a margin of 0 as wrong, so that its accuracy starts at 0."""
    objective, zero = objectives.get(name), torch.zeros(2)
    s, found = Sides(rho_w=zero, rho_l=zero), SumsAndCounts()
    wins = torch.tensor([[1.0, 0.0, 0.0]] * 2)
    add_comparison_metrics(found, objective, s, wins, torch.ones(2), objective.losses(s, None, {}), {})
    assert found.means()["rewards/accuracies"] == 0.5


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("step_dpo", {"clip_eps": 0.0}),
        ("step_dpo", {"clip_eps": 1.0}),
        ("step_dpo", {"clip_eps": "wide"}),
        ("diffusion_kto", {"utility": "log"}),
        ("diffusion_kto", {"undesirable_weight": 0.0}),
        ("mapo", {"snr_value": 0.0}),
        ("mapo", {"num_train_timesteps": 0}),
        ("mapo", {"num_train_timesteps": 1000.0}),
        ("diffusion_dpo", {"margin": "clip"}),
    ],
)
def test_values_out_of_range(name: str, hyper: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(hyper))):
        objectives.get(name, **hyper)


def test_a_changed_clip_changes_the_margin() -> None:
    assert StepDPO().replace(clip_eps=0.2) == StepDPO(clip_eps=0.2)
    assert StepDPO().replace(clip_eps=None).margin == objectives.Margin()
    assert dataclasses.replace(StepDPO(clip_eps=None), clip_eps=0.1) == StepDPO()
