"""The vector world, and GradSPO's experiments on it, against closed forms and constructed cases."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from prefopt.reproduce.core import Reproduction
from prefopt.reproduce.gradspo import rewards as gradspo_rewards
from prefopt.reproduce.gradspo import weights as gradspo_weights
from prefopt.reproduce.gradspo.direction import claims as direction_claims
from prefopt.reproduce.gradspo.direction import direction, expected_range
from prefopt.reproduce.gradspo.rewards import CURVE, RATES, VARIANTS, rates_of
from prefopt.reproduce.gradspo.train import GRADSPO, SPO, Run, StepLog, train
from prefopt.reproduce.gradspo.weights import time_weights, unclipped
from prefopt.reproduce.gradspo.world import (
    MEAN,
    QUICK,
    SHAPE,
    STD,
    TOLD,
    Measured,
    Reward,
    Size,
    clean_samples,
    make_world,
    measure,
)

SHORT = Size(pretrain_steps=250, states=24, rounds=2, prompts=16, test_samples=64)


@pytest.fixture(scope="module")
def world():
    return make_world(0, SHORT)


@pytest.fixture(scope="module")
def ddim():
    """Coefficients of some of the 20 steps, computed elsewhere."""
    cases = json.loads((Path(__file__).parents[1] / "data/gradspo.json").read_text())
    (case,) = [c for c in cases if c["inputs"]["kind"] == "ddim_coefficients"]
    return case["inputs"]["timesteps"], case["expected"]


class Exact(nn.Module):
    """The noise expected under the mixture, which is linear in x_t, plus a constant."""

    def __init__(self, process, shift=0.0):
        super().__init__()
        self.process = process
        self.shift = nn.Parameter(torch.tensor(shift), requires_grad=False)

    def forward(self, x, t_B, prompt_B):
        mean = torch.zeros(len(x), *SHAPE)
        for b, k in enumerate(prompt_B.tolist()):
            mean[b, 2 * k : 2 * k + 2] = MEAN
        alpha, sigma = (
            c.float().view(-1, 1, 1, 1) for c in (self.process.alpha(t_B), self.process.sigma(t_B))
        )
        return sigma * (x - alpha * mean) / ((alpha * STD) ** 2 + sigma**2) + self.shift


# -- the world -----------------------------------------------------------------------------------------------


def test_reward_by_hand():
    w = torch.zeros(SHAPE[0])
    w[10] = 1.0
    x = torch.zeros(2, *SHAPE)
    x[0, :TOLD] = 7.0  # what a prompt tells costs nothing
    x[1, 10] = 2.0
    assert Reward(w).of(x).tolist() == pytest.approx([-4.0, -0.6 * 4 / 24])


def test_pretraining_learns_the_noise_of_the_mixture(world):
    generator = torch.Generator().manual_seed(3)
    for t in (901, 501, 201):
        prompt_B, x0 = clean_samples(256, generator)
        t_B = torch.full((256,), t)
        x = world.process.add_noise(x0, torch.randn(x0.shape, generator=generator), t_B)
        ideal = Exact(world.process)(x, t_B, prompt_B)
        error = (world.reference(x, t_B, prompt_B) - ideal).square().mean()
        assert float(error) < 0.1 * float(ideal.square().mean()), t


def test_worlds_differ_by_seed_alone():
    world, again, other = make_world(0, QUICK), make_world(0, QUICK), make_world(1, QUICK)
    assert torch.equal(world.reward.w_D, again.reward.w_D)
    for a, b in zip(world.reference.parameters(), again.reference.parameters(), strict=True):
        assert torch.equal(a, b)
    assert abs(float(world.reward.w_D @ other.reward.w_D)) < 0.9
    assert float(world.reward.w_D.norm()) == pytest.approx(1.0)
    assert not world.reward.w_D[:TOLD].any()


def test_drift_is_the_path_kl_of_a_constant_shift(world, ddim):
    # a prediction shifted by c moves every mean by b_t c: KL = D sum_t (b_t c)^2 / (2 sigma_t^2), here by the
    # weights |b_t| / sigma_t, of which those of seven steps were computed elsewhere (from float64 betas: diffusers'
    # table is float32)
    exact = replace(world, reference=Exact(world.process))
    assert measure(exact, exact.reference, 8).drift == 0.0
    abar = (world.process.alpha_table[1:] ** 2).tolist()
    total = 0.0
    timesteps, expected = ddim
    for t in range(951, 0, -50):
        a, b = abar[t], abar[max(t - 50, 0)]
        var = (1 - b) / (1 - a) * (1 - a / b)
        slope = math.sqrt(1 - b - var) - math.sqrt(b / a) * math.sqrt(1 - a)
        if t in timesteps:
            assert -slope / math.sqrt(var) == pytest.approx(
                expected["spo_weight"][timesteps.index(t)], rel=1e-4
            )
        total += SHAPE[0] * (0.1 * slope) ** 2 / (2 * var)
    assert measure(exact, Exact(world.process, 0.1), 8).drift == pytest.approx(total, rel=1e-4)


# -- E1 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "value"), [(2, 2 / math.sqrt(math.pi)), (3, 3 / math.sqrt(math.pi)), (5, 2.32593)]
)
def test_expected_range_of_normals(k, value):
    assert expected_range(k) == pytest.approx(value, rel=1e-5)


def test_direction_has_the_expected_length_where_the_model_is_linear(world):
    exact = replace(world, reference=Exact(world.process))
    found = direction(exact, 4, states=64)
    assert len(found.along) == 20
    # about 1,280 states: standard error 0.025
    assert sum(found.along) / 20 == pytest.approx(expected_range(4), abs=0.1)
    assert min(found.along) > 1.5
    assert sum(found.half_off) / sum(found.best_off) == pytest.approx(0.5, abs=0.03)
    assert sum(found.best_off) / 20 == pytest.approx(1.0, abs=0.05)
    verdicts = [c.verdict for c in direction_claims({4: [found, found]})]
    assert verdicts == ["holds"] * 6


# -- E2 ------------------------------------------------------------------------------------------------------


def test_time_weights_are_those_computed_elsewhere(world, ddim):
    timesteps, expected = ddim
    weights = time_weights(world)
    compared = list(range(751, 0, -50))
    for s, t in enumerate(compared):
        if t in timesteps:
            i = timesteps.index(t)
            assert weights["SPO"][s] == pytest.approx(expected["spo_weight"][i], rel=1e-4)
            assert weights["GradSPO"][s] == pytest.approx(expected["gradspo_weight_g_half"][i], rel=1e-4)
    assert len(weights["SPO"]) == len(compared)


def test_without_a_clip_the_methods_differ_by_time_weights_alone(world):
    assert max(unclipped(world, 8).values()) < 1e-3


def test_a_run_counts_what_the_clip_silences(world):
    tight, none = (train(world, replace(GRADSPO, clip_eps=eps), 1e-3, QUICK).by_step for eps in (1e-5, None))
    assert sum(s.clipped for s in tight.values()) > 0
    for step in tight.values():
        assert 2 * step.clipped <= step.sides <= step.clipped + step.pairs
    assert sum(s.clipped for s in none.values()) == 0
    assert all(s.gradient > 0 for s in none.values() if s.pairs)


def test_first_pull_is_that_of_the_algebra(world):
    # at the reference: |gradient| = beta k_t / D |e_best - e_worst|, and |e_best - e_worst|^2 is about 2 D
    size = replace(QUICK, rounds=1, prompts=2)
    for t, step in train(world, GRADSPO, 0.0, size).by_step.items():
        if step.pairs:
            k = 0.5 * float(world.process.sigma(torch.tensor([t])))
            assert step.gradient / step.pairs == pytest.approx(10 * k / 32 * 8.0, rel=0.35), t


# -- E3, E4 --------------------------------------------------------------------------------------------------


def test_training_raises_the_reward_and_repeats_itself(world):
    start = measure(world, world.reference, SHORT.test_samples)
    for variant in (SPO, GRADSPO):
        run = train(world, variant, 1e-4, SHORT)
        assert run.measured.reward > start.reward + 0.1
        assert run.measured.drift > 0
        assert run.fall >= 0
        assert len(run.by_round) == SHORT.rounds
        assert run.updates >= 2
    assert train(world, GRADSPO, 1e-4, SHORT) == run
    assert train(world, replace(GRADSPO, sampler="online"), 1e-4, SHORT) != run


def run_of(reward, drift, *, distance=1.0, fall=0.1, clipped=0, late=1.0):
    steps = {t: StepLog(10, float(clipped), gradient=1.0) for t in (301, 251, 201, 151, 101, 51, 1)}
    for t in (151, 101, 51, 1):
        steps[t].gradient = late
    return Run(Measured(reward, drift, distance), (reward + fall, reward), 80, steps)


def constructed(gain, seeds=3):
    """Runs in which GradSPO's reward is better by about `gain` at every learning rate, and drifts alike."""

    def by_rate(name):
        better = gain if name in ("GradSPO", "SPO, average sampler") else 0.0
        heights = dict(zip(RATES, (-2.0, -1.0, -0.7, -0.5, -9.0), strict=True))
        return {
            rate: [
                run_of(
                    heights[rate] + better + 0.005 * s * (1 if better else -1),
                    10.0 * (i + 1) + s,
                    distance=2.0 - better + 0.01 * s,
                    fall=0.4 - better / 4 + 0.002 * s * bool(better),
                    clipped=(2 + s % 2) * (name == "SPO") if gain > 0 else (2 + s % 2) * (name != "SPO"),
                    late=1.0 + 0.1 * better * (1 + 0.1 * s),
                )
                for s in range(seeds)
            ]
            for i, rate in enumerate(rates_of(name))
        }

    return {name: by_rate(name) for name in VARIANTS}


