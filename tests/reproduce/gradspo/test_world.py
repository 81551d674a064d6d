"""The vector world: rewards, pretraining and drift against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prefopt.reproduce.gradspo.world import (
    QUICK,
    SHAPE,
    TOLD,
    Reward,
    clean_samples,
    make_world,
    measure,
)
from reproduce.gradspo.vector_rig import Exact


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
