"""Reverse steps against diffusers' own, golden vectors and torch's Gaussians; log-ratios where precision is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from prefopt.likelihoods.process import Process
from prefopt.likelihoods.transition import (
    GaussianTransition,
    ddim_transition,
    flow_transition,
    guided,
    inference_timesteps,
    kl,
    log_ratio,
)
from step_toy import PREDICTIONS, SD, double

DATA = Path(__file__).parents[1] / "data"


def cases(file: str, kind: str) -> list[Any]:
    found = [
        case for case in json.loads((DATA / f"{file}.json").read_text()) if case["inputs"]["kind"] == kind
    ]
    assert found
    return [pytest.param(case["inputs"], case["expected"], id=case["name"]) for case in found]


def tensor(value: Any) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


PROCESS = Process.from_scheduler(double(DDIMScheduler(**SD)))
FLOW = Process.from_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0))


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def sum_or_mean(value: torch.Tensor, reduction: str, n: int) -> torch.Tensor:
    return value * n if reduction == "sum" else value


# ---- golden vectors


@pytest.mark.parametrize(("given", "expected"), cases("lpo", "transition_logprob"))
def test_log_prob_vectors(given, expected):
    y, mean, std = tensor(given["x_prev"]), tensor(given["mean"]).requires_grad_(), tensor(given["sigma"])
    policy, reference = GaussianTransition(mean, std), GaussianTransition(tensor(given["mean_ref"]), std)

    def scaled(value: torch.Tensor) -> torch.Tensor:
        return sum_or_mean(value, given["reduction"], y.shape[1])

    assert_close(scaled(policy.log_prob(y)), tensor(expected["logprob"]), rtol=1e-12, atol=1e-13)
    assert_close(scaled(reference.log_prob(y)), tensor(expected["logprob_ref"]), rtol=1e-12, atol=1e-13)
    assert_close(scaled(log_ratio(policy, reference, y)), tensor(expected["rho"]), rtol=1e-10, atol=1e-15)
    for value in (policy.log_prob(y), log_ratio(policy, reference, y)):
        (grad,) = torch.autograd.grad(scaled(value).sum(), mean)
        assert_close(grad, tensor(expected["grad_logprob_wrt_mean"]), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("given", "expected"), cases("lpo", "ddim_schedule"))
def test_schedule_vectors(given, expected):
    scheduler = double(DDIMScheduler(**SD))
    steps_S2 = inference_timesteps(scheduler, given["num_inference_steps"])
    assert steps_S2.T.tolist() == [expected["timesteps"], expected["prev_timesteps"]]
    t, t_prev = steps_S2.T
    for column, coefficient in ((0, "c_x"), (1, "c_eps")):
        x, output = torch.zeros(2, len(t), 1, dtype=torch.float64)
        (x, output)[column][:] = 1
        step = ddim_transition(PROCESS, output, x, t, t_prev, given["eta"])
        assert_close(step.mean_BCHW[:, 0], tensor(expected[coefficient]), rtol=1e-9, atol=1e-13)
    assert_close(step.std_B, tensor(expected["sigma"]), rtol=1e-9, atol=0)
    # and with the float32 table that the scheduler has by itself
    step = ddim_transition(Process.from_scheduler(DDIMScheduler(**SD)), output, x, t, t_prev, given["eta"])
    assert_close(step.std_B, tensor(expected["sigma"]), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("given", "expected"), cases("gradspo", "ddim_coefficients"))
def test_coefficient_vectors(given, expected):
    t = torch.tensor(given["timesteps"])
    output = torch.ones(len(t), 1, dtype=torch.float64)
    step = ddim_transition(PROCESS, output, 0 * output, t, t - 50, given["eta"])
    assert_close(step.std_B, tensor(expected["sigma"]), rtol=1e-9, atol=0)
    assert_close(step.mean_BCHW[:, 0], tensor(expected["b_coefficient"]), rtol=1e-9, atol=0)
    assert_close(-step.mean_BCHW[:, 0] / step.std_B, tensor(expected["spo_weight"]), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("given", "expected"), cases("lpo", "flow_sde_step"))
def test_flow_vectors(given, expected):
    u, u_prev = tensor(given["u_t"]), tensor(given["u_prev"])
    x, velocity = tensor(given["x_t"]), tensor(given["velocity"])
    step = flow_transition(FLOW, velocity, x, u, u_prev, given["eta"])
    assert_close(step.mean_BCHW, tensor(expected["mean"]), rtol=1e-10, atol=1e-12)
    assert_close(step.std_B, tensor(expected["sigma"]), rtol=1e-12, atol=0)
    assert_close(FLOW.x0(velocity, x, u), tensor(expected["x0_hat"]), rtol=1e-12, atol=1e-13)
    assert_close(FLOW.epsilon(velocity, x, u), tensor(expected["eps_hat"]), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("given", "expected"), cases("lpo", "lpo_step"))
def test_whole_step_vectors(given, expected):
    """From noise predictions under guidance to log-ratios and the gradient of the step's loss."""
    x, t, t_prev = (
        tensor(given["x_t"]),
        torch.tensor(given["timesteps"]),
        torch.tensor(given["prev_timesteps"]),
    )
    eps = tensor(given["eps_cond"]).requires_grad_()
    w, rows = given["guidance_scale"], torch.arange(len(t))
    policy, reference = (
        ddim_transition(PROCESS, guided(cond, tensor(given[uncond]), w), x, t, t_prev, given["eta"])
        for cond, uncond in ((eps, "eps_uncond"), (tensor(given["eps_ref_cond"]), "eps_ref_uncond"))
    )
    assert_close(policy.std_B, tensor(expected["sigma"]), rtol=1e-9, atol=0)
    candidates = tensor(given["candidates"])
    y_2BX = torch.stack([candidates[torch.tensor(expected[side]), rows] for side in ("winner", "loser")])
    rho_2B = sum_or_mean(log_ratio(policy, reference, y_2BX), given["reduction"], x.shape[1])
    assert_close(rho_2B, tensor([expected["rho_w"], expected["rho_l"]]), rtol=1e-8, atol=1e-13)
    assert_close(rho_2B[0] - rho_2B[1], tensor(expected["margin_closed_form"]), rtol=1e-8, atol=1e-13)
    if (clip := given["clip_eps"]) is not None:
        rho_2B = rho_2B.clamp(tensor(1 - clip).log(), tensor(1 + clip).log())
    loss = -torch.nn.functional.logsigmoid(given["beta"] * (rho_2B[0] - rho_2B[1]))[
        torch.tensor(expected["valid"])
    ]
    loss.mean().backward()
    assert_close(loss, tensor(expected["loss_valid"]), rtol=1e-7, atol=0)
    assert_close(eps.grad, tensor(expected["grad_eps_cond"]), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("given", "expected"), cases("gradspo", "spo_baseline"))