@pytest.mark.parametrize(("gain", "verdict"), [(0.2, "holds"), (-0.2, "does not hold here")])
def test_claims_follow_the_numbers_both_ways(gain, verdict):
    runs = constructed(gain)
    start = [Measured(-4.0, 0.0, 1.0)] * 3
    about_method = [
        c
        for c in gradspo_rewards.reward_claims(runs, start) + gradspo_rewards.ablation_claims(runs)
        if "both" not in c.statement and "changes nothing" not in c.statement
    ]
    assert len(about_method) == 22
    assert {c.verdict for c in about_method} == {verdict}, [
        (c.statement, c.verdict) for c in about_method if c.verdict != verdict
    ]
    of_clip_and_pull = gradspo_weights.claims(
        runs, [{"weights": 0, "noise": 0, "anchor": 0}], (CURVE[0], CURVE[-1])
    )
    assert {c.verdict for c in of_clip_and_pull[3:]} == {verdict}
    exact = [c.verdict for c in gradspo_rewards.ablation_claims(runs) if "changes nothing" in c.statement]
    assert (
        exact == ["holds"] * 2 + ["does not hold here"] * 2
    )  # constructed: the gain is there with a clip alone


def test_learning_rate_is_chosen_on_the_other_seeds():
    # seed 0 alone likes 1e-4: it is judged at the rate that the others like, and they at one that it has a say in
    by_rate = {
        3e-5: [run_of(-1.0, 1.0), run_of(-0.5, 1.0), run_of(-0.5, 1.0)],
        1e-4: [run_of(-0.1, 2.0), run_of(-0.7, 2.0), run_of(-0.7, 2.0)],
    }
    assert gradspo_rewards.best_rates(by_rate) == [3e-5, 1e-4, 1e-4]
    assert [r.measured.reward for r in gradspo_rewards.at_best(by_rate)] == [-1.0, -0.7, -0.7]
    assert gradspo_rewards.best_rates({1e-5: [run_of(-1.0, 1.0)], 1e-4: [run_of(-2.0, 1.0)]}) == [1e-5]


def test_paper_is_named_by_where_it_is():
    assert Reproduction("a", "", "2409.17431").published == "arXiv 2409.17431"
    assert Reproduction("a", "", "d6lIOnvOX2").published == "OpenReview d6lIOnvOX2"
