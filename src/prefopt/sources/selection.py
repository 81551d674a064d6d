"""Which of several samples is the loser, how like the winner the samples are, and what counts as good: numbers in, numbers out.

Source: SoPo (arXiv 2412.05095), eq. 10 to 14 and Algorithm 1, where it and the released code agree.

Legend: B conditions, K samples of each, E width of an embedding.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Similarity = Literal["cosine_01", "cosine", "none"]
"""(cos + 1) / 2 as in the released code, the cosine as printed, or 0."""
ZERO_NORM = 1e-8
"""Embeddings shorter than this have no direction: their cosine is 0."""


class Selected(NamedTuple):
    """What became of K samples, (B,) each."""

    worst_B: Tensor
    """int64; of equal ones the first."""
    best_B: Tensor
    worst_reward_B: Tensor
    best_reward_B: Tensor


def select(reward_KB: Tensor) -> Selected:
    """The worst and the best of K samples by their rewards.

    Raises:
        ValueError: a reward that is no number, which a minimum would choose without a word.

    Example:
        >>> select(torch.tensor([[0.4, 0.3], [0.2, 0.3], [0.2, 0.3]])).worst_B.tolist()
        [1, 0]
    """
    check_finite("the reward", reward_KB)
    # argmin of torch does not say which of equal ones it takes
    worst_B = (reward_KB == reward_KB.min(0).values).int().argmax(0)
    best_B = (reward_KB == reward_KB.max(0).values).int().argmax(0)
    of_B = torch.arange(reward_KB.shape[1], device=reward_KB.device)
    return Selected(worst_B, best_B, reward_KB[worst_B, of_B], reward_KB[best_B, of_B])


def min_similarity(chosen_BE: Tensor, sample_KBE: Tensor, kind: Similarity = "cosine_01") -> Tensor:
    """(B,) S = min_k sim(g(x_w), g(x^k)), over all K samples and not the loser alone.

    Args:
        chosen_BE: embeddings of the winners.
        sample_KBE: embeddings of the samples.
        kind: of similarity.

    Raises:
        ValueError: embeddings that are no numbers.
    """
    check_finite("the embedding", chosen_BE)
    check_finite("the embedding", sample_KBE)
    if kind == "none":
        return chosen_BE.new_zeros(len(chosen_BE))
    least_B = cosine(chosen_BE, sample_KBE).min(0).values
    return (least_B + 1) / 2 if kind == "cosine_01" else least_B


def cosine(a_E: Tensor, b_E: Tensor) -> Tensor:
    """(...) cosines of the last axis; 0 where one has no direction."""
    length = a_E.norm(dim=-1) * b_E.norm(dim=-1)
    there = (a_E.norm(dim=-1) > ZERO_NORM) & (b_E.norm(dim=-1) > ZERO_NORM)
    return torch.where(there, (a_E * b_E).sum(-1) / length.clamp(min=ZERO_NORM**2), 0.0)


def quantile(reward_N: Tensor, q: float) -> float:
    """The q-quantile of rewards, linear between neighbours: tau where a share q of losers is to be kept.

    Example:
        >>> quantile(torch.tensor([0.1, 0.3, 0.2]), 0.5)
        0.20000000298023224
    """
    check_finite("the reward", reward_N)
    if not 0 <= q <= 1:
        raise ValueError(f"a quantile lies in [0, 1]; given {q}")
    return float(reward_N.quantile(q))


def check_finite(what: str, value: Tensor) -> None:
    """Raise ValueError where something is no number, saying where."""
    finite = value.isfinite()
    if not bool(finite.all()):
        where = (~finite).nonzero()[:3].tolist()
        raise ValueError(f"{what} of samples is not finite at {where} of {tuple(value.shape)}")