def test_spo_vectors(given, expected):
    x, t = tensor(given["x_t"]), torch.tensor(given["timesteps"])
    policy, reference = (
        ddim_transition(PROCESS, tensor(given[name]), x, t, t - 50, given["eta"])
        for name in ("eps_theta", "eps_ref")
    )
    for branch, side in (("best", "w"), ("worst", "l")):
        y = policy.sample(tensor(given[f"noise_{branch}"]))
        assert_close(y, tensor(given[f"x_prev_{branch}"]), rtol=1e-9, atol=1e-11)
        expected_rho = tensor(expected[f"log_ratio_{side}"])
        assert_close(log_ratio(policy, reference, y), expected_rho, rtol=1e-7, atol=1e-12)


# ---- against diffusers


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("table", ["float32", "float64"])
def test_steps_are_those_of_diffusers(prediction, eta, table):
    """All 20 timesteps in one batch, against `DDIMScheduler.step` one by one; values and gradients."""
    scheduler = DDIMScheduler(**SD, prediction_type=prediction)
    if table == "float64":
        double(scheduler)
    atol = {"float32": 2e-5, "float64": 1e-11}[table]  # of their arithmetic on coefficients, not of ours
    process = Process.from_scheduler(scheduler)
    t, t_prev = inference_timesteps(scheduler, 20).T
    scheduler.set_timesteps(20)
    assert torch.equal(scheduler.timesteps, t)
    x, noise = random(20, 4, 8, 8), random(20, 4, 8, 8, seed=1)
    output = random(20, 4, 8, 8, seed=2).requires_grad_()
    step = ddim_transition(process, output, x, t, t_prev, eta)
    theirs = [
        scheduler.step(output[i : i + 1], int(t[i]), x[i : i + 1], eta=eta, variance_noise=noise[i : i + 1])
        for i in range(20)
    ]
    theirs_x = torch.cat([out.prev_sample for out in theirs])
    assert_close(step.sample(noise), theirs_x, rtol=0, atol=atol)
    x0 = torch.cat([out.pred_original_sample for out in theirs])
    assert_close(process.x0(output, x, t), x0, rtol=0, atol=atol * 10)
    by_us, by_them = (torch.autograd.grad(y.sum(), output)[0] for y in (step.sample(noise), theirs_x))
    assert_close(by_us, by_them, rtol=0, atol=atol)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_eta_one_is_ddpm(prediction):
    """The mean of DDPM's posterior, in another parametrization of the same step (diffusers' DDPMScheduler)."""
    ddim = DDIMScheduler(**{**SD, "set_alpha_to_one": True, "prediction_type": prediction})
    scheduler = DDPMScheduler.from_config(ddim.config)
    scheduler.set_timesteps(20)
    t, t_prev = inference_timesteps(scheduler, 20).T
    assert t_prev[-1] == -1
    x, output = random(20, 4, 8, 8), random(20, 4, 8, 8, seed=2)
    step = ddim_transition(Process.from_scheduler(scheduler), output, x, t, t_prev, 1.0)
    for i in range(20):
        generator = torch.Generator().manual_seed(i)
        theirs = scheduler.step(output[i : i + 1], int(t[i]), x[i : i + 1], generator=generator).prev_sample
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        ours = step.mean_BCHW[i : i + 1] + step.std_B[i] * noise
        assert_close(ours, theirs, rtol=0, atol=5e-4 if i == 19 else 3e-5)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("steps_offset", [0, 1])
