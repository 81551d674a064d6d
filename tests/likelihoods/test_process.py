"""The noising process against diffusers and golden vectors; parametrizations against each other; counted noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.training_utils import compute_snr
from torch.testing import assert_close

from prefopt.likelihoods.process import Process, counted_noise, over_samples
from step_toy import PREDICTIONS, SD, double

DATA = Path(__file__).parents[1] / "data"
ALL_T = torch.arange(1000)


def vector(file: str, name: str) -> dict[str, Any]:
    return next(case for case in json.loads((DATA / f"{file}.json").read_text()) if case["name"] == name)


def make(prediction: str, **options: Any) -> Process:
    if prediction == "flow":
        return Process.from_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0, **options))
    return Process.from_scheduler(DDIMScheduler(**{**SD, "prediction_type": prediction, **options}))


def draw(n: int, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    x0, noise = (
        torch.randn(n, *(shape or (2, 3, 3)), generator=generator, dtype=torch.float64) for _ in "ab"
    )
    return (0.7 * x0 + 0.2).to(dtype), noise.to(dtype)


# ---- the table


@pytest.mark.parametrize("name", ["ddim_schedule_20", "ddim_schedule_25"])
def test_tables_against_vectors(name):
    case = vector("lpo", name)["expected"]
    t = torch.tensor(case["timesteps"])
    expected = torch.tensor(case["alphas_cumprod_t"], dtype=torch.float64)
    process = Process.from_scheduler(double(DDIMScheduler(**SD)))
    assert_close(process.alpha(t) ** 2, expected, rtol=1e-12, atol=0)
    assert_close(process.sigma(t) ** 2, 1 - expected, rtol=1e-12, atol=0)
    assert_close(
        make("epsilon").alpha(t) ** 2, expected, rtol=2e-5, atol=0
    )  # the scheduler's own float32 table


def test_guidance_weight_of_gradspo():
    case = vector("gradspo", "ddim_coefficients_sd15_20steps")
    process = Process.from_scheduler(double(DDIMScheduler(**SD)))
    expected = torch.tensor(case["expected"]["gradspo_weight_g_half"], dtype=torch.float64)
    assert_close(process.sigma(torch.tensor(case["inputs"]["timesteps"])), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_and_velocity_are_those_of_diffusers(prediction):
    scheduler = DDPMScheduler.from_config(DDIMScheduler(**SD).config, prediction_type=prediction)
    process = Process.from_scheduler(scheduler)
    x0, noise = draw(1000, dtype=torch.float32)
    assert_close(
        process.add_noise(x0, noise, ALL_T), scheduler.add_noise(x0, noise, ALL_T), rtol=0, atol=1e-6
    )
    theirs = {"epsilon": noise, "sample": x0, "v_prediction": scheduler.get_velocity(x0, noise, ALL_T)}[
        prediction
    ]
    assert_close(process.target(x0, noise, ALL_T), theirs, rtol=0, atol=1e-6)
    assert process.n_train_timesteps == 1000
    assert torch.equal(process.model_timestep(ALL_T), ALL_T)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_that_of_diffusers(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    process = Process.from_scheduler(scheduler)
    # diffusers counts from noise to data
    assert_close(process.sigma(ALL_T).float(), scheduler.sigmas.flip(0), rtol=3e-7, atol=0)
    assert_close(process.model_timestep(ALL_T), scheduler.timesteps.flip(0), rtol=3e-7, atol=0)
    assert_close(process.alpha(ALL_T) + process.sigma(ALL_T), torch.ones(1000, dtype=torch.float64))
    x0, noise = draw(1000, dtype=torch.float32)
    theirs = scheduler.scale_noise(x0, scheduler.timesteps, noise).flip(0)
    assert_close(process.add_noise(x0.flip(0), noise.flip(0), ALL_T), theirs, rtol=0, atol=2e-6)
    # the direction that the Euler step takes from x_t reaches x_0 in one step of length sigma
    velocity = process.target(x0, noise, ALL_T)
    assert_close(velocity, noise - x0)
    x_t = process.add_noise(x0, noise, ALL_T)
    assert_close(x_t - over_samples(process.sigma(ALL_T), x_t) * velocity, x0, rtol=0, atol=2e-6)


def test_flow_takes_noise_levels_for_timesteps():
    process = make("flow")
    x0, noise = draw(5)
    t = torch.tensor([0, 10, 500, 998, 999])
    sigma = process.sigma(t)
    assert torch.equal(process.add_noise(x0, noise, t), process.add_noise(x0, noise, sigma))
    assert torch.equal(process.model_timestep(t), process.model_timestep(sigma))
    assert process.model_timestep(torch.tensor([0.25])).tolist() == [250.0]


def test_inference_settings_leave_the_train_table_alone():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    before = Process.from_scheduler(scheduler).sigma_table
    scheduler.set_timesteps(7)
    scheduler.set_shift(9.0)
    assert torch.equal(Process.from_scheduler(scheduler).sigma_table, before)
    dynamic = Process.from_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True))
    assert_close(dynamic.sigma(ALL_T), (ALL_T + 1).double() / 1000, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "solver", [DDPMScheduler, PNDMScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler]
)
def test_the_solver_plays_no_part(solver):
    """Checkpoints of Stable Diffusion come with PNDM, of SDXL with Euler; both were trained on the same process."""
    ddim = DDIMScheduler(**SD)
    process = Process.from_scheduler(solver.from_config(ddim.config))
    assert torch.equal(process.alpha_table, make("epsilon").alpha_table)
    assert process.settings() == make("epsilon").settings()


def test_end_of_the_reverse_process():
    end, first = torch.tensor([-1]), torch.tensor([0])
    assert make("epsilon").sigma(end) == make("epsilon").sigma(first)
    assert make("epsilon", set_alpha_to_one=True).sigma(end) == 0
    assert make("flow").sigma(end) == 0


def test_settings_name_the_process():
    processes = [make("epsilon"), make("sample"), make("epsilon", beta_end=0.0121), make("flow")]
    processes.append(Process.from_scheduler(FlowMatchEulerDiscreteScheduler(shift=1.0)))
    assert len({json.dumps(process.settings()) for process in processes}) == 5


# ---- parametrizations against each other


@pytest.mark.parametrize("prediction", [*PREDICTIONS, "flow"])
def test_perfect_prediction_gives_back_sample_and_noise(prediction):
    process = make(prediction)
    x0, noise = draw(1000)
    x_t, target = process.add_noise(x0, noise, ALL_T), process.target(x0, noise, ALL_T)
    assert x_t.dtype == target.dtype == torch.float64
    assert_close(process.x0(target, x_t, ALL_T), x0, rtol=0, atol=1e-10)
    assert_close(process.epsilon(target, x_t, ALL_T), noise, rtol=0, atol=1e-10)


@pytest.mark.parametrize("prediction", [*PREDICTIONS, "flow"])
def test_outputs_that_say_the_same_convert_to_the_same(prediction):
    """Any output implies a pair (x_0, noise) that makes up x_t, and is itself the target of that pair."""
    process = make(prediction)
    x_t, output = draw(1000)
    x0, noise = process.x0(output, x_t, ALL_T), process.epsilon(output, x_t, ALL_T)
    assert_close(process.add_noise(x0, noise, ALL_T), x_t, rtol=0, atol=1e-10)
    assert_close(process.target(x0, noise, ALL_T), output, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", ["snr", "min_snr"])
def test_weighted_errors_do_not_depend_on_parametrization(rule):
    """One and the same wrong x_0, told in every parametrization, has one weighted error."""
    x0, noise = draw(1000)
    wrong_x0 = x0 + 0.1 * draw(1001)[0][:1000]
    errors = {}
    for prediction in PREDICTIONS:
        process = make(prediction)
        x_t = process.add_noise(x0, noise, ALL_T)
        alpha, sigma = (over_samples(c, x_t) for c in (process.alpha(ALL_T), process.sigma(ALL_T)))
        output = process.target(wrong_x0, (x_t - alpha * wrong_x0) / sigma, ALL_T)
        assert_close(process.x0(output, x_t, ALL_T), wrong_x0, rtol=0, atol=1e-9)
        squared = (output - process.target(x0, noise, ALL_T)).square().flatten(1).mean(1)
        errors[prediction] = process.weight(ALL_T, rule).double() * squared
        snr = (process.alpha(ALL_T) / process.sigma(ALL_T)) ** 2
        expected = {"snr": snr, "min_snr": snr.clamp(max=5.0)}[rule] * (wrong_x0 - x0).square().flatten(
            1
        ).mean(1)
        assert_close(errors[prediction], expected, rtol=2e-7, atol=0)


def test_weights_are_those_in_use():
    """Min-SNR as diffusers' training scripts write it; constant; and a flow model's, by the error of its x_0."""
    snr = compute_snr(DDIMScheduler(**SD), ALL_T)
    capped = snr.clamp(max=5.0)
    assert_close(make("epsilon").weight(ALL_T, "min_snr"), capped / snr, rtol=1e-4, atol=0)
    assert_close(make("v_prediction").weight(ALL_T, "min_snr"), capped / (snr + 1), rtol=1e-4, atol=0)
    assert_close(make("sample").weight(ALL_T, "min_snr"), capped, rtol=1e-4, atol=0)
    assert_close(
        make("epsilon").weight(ALL_T, "min_snr", gamma=1.0), snr.clamp(max=1) / snr, rtol=1e-4, atol=0
    )
    for prediction in (*PREDICTIONS, "flow"):
        assert make(prediction).weight(ALL_T).tolist() == [1.0] * 1000
    flow = make("flow")
    x0, noise = draw(1000)
    x_t, wrong = flow.add_noise(x0, noise, ALL_T), flow.target(x0, noise, ALL_T) + 0.1
    squared = torch.full((1000,), 0.01, dtype=torch.float64)
    in_noise = (flow.epsilon(wrong, x_t, ALL_T) - noise).square().flatten(1).mean(1)
    in_x0 = (flow.x0(wrong, x_t, ALL_T) - x0).square().flatten(1).mean(1)
    assert_close(flow.weight(ALL_T, "snr").double() * squared, in_noise, rtol=1e-6, atol=1e-12)
    snr = (flow.alpha(ALL_T) / flow.sigma(ALL_T)) ** 2
    assert_close(
        flow.weight(ALL_T, "min_snr").double() * squared, snr.clamp(max=5) * in_x0, rtol=1e-6, atol=1e-12
    )


def test_pure_noise_is_undone_by_velocity_and_sample():
    for prediction in ("v_prediction", "sample"):
        process = make(prediction, rescale_betas_zero_snr=True)
        t = torch.tensor([999, 999])
        assert process.alpha(t).tolist() == [0.0, 0.0]
        x0, noise = draw(2)
        x_t, target = process.add_noise(x0, noise, t), process.target(x0, noise, t)
        assert torch.equal(x_t, noise)
        assert_close(process.x0(target, x_t, t), x0)
        assert_close(process.epsilon(target, x_t, t), noise)
        assert torch.isfinite(process.weight(t, "min_snr")).all()


def test_diffusion_dpo_vector():
    """From images, shared noise and predictions to the loss, with nothing but `add_noise` and `target`."""
    case = vector("diffusion_baselines", "diffusion_dpo_tensors")
    given = {k: torch.tensor(v, dtype=torch.float64) for k, v in case["inputs"].items() if k != "kind"}
    expected = {k: torch.tensor(v, dtype=torch.float64) for k, v in case["expected"].items()}
    process = Process.from_scheduler(double(DDIMScheduler(**SD)))
    t, noise = given["timesteps_shared"].long(), given["noise_shared"]
    assert_close(process.alpha(t) ** 2, given["alphas_cumprod"], rtol=1e-12, atol=0)
    gap, leaves = {}, {}
    for side in "wl":
        assert_close(
            process.add_noise(given[f"x0_{side}"], noise, t), expected[f"noisy_{side}"], rtol=0, atol=1e-12
        )
        target = process.target(given[f"x0_{side}"], noise, t)
        leaves[side] = given[f"eps_{side}"].requires_grad_()
        gap[side] = (leaves[side] - target).square().mean(1) - (
            given[f"eps_ref_{side}"] - target
        ).square().mean(1)
    loss = -torch.nn.functional.logsigmoid(-given["beta"] * given["scale"] * (gap["w"] - gap["l"]))
    assert_close(loss, expected["loss"], rtol=1e-10, atol=0)
    loss.mean().backward()
    assert_close(leaves["w"].grad, expected["grad_eps_w"], rtol=1e-9, atol=1e-12)


# ---- dtypes, shapes, errors


@pytest.mark.parametrize("prediction", [*PREDICTIONS, "flow"])
@pytest.mark.parametrize("shape", [(4, 8, 8), (21, 13), (6,)])
def test_half_precision_comes_out_in_float32(prediction, shape):
    process = make(prediction)
    t = torch.tensor([1, 501, 951])
    x0, noise = draw(3, *shape, dtype=torch.bfloat16)
    x_t, target = process.add_noise(x0, noise, t), process.target(x0, noise, t)
    for out in (
        x_t,
        target,
        process.x0(target.bfloat16(), x_t, t),
        process.epsilon(target, x_t.bfloat16(), t),
    ):
        assert out.dtype == torch.float32
        assert out.shape == (3, *shape)
    assert_close(x_t, process.add_noise(x0.double(), noise.double(), t).float(), rtol=0, atol=1e-6)
    assert process.alpha(t).dtype == torch.float64
    assert process.weight(t, "snr").dtype == torch.float32


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (lambda: EDMEulerScheduler(), "has no alphas_cumprod"),
        (lambda: FlowMatchHeunDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler.from_config"),
        (lambda: FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "invert_sigmas"),
        (lambda: DDIMScheduler(**SD, rescale_betas_zero_snr=True), "pure noise"),
        (
            lambda: UniPCMultistepScheduler(prediction_type="flow_prediction"),
            "prediction_type is 'flow_prediction'",
        ),
        (lambda: DDPMScheduler(trained_betas=[0.0, 0.1, 0.2]), r"values in \[0, 1\)"),
        (lambda: DDPMScheduler(trained_betas=[0.1, -0.1, 0.2]), "never rise"),
    ],
)
def test_schedulers_of_other_processes_are_refused(scheduler, message):
    with pytest.raises(ValueError, match=message):
        Process.from_scheduler(scheduler())


def test_errors_say_what_is_needed():
    process, flow = make("epsilon"), make("flow")
    x0, noise = draw(2)
    two = torch.tensor([3, 4])
    with pytest.raises(ValueError, match=r"timesteps lie in 0\.\.999.*\[0, 1000\]"):
        process.add_noise(x0, noise, torch.tensor([0, 1000]))
    with pytest.raises(ValueError, match="timesteps lie in"):
        process.sigma(torch.tensor([-2]))  # would index from the end
    with pytest.raises(ValueError, match="the network sees timesteps"):
        process.x0(noise, x0, torch.tensor([-1, 4]))
    with pytest.raises(ValueError, match=r"integers in 0\.\.999"):
        process.add_noise(x0, noise, two.float())
    with pytest.raises(ValueError, match="divide by it"):
        flow.add_noise(x0, noise, torch.tensor([250.0, 500.0]))
    with pytest.raises(ValueError, match="shapes differ"):
        process.target(x0, noise[:1], two)
    with pytest.raises(ValueError, match="one for each sample"):
        process.add_noise(x0, noise, torch.tensor([3]))
    with pytest.raises(ValueError, match="no time weight 'snr5'"):
        process.weight(two, "snr5")
    with pytest.raises(ValueError, match="gamma"):
        process.weight(two, "min_snr", gamma=0)


# ---- counted randomness


def test_noise_depends_on_its_arguments_alone():
    uniform, noise = counted_noise(3, "row-5", 2, (4, 8, 8))
    torch.manual_seed(0)
    counted_noise(3, "row-6", 2, (4, 8, 8))
    again = counted_noise(3, "row-5", 2, [4, 8, 8])
    assert again[0] == uniform
    assert torch.equal(again[1], noise)
    assert noise.dtype == torch.float32
    assert noise.shape == (4, 8, 8)
    assert counted_noise(3, "row-5", 2, (7,))[0] == uniform
    others = [(4, "row-5", 2), (3, "row-6", 2), (3, "row-5", 3), (3 + 2**32, "row-5", 2), (3, "2/row-5", 0)]
    others += [(-3, "row-5", 2), (3, "row-5 ", 2), (3, "rów-5", 2)]
    seen = {uniform} | {counted_noise(*triple, (4,))[0] for triple in others}
    assert len(seen) == 9


def test_noise_is_the_same_on_every_machine():
    """A change here breaks resumed runs and cached reference scores."""
    uniform, noise = counted_noise(0, "row-17", 0, (2, 2))
    assert uniform == pytest.approx(0.6248332160639627, abs=1e-15)
    assert_close(noise, torch.tensor([[1.8274840, 1.0936017], [0.2955293, 0.7465545]]), rtol=0, atol=1e-6)


def test_noise_is_normal_and_independent_across_examples():
    uniforms, noises = zip(*(counted_noise(0, str(i), 0, (64,)) for i in range(2000)), strict=True)
    noise = torch.stack(noises).double()
    assert abs(noise.mean()) < 4 / 128000**0.5
    assert abs(noise.var() - 1) < 4 * (2 / 128000) ** 0.5
    assert abs((noise[1:] * noise[:-1]).mean()) < 4 / 128000**0.5
    counts = torch.histc(torch.tensor(uniforms), bins=10, min=0, max=1)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square of 9 degrees, 0.1 %
    assert noise.unique().numel() > 127_000


def test_timesteps_from_uniform_draws():
    process = make("epsilon")
    u = torch.tensor([0.0, 0.0009999, 0.001, 0.5, 0.9999999], dtype=torch.float64)
    assert process.timesteps(u).tolist() == [0, 0, 1, 500, 999]
    even = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    assert process.timesteps(even).bincount(minlength=1000).unique().tolist() == [100]
    logit_normal = make("flow").timesteps(even, "logit_normal").double() / 1000
    # sigmoid of the quartiles of a standard normal
    quartiles = torch.tensor([-0.6745, 0.0, 0.6745], dtype=torch.float64).sigmoid()
    assert_close(
        logit_normal.quantile(torch.tensor([0.25, 0.5, 0.75]).double()), quartiles, rtol=0, atol=1.5e-3
    )
    assert make("flow").timesteps(torch.zeros(1), "logit_normal").tolist() == [0]
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        process.timesteps(torch.tensor([1.0]))
    with pytest.raises(ValueError, match="no density"):
        process.timesteps(u, "mode")
