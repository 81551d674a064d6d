"""What is measured of answers: their log-probabilities under a model, and how much they repeat themselves.

The sampled sequence KL, mean of log pi(y|x) - log pi_ref(y|x) over y drawn from the policy at temperature 1, needs
scores of fresh text, so it cannot come from the reference cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood


@torch.no_grad()
def sequence_logps(
    model: nn.Module, likelihood: TokenLikelihood, items: Sequence[EncodedText], batch_size: int = 32
) -> list[float]:
    """log pi(y|x) of each item in nats."""
    device = next(model.parameters()).device
    scores: list[float] = []
    for start in range(0, len(items), batch_size):
        plan = likelihood.plan(items[start : start + batch_size]).to(device)
        scores += likelihood.score(model, plan).logp_N.tolist()
    return scores


def repetition(text: str) -> float:
    """Share of a text's word trigrams that occurred before in it; 0 for short texts."""
    words = text.split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