def test_last_step_ends_where_the_scheduler_ends(set_alpha_to_one, steps_offset):
    options = {"set_alpha_to_one": set_alpha_to_one, "steps_offset": steps_offset}
    scheduler = DDIMScheduler(**{**SD, **options})
    (t, t_prev) = inference_timesteps(scheduler, 20)[-1:].T
    assert t.tolist() == [steps_offset]
    assert t_prev.tolist() == [-1 if set_alpha_to_one or steps_offset == 0 else 0]
    scheduler.set_timesteps(20)
    x, output = random(1, 4), random(1, 4, seed=1)
    step = ddim_transition(Process.from_scheduler(scheduler), output, x, t, t_prev, 0.0)
    assert_close(step.mean_BCHW, scheduler.step(output, int(t), x).prev_sample, rtol=0, atol=1e-6)
    clamped = ddim_transition(Process.from_scheduler(scheduler), output, x, t, t - 50, 0.0)
    assert_close(clamped.mean_BCHW, step.mean_BCHW)  # t - 50 < 0 is the same end


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("n_steps", [1, 7, 20, 30, 1000])
def test_each_step_begins_where_the_last_ended(spacing, n_steps):
    scheduler = DDIMScheduler(**{**SD, "steps_offset": 0, "timestep_spacing": spacing})
    before = scheduler.timesteps.clone()
    steps_S2 = inference_timesteps(scheduler, n_steps)
    assert torch.equal(scheduler.timesteps, before)  # the caller's scheduler is untouched
    assert steps_S2.shape == (n_steps, 2)
    assert torch.equal(steps_S2[1:, 0], steps_S2[:-1, 1])
    assert (steps_S2[:, 1] < steps_S2[:, 0]).all()
    scheduler.set_timesteps(n_steps)
    assert torch.equal(steps_S2[:, 0], scheduler.timesteps)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_without_noise_is_the_euler_step(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    steps_S2 = inference_timesteps(scheduler, 20)
    scheduler.set_timesteps(20)
    process = Process.from_scheduler(scheduler)
    assert_close(process.model_timestep(steps_S2[:, 0]), scheduler.timesteps)
    x = ours = random(1, 4, 8, 8, dtype=torch.float32)
    for i, timestep in enumerate(scheduler.timesteps):
        velocity = random(1, 4, 8, 8, seed=i, dtype=torch.float32)
        x = scheduler.step(velocity, timestep, x).prev_sample
        sigma, sigma_prev = steps_S2[i : i + 1].T
        ours = flow_transition(process, velocity, ours, sigma, sigma_prev, eta=0.0).mean_BCHW
        assert_close(ours, x, rtol=0, atol=1e-5)
    assert steps_S2[-1, 1] == 0


# ---- what a step must be


def steps_of(kind: str) -> tuple[Process, torch.Tensor, torch.Tensor]:
    if kind == "flow":
        return FLOW, *inference_timesteps(FlowMatchEulerDiscreteScheduler(shift=3.0), 20)[:-1].T
    scheduler = double(DDIMScheduler(**SD, prediction_type=kind))
    return Process.from_scheduler(scheduler), *inference_timesteps(scheduler, 20).T


def step_of(process: Process, *args: Any, **kwargs: Any) -> GaussianTransition:
    return (flow_transition if process.kind == "flow" else ddim_transition)(process, *args, **kwargs)


@pytest.mark.parametrize("kind", [*PREDICTIONS, "flow"])
@pytest.mark.parametrize("rule", ["ancestral", "substituted"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_marginals_do_not_depend_on_eta(kind, rule, eta):
    """A perfect predictor's step from x_t of (x_0, noise) has the mean alpha' x_0 and the variance sigma'^2."""
    process, t, t_prev = steps_of(kind)
    options = {"rule": rule} if kind == "flow" else {}
    one, zero = torch.ones(len(t), 1, dtype=torch.float64), torch.zeros(len(t), 1, dtype=torch.float64)

    def mean(x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        x_t, output = process.add_noise(x0, noise, t), process.target(x0, noise, t)
        return step_of(process, output, x_t, t, t_prev, eta, **options).mean_BCHW[:, 0]

    std = step_of(process, zero, zero, t, t_prev, eta, **options).std_B
    assert_close(mean(one, zero), process.alpha(t_prev), rtol=0, atol=1e-10)
    assert_close(mean(zero, one) ** 2 + std**2, process.sigma(t_prev) ** 2, rtol=1e-8, atol=1e-12)
    assert (std > 0).all() if eta else not std.any()


def test_the_two_rules_of_flow():
    """Equal on a variance preserving process; the paper's literal one is cut at low noise."""
    u, u_prev = tensor([0.9, 0.5, 0.1]), tensor([0.85, 0.45, 0.05])
    x = velocity = torch.zeros(3, 4, dtype=torch.float64)
    literal = u_prev / u * (1 - ((1 - u) / (1 - u_prev)) ** 2).sqrt()
    substituted = flow_transition(FLOW, velocity, x, u, u_prev, 1.0, rule="substituted").std_B
    assert literal[2] > u_prev[2]
    assert_close(substituted, torch.minimum(literal, u_prev), rtol=1e-12, atol=0)
    assert (flow_transition(FLOW, velocity, x, u, u_prev, 1.0).std_B < u_prev).all()


@pytest.mark.parametrize("kind", [*PREDICTIONS, "flow"])
def test_log_ratio_is_the_difference_of_log_probs(kind):
    process, t, t_prev = steps_of(kind)
    x, output = random(len(t), 4, 8, 8), random(len(t), 4, 8, 8, seed=1)
    moved = (output + 0.05 * random(len(t), 4, 8, 8, seed=2)).requires_grad_()
    policy = step_of(process, moved, x, t, t_prev, 1.0)
    reference = step_of(process, output, x, t, t_prev, 1.0)
    y = policy.sample(random(3, len(t), 4, 8, 8, seed=3))  # three candidates for each
    assert y.shape == (3, len(t), 4, 8, 8)
    rho, plain = (
        log_ratio(policy, reference, y.detach()),
        policy.log_prob(y.detach()) - reference.log_prob(y.detach()),
    )
    assert rho.shape == (3, len(t))
    assert_close(rho, plain, rtol=1e-9, atol=1e-12)
    by_rho, by_plain = (
        torch.autograd.grad(value.sum(), moved, retain_graph=True)[0] for value in (rho, plain)
    )
    assert_close(by_rho, by_plain, rtol=1e-8, atol=1e-12)
    # the margin of two candidates is linear in the means
    margin = ((policy.mean_BCHW - reference.mean_BCHW) * (y[0] - y[1])).flatten(1).mean(1) / policy.std_B**2
    assert_close(rho[0] - rho[1], margin, rtol=1e-9, atol=1e-12)
    assert_close(log_ratio(policy, policy, y), torch.zeros(3, len(t), dtype=torch.float64))
    each = torch.stack([log_ratio(policy, reference, y[k]) for k in range(3)])
    assert_close(rho, each, rtol=1e-13, atol=0)


def test_density_and_divergence_are_those_of_torch():
    policy = GaussianTransition(random(3, 4, 8, 8), tensor([0.5, 0.1, 0.02]))
    reference = GaussianTransition(policy.mean_BCHW + 0.01 * random(3, 4, 8, 8, seed=1), policy.std_B)
    y = policy.sample(random(3, 4, 8, 8, seed=2))
    p, q = (Normal(step.mean_BCHW, step.std_B[:, None, None, None]) for step in (policy, reference))
    assert_close(policy.log_prob(y), p.log_prob(y).flatten(1).mean(1), rtol=1e-12, atol=0)
    assert_close(kl(policy, reference), kl_divergence(p, q).flatten(1).mean(1), rtol=1e-10, atol=0)
    # and it is the expected log-ratio
    many = log_ratio(policy, reference, policy.sample(random(2000, 3, 4, 8, 8, seed=4))).mean(0)
    spread = (2 * kl(policy, reference) / 256 / 2000).sqrt()  # rho has the variance 2 KL / D
    assert ((many - kl(policy, reference)).abs() < 4 * spread).all()


@pytest.mark.parametrize("kind", [*PREDICTIONS, "flow"])
def test_guidance_may_be_applied_to_any_output(kind):
    """Guiding the output is guiding the noise (and x_0) that it implies."""
    process, t, _ = steps_of(kind)
    x, cond, uncond = (random(len(t), 4, seed=seed) for seed in range(3))
    noise = guided(process.epsilon(cond, x, t), process.epsilon(uncond, x, t), 5.0)
    assert_close(process.epsilon(guided(cond, uncond, 5.0), x, t), noise, rtol=0, atol=1e-9)
    clean = guided(process.x0(cond, x, t), process.x0(uncond, x, t), 5.0)
    assert_close(process.x0(guided(cond, uncond, 5.0), x, t), clean, rtol=0, atol=1e-9)


def test_guidance():
    cond, uncond = random(2, 4).requires_grad_(), random(2, 4, seed=1).requires_grad_()
    by_cond, by_uncond = torch.autograd.grad(guided(cond, uncond, 5.0).sum(), (cond, uncond))
    assert by_cond.unique().tolist() == [5.0]
    assert by_uncond.unique().tolist() == [-4.0]
    assert guided(cond, None, 1.0) is cond
    assert torch.equal(guided(cond, uncond, 0.0), uncond)
    assert guided(cond.bfloat16(), uncond.bfloat16(), 5.0).dtype == torch.float32
    with pytest.raises(ValueError, match="empty prompt"):
        guided(cond, None, 5.0)


# ---- precision


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_bfloat16_log_probs_times_beta_are_noise(eta):
    """LPO multiplies log-ratios by 500. Ours keep them; two log-probs in bfloat16, subtracted, do not."""
    process, t, t_prev = steps_of("epsilon")
    # what a bfloat16 network puts out, exactly representable
    x, output = random(20, 4, 64, 64).bfloat16(), random(20, 4, 64, 64, seed=1).bfloat16()
    moved = (output + 0.03 * random(20, 4, 64, 64, seed=2)).bfloat16()
    z = random(20, 4, 64, 64, seed=3)
    exact = [ddim_transition(process, out.double(), x.double(), t, t_prev, eta) for out in (moved, output)]
    y = exact[0].sample(z).float()
    truth = 500 * (exact[0].log_prob(y.double()) - exact[1].log_prob(y.double()))

    steps = [ddim_transition(process, out, x, t, t_prev, eta) for out in (moved, output)]
    assert steps[0].mean_BCHW.dtype == torch.float32
    closed = 500 * log_ratio(*steps, y)
    assert closed.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as in a training step
        assert torch.equal(500 * log_ratio(*steps, y), closed)
    assert (closed - truth).abs().max() < 1e-4
    assert truth.abs().median() > 0.05

    half = [
        torch.distributions.Normal(step.mean_BCHW.bfloat16(), step.std_B.bfloat16()[:, None, None, None])
        .log_prob(y.bfloat16())
        .flatten(1)
        .mean(1)
        for step in steps
    ]
    assert half[0].dtype == torch.bfloat16
    naive = 500 * (half[0] - half[1]).double()
    # as large as what is measured: most are rounded to 0, some are off by more than 1 in the sigmoid
    assert (naive - truth).abs().median() > 0.7 * truth.abs().median()
    assert (naive == 0).sum() >= 10
    assert (naive - truth).abs().max() > 1


def test_float32_is_enough_at_every_step():
    process, t, t_prev = steps_of("v_prediction")
    x, output = random(20, 4, 16, 16), random(20, 4, 16, 16, seed=1)
    exact = ddim_transition(process, output, x, t, t_prev, 1.0).mean_BCHW
    single = ddim_transition(process, output.float(), x.float(), t, t_prev, 1.0).mean_BCHW
    assert single.dtype == torch.float32
    assert_close(single.double(), exact, rtol=0, atol=1e-6)


# ---- errors


def test_deterministic_steps_have_no_density():
    process, t, t_prev = steps_of("epsilon")
    x, output = random(20, 4), random(20, 4, seed=1)
    step = ddim_transition(process, output, x, t, t_prev, 0.0)
    assert torch.equal(step.sample(random(20, 4, seed=2)), step.mean_BCHW)
    for density in (lambda: step.log_prob(x), lambda: log_ratio(step, step, x), lambda: kl(step, step)):
        with pytest.raises(ValueError, match="eta is 0"):
            density()
    with pytest.raises(ValueError, match=r"smallest std.*needed at least 0\.0001"):
        ddim_transition(process, output, x, t, t_prev, 1e-3).log_prob(x)
    to_clean = flow_transition(FLOW, output[:1], x[:1], tensor([0.1]), tensor([0.0]), 1.0)
    with pytest.raises(ValueError, match="ends at the clean sample"):
        to_clean.log_prob(x[:1])


def test_errors_say_what_is_needed():
    x = random(1, 4)
    t, t_prev = torch.tensor([51]), torch.tensor([1])
    for eta in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
            ddim_transition(PROCESS, x, x, t, t_prev, eta)
    with pytest.raises(ValueError, match="less noise; given from"):
        ddim_transition(PROCESS, x, x, t_prev, t, 1.0)
    with pytest.raises(ValueError, match="use flow_transition"):
        ddim_transition(FLOW, x, x, t, t_prev, 1.0)
    with pytest.raises(ValueError, match="use ddim_transition"):
        flow_transition(PROCESS, x, x, t, t_prev, 1.0)
    with pytest.raises(ValueError, match="no rule"):
        flow_transition(FLOW, x, x, tensor([0.5]), tensor([0.4]), 1.0, rule="literal")
    with pytest.raises(ValueError, match="shapes differ"):
        ddim_transition(PROCESS, x, x[:, :3], t, t_prev, 1.0)
    step = ddim_transition(PROCESS, x, x, t, t_prev, 1.0)
    with pytest.raises(ValueError, match="different stds"):
        log_ratio(step, ddim_transition(PROCESS, x, x, t, t_prev, 0.5), x)
    for call in (step.sample, step.log_prob, lambda y: log_ratio(step, step, y)):
        with pytest.raises(ValueError, match="leading axes of candidates"):
            call(random(1, 3))
    two = GaussianTransition(random(2, 4), tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="leading axes of candidates"):
        two.log_prob(random(1, 4))  # would broadcast


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (lambda: PNDMScheduler(), "multi-step solvers.*DDIMScheduler.from_config"),
        (lambda: DPMSolverMultistepScheduler(), "multi-step solvers"),
        (lambda: EulerAncestralDiscreteScheduler(), "no explicit Gaussian density"),
        (
            lambda: DDIMScheduler(),
            r"clip_sample=True.*DDIMScheduler.from_config\(scheduler.config, clip_sample=False",
        ),
        (lambda: DDIMScheduler(**SD, thresholding=True), "thresholding=True"),
        (
            lambda: DDPMScheduler(clip_sample=False, variance_type="learned_range"),
            "variance_type='learned_range'",
        ),
        (lambda: FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), "depend on the resolution"),
    ],
)
def test_schedulers_without_gaussian_steps_are_refused(scheduler, message):
    with pytest.raises(ValueError, match=message):
        inference_timesteps(scheduler(), 20)


def test_number_of_steps_is_checked():
    for n_steps in (0, 1001):
        with pytest.raises(ValueError, match="between 1 and 1000"):
            inference_timesteps(DDIMScheduler(**SD), n_steps)
