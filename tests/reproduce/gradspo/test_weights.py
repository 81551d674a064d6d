"""E2: time weights, the clip, and the algebra behind them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from prefopt.reproduce.gradspo.train import GRADSPO, train
from prefopt.reproduce.gradspo.weights import time_weights, unclipped
from prefopt.reproduce.gradspo.world import (
    QUICK,
)


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
