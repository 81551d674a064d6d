"""The small worlds behind `prefopt reproduce ties`: how they are drawn, and how pairs and ties are mined from them.

Shapes: S seeds, N prompts, K candidates, D features, E comparisons a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from prefopt.reproduce.loglinear import Candidates, Pairs


@dataclass(frozen=True, slots=True)
class Mined:
    """Training prompts with their mined pairs, and fresh prompts to measure on."""

    train: Candidates
    test: Candidates
    clear: Pairs
    """Clear preferences (CP)."""
    tied: Pairs
    """Ties (TP)."""


def uniform(seeds: int, prompts: int, candidates: int) -> Tensor:
    """(S, N, K) log of the uniform reference."""
    return torch.full((seeds, prompts, candidates), -math.log(candidates))


def metric_world(
    seeds: range, *, prompts: int = 150, candidates: int = 8, features: int = 40, test_prompts: int = 600
) -> Mined:
    """Candidates with a true utility that few features carry, and a noisy metric that mines the pairs.

    Utility is linear in the first 6 of `features` Gaussian features; the metric is utility + 0.5 N(0, 1). CP = best
    against worst by the metric; TP = neighbours in the metric's ranking with the smallest gap.
    """
    kept = [one_metric_world(seed, prompts, candidates, features, test_prompts) for seed in seeds]
    phi, utility, metric, test_phi, test_utility = (torch.stack(parts) for parts in zip(*kept, strict=True))
    order_SNK = metric.argsort(-1, descending=True)
    ranked_SNK = metric.gather(-1, order_SNK)
    closest_SN1 = (ranked_SNK[..., :-1] - ranked_SNK[..., 1:]).argmin(-1, keepdim=True)
    prompt_SN = torch.arange(prompts).expand(len(seeds), prompts)
    no_SN = torch.zeros(len(seeds), prompts, dtype=torch.bool)
    return Mined(
        train=Candidates(phi, utility, uniform(len(seeds), prompts, candidates)),
        test=Candidates(test_phi, test_utility, uniform(len(seeds), test_prompts, candidates)),
        clear=Pairs(prompt_SN, order_SNK[..., 0], order_SNK[..., -1], no_SN),
        tied=Pairs(
            prompt_SN,
            order_SNK.gather(-1, closest_SN1)[..., 0],
            order_SNK.gather(-1, closest_SN1 + 1)[..., 0],
            ~no_SN,
        ),
    )


def one_metric_world(
    seed: int, prompts: int, candidates: int, features: int, test_prompts: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One seed's features, utilities and metric of training prompts, features and utilities of test prompts."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    direction_D = torch.zeros(features)
    direction_D[:6] = normal(6) / math.sqrt(6)
    phi_NKD, test_NKD = normal(prompts, candidates, features), normal(test_prompts, candidates, features)
    utility_NK = phi_NKD @ direction_D
    return (
        phi_NKD,
        utility_NK,
        utility_NK + 0.5 * normal(prompts, candidates),
        test_NKD,
        test_NKD @ direction_D,
    )


def exam_world(
    seeds: range,
    *,
    difficulty: float,
    prompts: int = 400,
    candidates: int = 8,
    features: int = 40,
    test_prompts: int = 1000,
) -> Mined:
    """Questions with right and wrong answers and a reference that already knows some of the skill.

    `difficulty` is the mean of the questions' difficulties (their standard deviation is 1). A candidate is right (utility 1) where skill . phi exceeds its question's. Eight samples of the
    reference answer each training question: right and wrong ones give a CP of one each; all right give a TP of two
    different right answers; all wrong give nothing. Every seed keeps as many of each kind as the poorest seed has.
    """
    worlds = [one_exam(seed, difficulty, prompts, candidates, features, test_prompts) for seed in seeds]
    clear = [mined for *_, mined, _ in worlds]
    tied = [mined for *_, mined in worlds]

    def stack(parts: list[Tensor], is_tie: bool) -> Pairs:
        shortest = min(len(p) for p in parts)
        if shortest == 0:
            raise ValueError("a seed gave no pair of one kind; use more questions")
        kept_SE3 = torch.stack([p[:shortest] for p in parts])
        prompt_SE, chosen_SE, rejected_SE = kept_SE3.unbind(-1)
        return Pairs(prompt_SE, chosen_SE, rejected_SE, torch.full(kept_SE3.shape[:2], is_tie))

    return Mined(
        train=Candidates(*(torch.stack([w[0][i] for w in worlds]) for i in range(3))),
        test=Candidates(*(torch.stack([w[1][i] for w in worlds]) for i in range(3))),
        clear=stack(clear, False),
        tied=stack(tied, True),
    )


def one_exam(
    seed: int, difficulty: float, prompts: int, candidates: int, features: int, test_prompts: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor, Tensor]:
    """One seed's training questions, test questions, CP and TP as rows (question, chosen, rejected)."""
    generator = torch.Generator().manual_seed(seed)
    skill_D = torch.randn(features, generator=generator) / math.sqrt(features)
    # the reference knows part of the skill, plus habits of its own that do not matter
    habit_D = 1.5 * skill_D + 1.0 * torch.randn(features, generator=generator) / math.sqrt(features)

    def questions(count: int) -> tuple[Tensor, Tensor, Tensor]:
        phi = torch.randn(count, candidates, features, generator=generator)
        threshold = difficulty + torch.randn(count, 1, generator=generator)
        right = (phi @ skill_D > threshold).float()
        return phi, right, (phi @ habit_D).log_softmax(-1)

    train, test = questions(prompts), questions(test_prompts)
    clear, tied = [], []
    samples_N8 = torch.multinomial(train[2].exp(), 8, replacement=True, generator=generator)
    for n, drawn in enumerate(samples_N8):
        right = train[1][n, drawn].bool()
        if right.all():
            different = drawn.unique()
            if len(different) > 1:
                a, b = different[torch.randperm(len(different), generator=generator)[:2]].tolist()
                tied.append((n, a, b))
        elif right.any():
            pick = torch.randint(8, (2,), generator=generator)
            good, bad = drawn[right], drawn[~right]
            clear.append((n, int(good[pick[0] % len(good)]), int(bad[pick[1] % len(bad)])))
    return train, test, torch.tensor(clear).view(-1, 3), torch.tensor(tied).view(-1, 3)
