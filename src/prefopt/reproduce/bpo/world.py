"""The small world behind `prefopt reproduce bpo`: pairs labelled by a Bradley-Terry judge, noisier as rewards shrink.

Shapes: S seeds, N prompts, K candidates, D features, E comparisons a seed (one a prompt).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from prefopt.reproduce.loglinear import Candidates, Pairs


@dataclass(frozen=True, slots=True)
class NoisyPairs:
    """Training and test prompts, each with one labelled pair."""

    train: Candidates
    test: Candidates
    pairs: Pairs
    test_pairs: Pairs


def noisy_pairs(
    seeds: range,
    prompts: int,
    *,
    scale: float,
    candidates: int = 8,
    features: int = 60,
    test_prompts: int = 500,
    dtype: torch.dtype = torch.float32,
) -> NoisyPairs:
    """One pair of different candidates a prompt, winner drawn with P(a > b) = sigma(r_a - r_b).

    The reward is linear in the features, with standard deviation `scale`: 3 gives weak label noise, 1 strong.
    """
    worlds = [one_world(seed, prompts, candidates, features, test_prompts, scale, dtype) for seed in seeds]

    def side(i: int, count: int) -> tuple[Candidates, Pairs]:
        phi, reward, winner, loser = (torch.stack([w[i][k] for w in worlds]) for k in range(4))
        uniform = torch.full_like(reward, -math.log(candidates))
        prompt_SN = torch.arange(count).expand(len(seeds), count)
        ties_SN = torch.zeros(len(seeds), count, dtype=torch.bool)
        return Candidates(phi, reward, uniform), Pairs(prompt_SN, winner, loser, ties_SN)

    train, pairs = side(0, prompts)
    test, test_pairs = side(1, test_prompts)
    return NoisyPairs(train, test, pairs, test_pairs)


def one_world(
    seed: int,
    prompts: int,
    candidates: int,
    features: int,
    test_prompts: int,
    scale: float,
    dtype: torch.dtype,
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Features, rewards, winners and losers of the training prompts, then of the test prompts."""
    generator = torch.Generator().manual_seed(seed)
    direction_D = torch.randn(features, generator=generator, dtype=dtype)
    direction_D = scale * direction_D / direction_D.norm()
    sides = []
    for count in (prompts, test_prompts):
        phi_NKD = torch.randn(count, candidates, features, generator=generator, dtype=dtype)
        reward_NK = phi_NKD @ direction_D
        pair_N2 = torch.rand(count, candidates, generator=generator).argsort(-1)[:, :2]
        reward_N2 = reward_NK.gather(-1, pair_N2)
        first_wins_N = torch.rand(count, generator=generator) < torch.sigmoid(
            reward_N2[:, 0] - reward_N2[:, 1]
        )
        winner_N = torch.where(first_wins_N, pair_N2[:, 0], pair_N2[:, 1])
        sides.append((phi_NKD, reward_NK, winner_N, pair_N2.sum(-1) - winner_N))
    return sides
