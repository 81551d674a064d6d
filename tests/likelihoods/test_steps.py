"""Scores of single steps and of guided targets: against torch's Gaussians, golden vectors, each other, and differences."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.distributions import Normal
from torch.testing import assert_close

from prefopt.comparisons import Comparison, Encoded
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.reward import RewardLikelihood
from prefopt.likelihoods.steps import (
    EncodedStep,
    GuidedNetwork,
    GuidedTarget,
    State,
    StepPlan,
    TransitionLikelihood,
    predicted_noise,
    transition,
)
from prefopt.likelihoods.transition import inference_timesteps, log_ratio
from prefopt.objectives.diffusion import StepDPO
from step_toy import SD, SHAPE, Toy, conditions, guided_toy, random

DATA = Path(__file__).parents[1] / "data"
SCHEDULERS = {
    "epsilon": DDIMScheduler(**SD),
    "v_prediction": DDIMScheduler(**SD, prediction_type="v_prediction"),
    "sample": DDIMScheduler(**SD, prediction_type="sample"),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
}
PROCESSES = {name: Process.from_scheduler(scheduler) for name, scheduler in SCHEDULERS.items()}
# two steps each: (t, t_prev)
TIMES = {name: [(0.9, 0.7), (0.4, 0.1)] if name == "flow" else [(951, 901), (51, 1)] for name in SCHEDULERS}
OPEN = StepDPO(beta=10.0, clip_eps=None)


def steps_of(name: str, dtype: torch.dtype = torch.float32) -> list[EncodedStep]:
    """Three samples of one state, one of another, not in order."""
    (t0, to0), (t1, to1) = TIMES[name]
    first = State(random(*SHAPE, seed=1, dtype=dtype), t0, to0, "red")
    second = State(random(*SHAPE, seed=2, dtype=dtype), t1, to1, "blue")
    states = (first, second, first, first)
    # near enough to the mean that densities are of order one
    return [
        EncodedStep(s, s.x_CHW + 0.3 * random(*SHAPE, seed=5 + n, dtype=dtype)) for n, s in enumerate(states)
    ]


def by_hand(process: Process, model: Toy, item: EncodedStep, scale: float, eta: float) -> Tensor:
    """The mean log-density of one item in float64, from the formulas of DDIM and of straight flows."""
    state, toy = item.state, Toy(dtype=torch.float64)
    toy.load_state_dict(model.state_dict())
    x = state.x_CHW.double()[None]
    t, t_prev = torch.tensor([state.t]), torch.tensor([state.t_prev])
    if process.kind == "flow":
        alpha, sigma, alpha_to, sigma_to, at = 1 - state.t, state.t, 1 - state.t_prev, state.t_prev, 1000 * t
    else:
        (alpha, sigma), (alpha_to, sigma_to) = (
            (float(process.alpha(s)), float(process.sigma(s))) for s in (t, t_prev)
        )
        at = t
    uncond, cond = (toy(x, at, conditions([prompt])["c"]) for prompt in ("", state.prompt))
    output = uncond + scale * (cond - uncond)
    match process.prediction:
        case "epsilon":
            eps, x0 = output, (x - sigma * output) / alpha
        case "v_prediction":
            eps, x0 = alpha * output + sigma * x, alpha * x - sigma * output
        case "sample":
            eps, x0 = (x - alpha * output) / sigma, output
        case "flow":
            eps, x0 = x + alpha * output, x - sigma * output
    std = eta * sigma_to / sigma * (sigma**2 - (alpha / alpha_to) ** 2 * sigma_to**2) ** 0.5
    mean = alpha_to * x0 + (sigma_to**2 - std**2) ** 0.5 * eps
    return Normal(mean[0], std).log_prob(item.sample_CHW.double()).mean()


# ---- transitions


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_score_is_the_log_density_of_each_item(name, scale):
    process, model, items = PROCESSES[name], Toy(), steps_of(name)
    guided, calls = guided_toy(process, scale)
    likelihood = TransitionLikelihood(guided=guided, eta=0.8)
    with torch.no_grad():
        found = likelihood.score(model, likelihood.plan(items))
        expected = torch.stack([by_hand(process, model, item, scale, 0.8) for item in items])
    assert found.logp_NL.shape == (4, 1)
    assert found.logp_NL.dtype == torch.float32
    # float32: at the last steps of a diffusion the density's z are several and the mean carries rounding / std
    assert_close(found.logp_N.double(), expected, rtol=2e-5, atol=2e-5)
    # two states, whatever number of samples left them; the empty prompt only where it is needed
    assert calls.rows == [2 if scale == 1 else 4]


def test_samples_of_a_state_share_its_mean_exactly():
    """A network whose answer depends on its row would tell two passes apart."""
    process = PROCESSES["epsilon"]
    state = State(random(*SHAPE), 501, 451, "red")
    twin = State(state.x_CHW, 501, 451, "red")
    y = random(*SHAPE, seed=3)

    def uneven(model: nn.Module, x: Tensor, t: Tensor, c: Any) -> Tensor:
        return x * torch.arange(1, len(x) + 1).reshape(-1, 1, 1, 1)

    likelihood = TransitionLikelihood(
        guided=GuidedNetwork(process=process, network=uneven, conditions=conditions)
    )
    shared = likelihood.score(Toy(), likelihood.plan([EncodedStep(state, y), EncodedStep(state, y)])).logp_N
    assert shared[0] == shared[1]
    apart = likelihood.score(Toy(), likelihood.plan([EncodedStep(state, y), EncodedStep(twin, y)])).logp_N
    assert apart[0] != apart[1]


@pytest.mark.parametrize("name", ["epsilon", "v_prediction", "flow"])
@pytest.mark.parametrize("drift", [1e-4, 1e-2])
def test_log_ratios_are_precise_enough_for_beta_500(name, drift):
    """Differences of two float32 log-densities against the closed form in float64, at every step of a schedule."""
    shape, process = (4, 16, 16), PROCESSES[name]
    steps = inference_timesteps(SCHEDULERS[name], 20)
    steps = steps[:-1] if name == "flow" else steps
    x, out, by = (random(len(steps), *shape, seed=s, dtype=torch.float64) for s in (1, 2, 3))
    moved = out + drift * by
    states = [State(x[s].float(), *step, str(s)) for s, step in enumerate(steps.tolist())]
    with torch.no_grad():
        reference = transition(process, out, x.float().double(), steps[:, 0], steps[:, 1], 1.0)
        policy = transition(process, moved, x.float().double(), steps[:, 0], steps[:, 1], 1.0)
        y = reference.sample(random(*x.shape, seed=4, dtype=torch.float64)).float()
        exact = log_ratio(policy, reference, y.double())
        items = [EncodedStep(state, y[s]) for s, state in enumerate(states)]
        scores = []
        for output in (moved, out):
            guided = GuidedNetwork(
                process=process,
                network=lambda model, x, t, c, output=output: output.float(),
                conditions=lambda prompts: {"none": torch.zeros(len(prompts))},
            )
            likelihood = TransitionLikelihood(guided=guided)
            scores.append(likelihood.score(Toy(), likelihood.plan(items)).logp_N)
    error = 500 * ((scores[0] - scores[1]).double() - exact).abs()
    assert 500 * exact.abs().max() > 20 * drift
    # 500 times a unit in the last place of a log-density of size 1 to 4; 8e-5 was seen
    assert error.max() < 5e-4, error


def test_guidance_is_part_of_the_policy():
    """Gradients reach both branches, in the proportion 1 - w to w."""
    process = PROCESSES["epsilon"]
    cond, uncond = (random(*SHAPE, seed=s).requires_grad_() for s in (1, 2))
    state = State(random(*SHAPE), 501, 451, "red")
    seen: list[list[str]] = []

    def told(prompts: Any) -> dict[str, Tensor]:
        seen.append(list(prompts))
        return {"given": torch.tensor([float(bool(p)) for p in prompts])}

    def network(model: nn.Module, x: Tensor, t: Tensor, c: Any) -> Tensor:
        given = c["given"].reshape(-1, 1, 1, 1)
        return given * cond + (1 - given) * uncond

    def gradients(scale: float) -> tuple[Tensor | None, Tensor | None]:
        guided = GuidedNetwork(process=process, network=network, conditions=told, scale=scale)
        likelihood = TransitionLikelihood(guided=guided)
        score = likelihood.score(Toy(), likelihood.plan([EncodedStep(state, 2 * state.x_CHW)]))
        return torch.autograd.grad(score.logp_N.sum(), (cond, uncond), allow_unused=True)

    through_cond, through_uncond = gradients(5.0)
    assert through_cond.abs().max() > 1e-3
    assert_close(through_uncond, through_cond * (1 - 5) / 5)
    through_cond, through_uncond = gradients(1.0)
    assert through_cond.abs().max() > 1e-4
    assert through_uncond.abs().max() == 0
    assert seen == [["", "red"], ["red"]]


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("guided_target", [False, True])
def test_gradients_against_differences(name, guided_target):
    model = Toy(dtype=torch.float64)
    items = steps_of(name, torch.float64)
    likelihood = TransitionLikelihood(guided=guided_toy(PROCESSES[name], 3.0)[0], eta=0.9)
    if guided_target:
        kept = {id(i.state): replace(i.state, anchor_CHW=torch.ones_like(i.state.x_CHW)) for i in items}
        items = [EncodedStep(kept[id(i.state)], i.sample_CHW) for i in items]
        likelihood = GuidedTarget(guided=likelihood.guided, eta=0.9)
    weights = torch.tensor([1.0, -2.0, 0.5, -1.5], dtype=torch.float64)

    def loss(a: Tensor, b: Tensor, d: Tensor) -> Tensor:
        called = partial(torch.func.functional_call, model, {"a": a, "b": b, "d": d})
        score = likelihood.score(lambda x, t, c: called((x, t, c)), likelihood.plan(items))
        return (weights * score.logp_N).sum()

    values = tuple(getattr(model, k).detach().clone().requires_grad_() for k in "abd")
    assert torch.autograd.gradcheck(loss, values, atol=1e-7, rtol=1e-5)
    assert all(g.abs().max() > 1e-3 for g in torch.autograd.grad(loss(*values), values))


def test_what_a_score_depends_on():
    guided, _ = guided_toy(PROCESSES["epsilon"], 2.0)
    plain = TransitionLikelihood(guided=guided, eta=1.0)
    item = steps_of("epsilon")[0]
    others = [
        replace(item, sample_CHW=item.sample_CHW + 1),
        *(
            replace(item, state=replace(item.state, **change))
            for change in ({"t": 941}, {"t_prev": 891}, {"prompt": "green"}, {"x_CHW": item.state.x_CHW + 1})
        ),
    ]
    assert len({plain.key(i) for i in [item, *others]}) == 6
    assert plain.key(item) == plain.key(replace(item, state=replace(item.state)))
    target = GuidedTarget(guided=guided)
    variants = [
        plain, replace(plain, eta=0.5), replace(plain, guided=replace(guided, scale=1.0)), target,
        replace(target, grad_scale=1.0), replace(target, temporal_weight="uniform"),
    ]  # fmt: skip
    assert len({json.dumps(v.settings()) for v in variants}) == len(variants)


# ---- golden vectors


def cases(kind: str) -> list[Any]:
    found = [
        case for case in json.loads((DATA / "gradspo.json").read_text()) if case["inputs"]["kind"] == kind
    ]
    assert found
    return [pytest.param(case["inputs"], case["expected"], id=case["name"]) for case in found]


def tensor(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def process_at(abar: dict[int, float]) -> Process:
    """A diffusion process with given abar at some timesteps."""
    table = torch.linspace(0.99, 0.01, 1001, dtype=torch.float64)
    for t, value in abar.items():
        table[t + 1] = value
    return Process("vp", "epsilon", table.sqrt(), (1 - table).sqrt())


class Answer(nn.Module):
    """Gives a fixed prediction, which is its parameter."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)


