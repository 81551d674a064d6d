"""Objectives of image diffusion against golden vectors: losses, clips and gradients.

Log-ratios are made here from predictions, so that losses are checked from the model's output on, whatever the package's
likelihoods do. Legend: A alternatives of one step, E comparisons; further dimensions are those of a latent.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from objectives.diffusion_cases import (
    CASES,
    cases,
    close,
    exact,
    grads,
    gradspo,
    leaf,
    mean,
    spo,
    step_log_ratio,
    transition,
)
from prefopt.objectives import LRM, ClippedMargin, DiffusionDPO, DiffusionKTO, MaPO, Sides, StepDPO


def test_every_vector_of_a_loss_is_used() -> None:
    used = {
        "diffusion_dpo",
        "diffusion_dpo_tensors",
        "step_dpo",
        "diffusion_kto",
        "mapo",
        "lrm_loss",
        "lpo_step",
    }
    used |= {"gradspo_full", "clipped_pref_loss", "spo_baseline"}
    elsewhere = {"select_pairs", "pair_selection", "dynamic_threshold", "mpcf", "pearson", "ema", "lrm_score"}
    elsewhere |= {"ddim_schedule", "ddim_coefficients", "transition_logprob", "flow_sde_step"}
    no_objective = {"ddpo", "smpo"}
    assert {c["inputs"]["kind"] for c in CASES} == used | elsewhere | no_objective


@cases("diffusion_dpo")
def test_diffusion_dpo(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    mse_w, mse_l = leaf(inputs["mse_w"]), leaf(inputs["mse_l"])
    objective = DiffusionDPO(
        beta=2 * inputs["beta"] * inputs["scale"]
    )  # beta 2500 without the half is 5000 with it
    rho_w, rho_l = exact(inputs["ref_mse_w"]) - mse_w, exact(inputs["ref_mse_l"]) - mse_l
    loss = objective(rho_w, rho_l)
    close(objective.reward_scale * (rho_w - rho_l), expected["inside"], atol=1e-11)
    close(loss, expected["loss"])
    close(loss.mean(), expected["mean_loss"])
    grad_w, grad_l = grads(loss.mean(), mse_w, mse_l)
    close(grad_w, expected["grad_mse_w"])
    close(grad_l, expected["grad_mse_l"])


@cases("diffusion_dpo_tensors")
def test_diffusion_dpo_from_predictions(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    noise = exact(inputs["noise_shared"])
    predictions = [leaf(inputs[f"eps_{side}"]) for side in "wl"]
    mse = [mean((noise - eps) ** 2) for eps in predictions]
    mse_ref = [mean((noise - exact(inputs[f"eps_ref_{side}"])) ** 2) for side in "wl"]
    loss = DiffusionDPO(beta=inputs["beta"])(mse_ref[0] - mse[0], mse_ref[1] - mse[1])
    close(loss, expected["loss"])
    grad_eps, grad_w, grad_l = grads(loss.mean(), predictions[0], *mse)
    close(grad_eps, expected["grad_eps_w"])
    close(grad_w, expected["grad_mse_w"])
    close(grad_l, expected["grad_mse_l"])


@cases("step_dpo", "clipped_pref_loss")
def test_step_dpo(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    name = "rho" if "rho_w" in inputs else "log_ratio"
    rho_w, rho_l = leaf(inputs[f"{name}_w"]), leaf(inputs[f"{name}_l"])
    objective = StepDPO(beta=inputs["beta"], clip_eps=inputs["clip_eps"])
    if isinstance(objective.margin, ClippedMargin):
        close(objective.margin.score(rho_w), expected[f"clipped_{name}_w"])
        close(objective.margin.score(rho_l), expected[f"clipped_{name}_l"])
    z = objective.u(Sides(rho_w=rho_w, rho_l=rho_l))
    close(z, expected["z" if "z" in expected else "logit"], atol=1e-13)
    loss = objective(rho_w, rho_l)
    close(loss, expected.get("loss", expected.get("loss_per_example")))
    close(loss.mean(), expected["mean_loss"])
    of_mean = name == "rho"
    grad_w, grad_l = grads(loss.mean() if of_mean else loss.sum(), rho_w, rho_l)
    close(grad_w, expected["grad_rho_w" if of_mean else "dloss_dlog_ratio_w"])
    close(grad_l, expected["grad_rho_l" if of_mean else "dloss_dlog_ratio_l"])


@cases("diffusion_kto")
def test_diffusion_kto(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    mse, label = leaf(inputs["mse"]), exact(inputs["label"]) == 1
    rho = exact(inputs["ref_mse"]) - mse
    objective = DiffusionKTO(beta=inputs["beta"])
    sides = Sides(rho_w=rho, rho_l=torch.zeros_like(rho))
    state = objective.next_state(objective.initial_state(), objective.statistics(sides, None))
    close(rho, expected["g"], rtol=1e-9)  # itself a difference of numbers a thousand times as large
    close(state["z0"], expected["baseline"])
    loss = objective(rho, label)
    close(1 - loss, expected["utility"])
    close(loss, expected["loss"])
    close(loss.mean(), expected["mean_loss"])
    close(*grads(loss.mean(), mse), expected["grad_mse_policy"])


@cases("mapo")
def test_mapo(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    mse_w, mse_l = leaf(inputs["mse_w"]), leaf(inputs["mse_l"])
    keys = ("beta", "snr_value", "num_train_timesteps")
    objective = MaPO(**{key: inputs[key] for key in keys})
    loss = objective(-mse_w, -mse_l)
    close(objective.z(Sides(rho_w=-mse_w, rho_l=-mse_l)), expected["z"])
    close(loss.mean(), expected["total"])
    grad_w, grad_l = grads(loss.mean(), mse_w, mse_l)
    assert bool(grad_w.isfinite().all() & grad_l.isfinite().all())
    if "grad_mse_w" in expected:  # by central differences
        close(grad_w, expected["grad_mse_w"], rtol=1e-5, atol=1e-9)
        close(grad_l, expected["grad_mse_l"], rtol=1e-5, atol=1e-9)


@cases("lrm_loss")
def test_lrm_loss(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    s_0, s_1 = leaf(inputs["score_0"]), leaf(inputs["score_1"])
    won, lost = exact(inputs["label_0"]), exact(inputs["label_1"])
    tie = (won == lost).double()
    loss = LRM()(s_0, s_1, torch.stack([won * (1 - tie), lost * (1 - tie), tie], -1))
    close(loss, expected["loss"])
    weight = 1 / exact(inputs["num_examples_per_prompt"])
    weight = weight / weight.sum()
    close(weight, expected["weights"])
    close((weight * loss).sum(), expected["total"])
    grad_0, grad_1 = grads((weight * loss).sum(), s_0, s_1)
    close(grad_0, expected["grad_s0"])
    close(grad_1, expected["grad_s1"])


@cases("lpo_step")
def test_lpo_from_predictions(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    eps_cond, w = leaf(inputs["eps_cond"]), inputs["guidance_scale"]
    a, a_prev = exact(inputs["alphas_cumprod_t"]), exact(inputs["alphas_cumprod_prev"])
    x_t, candidates_AE = exact(inputs["x_t"]), exact(inputs["candidates"])

    def guided(cond: Tensor, uncond: Tensor) -> Tensor:
        return uncond + w * (cond - uncond)

    eps = guided(eps_cond, exact(inputs["eps_uncond"]))
    eps_ref = guided(exact(inputs["eps_ref_cond"]), exact(inputs["eps_ref_uncond"]))
    mu, sigma = transition(x_t, eps, a, a_prev, inputs["eta"])
    mu_ref, _ = transition(x_t, eps_ref, a, a_prev, inputs["eta"])
    index = torch.arange(len(x_t))
    rho = []
    for side in ("winner", "loser"):
        y = candidates_AE[torch.tensor(expected[side]), index]
        rho.append(step_log_ratio(y, mu, mu_ref, sigma, total=inputs["reduction"] == "sum"))
    close(rho[0], expected["rho_w"])
    close(rho[1], expected["rho_l"])
    valid = torch.tensor(expected["valid"])
    objective = StepDPO(beta=inputs["beta"], clip_eps=inputs["clip_eps"])
    loss = objective(rho[0][valid], rho[1][valid])
    close(loss, expected["loss_valid"])
    close(loss.mean(), expected["mean_loss"])
    close(*grads(loss.mean(), eps_cond), expected["grad_eps_cond"])


@cases("spo_baseline", "gradspo_full")
def test_step_methods_from_predictions(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    eps, rho = (spo if inputs["kind"] == "spo_baseline" else gradspo)(case)
    close(rho[0], expected["log_ratio_w"])
    close(rho[1], expected["log_ratio_l"])
    objective = StepDPO(beta=inputs["beta"], clip_eps=inputs["clip_eps"])
    loss = objective(*rho)
    close(objective.u(Sides(rho_w=rho[0], rho_l=rho[1])), expected["logit"])
    close(loss, expected["loss_per_example"])
    close(loss.mean(), expected["mean_loss"])
    close(*grads(loss.mean(), eps), expected["grad_eps_theta"])