def answers(process: Process) -> GuidedNetwork:
    return GuidedNetwork(
        process=process,
        network=lambda model, x, t, c: model.output,
        conditions=lambda prompts: {"none": torch.zeros(len(prompts))},
    )


def compare(likelihood: TransitionLikelihood, items: list[EncodedStep], given: Any, loss: StepDPO) -> Any:
    """Log-ratios, losses and the gradient of the mean loss; items are winners, then losers, of distinct states."""
    policy, reference = Answer(tensor(given["eps_theta"])), Answer(tensor(given["eps_ref"]))
    plan = likelihood.plan(items)
    rho_w, rho_l = (
        likelihood.score(policy, plan).logp_N - likelihood.score(reference, plan).logp_N.detach()
    ).chunk(2)
    losses = loss(rho_w, rho_l)
    return rho_w, rho_l, losses, torch.autograd.grad(losses.mean(), policy.output)[0]


def check_against(expected: Any, found: Any) -> None:
    rho_w, rho_l, losses, gradient = found
    for value, name in (
        (rho_w, "log_ratio_w"), (rho_l, "log_ratio_l"), (losses, "loss_per_example"), (gradient, "grad_eps_theta"),
    ):  # fmt: skip
        assert_close(value.detach(), tensor(expected[name]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("given", "expected"), cases("gradspo_full"))
def test_gradspo_vectors(given, expected):
    best, worst = tensor(given["noise_best"]), tensor(given["noise_worst"])
    anchors = tensor(given["eps_ema"])
    n_w, n_l = ((best - worst) / 2, (worst - best) / 2) if given["average_noise"] else (best, worst)
    process = process_at(dict(zip(given["timesteps"], given["alphas_cumprod_t"], strict=True)))
    states = [
        State(torch.zeros_like(anchor), t, 0, str(p), anchor)
        for p, (t, anchor) in enumerate(zip(given["timesteps"], anchors, strict=True))
    ]
    items = [EncodedStep(s, n) for side in (n_w, n_l) for s, n in zip(states, side, strict=True)]
    likelihood = GuidedTarget(
        guided=answers(process),
        grad_scale=given["grad_scale"],
        temporal_weight=given["temporal_weight"],
    )
    loss = StepDPO(beta=given["beta"], clip_eps=given["clip_eps"])
    check_against(expected, compare(likelihood, items, given, loss))


@pytest.mark.parametrize(("given", "expected"), cases("spo_baseline"))
def test_spo_vectors(given, expected):
    ends = [t - 1 for t in given["timesteps"]]
    abar = dict(zip(given["timesteps"], given["alphas_cumprod_t"], strict=True))
    abar |= dict(zip(ends, given["alphas_cumprod_prev"], strict=True))
    states = [
        State(x, t, end, str(p))
        for p, (x, t, end) in enumerate(zip(tensor(given["x_t"]), given["timesteps"], ends, strict=True))
    ]
    items = [
        EncodedStep(s, y)
        for side in ("x_prev_best", "x_prev_worst")
        for s, y in zip(states, tensor(given[side]), strict=True)
    ]
    likelihood = TransitionLikelihood(guided=answers(process_at(abar)), eta=given["eta"])
    loss = StepDPO(beta=given["beta"], clip_eps=given["clip_eps"])
    check_against(expected, compare(likelihood, items, given, loss))


# ---- guided targets


def both_ways(name: str, likelihood: GuidedTarget, half: bool, anchor_seed: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient of the toy, from directions: half the difference of both noises, or each noise."""
    policy, reference = Toy(0, torch.float64), Toy(1, torch.float64)
    items: list[EncodedStep] = []
    for place, (t, t_prev) in enumerate(TIMES[name]):
        anchor = random(*SHAPE, seed=anchor_seed + place, dtype=torch.float64)
        state = State(random(*SHAPE, seed=place, dtype=torch.float64), t, t_prev, "red", anchor)
        z_w, z_l = (random(*SHAPE, seed=10 * place + k, dtype=torch.float64) for k in (11, 12))
        pair = ((z_w - z_l) / 2, (z_l - z_w) / 2) if half else (z_w, z_l)
        items += [EncodedStep(state, n) for n in pair]
    return loss_of(likelihood, policy, reference, items)


def loss_of(likelihood: Any, policy: Toy, reference: Toy, items: list[EncodedStep]) -> tuple[Tensor, Tensor]:
    plan = likelihood.plan(items)
    rho = likelihood.score(policy, plan).logp_N - likelihood.score(reference, plan).logp_N.detach()
    loss = OPEN(rho[0::2], rho[1::2])
    return loss.detach(), torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss.sum(), list(policy.parameters()))]
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_without_a_clip_it_is_spo_with_another_time_weight(name):
    """g = 1 and SPO's weight give SPO's loss and gradient; anchor and averaging of the noise cancel."""
    guided, _ = guided_toy(PROCESSES[name], 3.0)
    policy, reference = Toy(0, torch.float64), Toy(1, torch.float64)
    spo = TransitionLikelihood(guided=guided, eta=0.9)
    items: list[EncodedStep] = []
    for place, (t, t_prev) in enumerate(TIMES[name]):
        state = State(random(*SHAPE, seed=place, dtype=torch.float64), t, t_prev, "red")
        plan = spo.plan([EncodedStep(state, state.x_CHW)])
        # candidates of a third model: the averaged one, say
        sampler = Toy(2, torch.float64)
        with torch.no_grad():
            output = guided(sampler, plan.x_PCHW, plan.t_P, plan.conditions)
            step = transition(guided.process, output, plan.x_PCHW, plan.t_P, plan.t_prev_P, 0.9)
            noises = [random(1, *SHAPE, seed=10 * place + k, dtype=torch.float64) for k in (11, 12)]
            items += [EncodedStep(state, step.sample(z)[0]) for z in noises]
    expected = loss_of(spo, policy, reference, items)
    target = GuidedTarget(guided=guided, eta=0.9, grad_scale=1.0, temporal_weight="spo")
    for half in (True, False):
        for anchor_seed in (40, 50):
            found = both_ways(name, target, half, anchor_seed)
            assert_close(found, expected, rtol=1e-9, atol=1e-11)
    other = both_ways(name, replace(target, temporal_weight="uniform"), True, 40)
    assert (other[0] - expected[0]).abs().max() > 1e-3


def test_the_live_anchor_is_asked_once_and_has_no_gradient():
    guided, calls = guided_toy(PROCESSES["epsilon"])
    anchors: list[Tensor] = []

    def anchor(model: nn.Module, plan: StepPlan) -> Tensor:
        anchors.append(predicted_noise(guided, model, plan))
        return anchors[-1]

    likelihood = GuidedTarget(guided=guided, anchor=anchor)
    policy, reference = Toy(0), Toy(1)
    plan = likelihood.plan(steps_of("epsilon"))
    rho = likelihood.score(policy, plan).logp_N
    likelihood.score(reference, plan)  # the same anchor for both
    assert len(anchors) == 1
    assert not anchors[0].requires_grad
    assert len(calls.rows) == 3
    # the policy sits on its own anchor: what is left is the direction's length
    k = 0.5 * PROCESSES["epsilon"].sigma(plan.t_P)[plan.state_N]
    assert_close(rho.double(), -k.square() * plan.sample_NCHW.double().square().flatten(1).mean(1))
    with pytest.raises(ValueError, match="no anchor"):
        replace(likelihood, anchor=None).score(policy, likelihood.plan(steps_of("epsilon")))


# ---- reward models


class Store:
    """Latents that are all zero: what is left is the noise."""

    shape = SHAPE
    identity: ClassVar = {"store": "zeros"}

    def latents(self, keys: Any) -> tuple[Tensor, Tensor]:
        zero = torch.zeros(len(keys), *SHAPE)
        return zero, zero


TIMESTEPS = (951, 501, 51)


def pair(name: str) -> Encoded[EncodedLatent]:
    items = tuple(EncodedLatent(f"{name}{k}", name, (8, 8, 0, 0, 8, 8)) for k in (0, 1))
    return Encoded(name, items, (Comparison(0, 1),))


def rewards(**options: Any) -> RewardLikelihood:
    store: Any = Store()
    return RewardLikelihood(
        process=PROCESSES["epsilon"], store=store, timesteps_S=torch.tensor(TIMESTEPS), **options
    )


def noise_of(likelihood: RewardLikelihood, name: str, epoch: int) -> tuple[Tensor, Tensor]:
    """Timesteps and noise of a pair, read off the noised zeros."""
    plan = likelihood.plan(likelihood.at(pair(name), epoch).items)
    return plan.t_N, plan.x_NCHW / likelihood.process.sigma(plan.t_N).float().reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("shared", [False, True])
def test_both_images_of_a_pair_are_at_one_noise_level(shared):
    likelihood = rewards(shared_noise=shared)
    counts: Counter[int] = Counter()
    everything = []
    for n in range(120):
        t_N, noise_NCHW = noise_of(likelihood, f"row {n}", 0)
        assert t_N[0] == t_N[1]
        assert torch.equal(noise_NCHW[0], noise_NCHW[1]) == shared
        counts[int(t_N[0])] += 1
        everything.append(noise_NCHW)
    assert set(counts) == set(TIMESTEPS)
    assert min(counts.values()) > 20  # 40 expected, deviation 5
    noise = torch.stack(everything)
    assert abs(noise.mean()) < 0.08  # deviation 0.019, or 0.026 where shared
    assert abs(noise.std() - 1) < 0.08
    together = (noise[:, 0] * noise[:, 1]).mean()
    assert abs(together - float(shared)) < 0.15


def test_noise_of_rewards_is_fresh_every_epoch_and_fixed_in_evaluations():
    likelihood = rewards()
    (t, first), (_, second) = (noise_of(likelihood, "row", epoch) for epoch in (0, 1))
    assert not torch.equal(first, second)
    repeated = [noise_of(rewards(noise_epochs=2), "row", epoch)[1] for epoch in (0, 1, 2)]
    assert [torch.equal(first, noise) for noise in repeated] == [True, False, True]
    once, again = (noise_of(likelihood, "row", -1) for _ in range(2))
    assert torch.equal(once[1], again[1])
    assert not torch.equal(once[1], first)
    # whatever else is in the batch
    items = [i for name in ("other", "row") for i in likelihood.at(pair(name), 0).items]
    plan = likelihood.plan(items)
    assert torch.equal(plan.t_N[2:], t)
    assert plan.prompts == ["other", "other", "row", "row"]
    assert_close(plan.x_NCHW[2:] / likelihood.process.sigma(t).float().reshape(-1, 1, 1, 1), first)
    # an evaluation at a level of its own, with the same noise
    fixed = likelihood.plan_at(likelihood.at(pair("row"), -1).items, 951)
    assert fixed.t_N.tolist() == [951, 951]
    assert_close(fixed.x_NCHW, once[1] * likelihood.process.sigma(fixed.t_N).float().reshape(-1, 1, 1, 1))


def test_rewards_are_the_models_scores():
    likelihood = rewards()
    plan = likelihood.plan(likelihood.at(pair("row"), 0).items)
    factor = torch.ones((), requires_grad=True)
    model: Any = lambda x, t, prompts: factor * x.mean((1, 2, 3)) + t / 1000  # noqa: E731
    scores = likelihood.score(model, plan).logp_NL
    assert_close(scores[:, 0].detach(), plan.x_NCHW.mean((1, 2, 3)) + plan.t_N / 1000)
    assert torch.autograd.grad(scores.sum(), factor)[0] == plan.x_NCHW.mean((1, 2, 3)).sum()
    keys = [rewards().settings(), rewards(shared_noise=True).settings()]
    assert keys[0] != keys[1]
