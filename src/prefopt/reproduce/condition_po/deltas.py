"""How clearly a model tells the two sides of a comparison apart, at each noise level: Delta, its spread, its sign.

    Delta = l_w - l_l       l = mean squared denoising error; both sides share timestep, noise and prompt

Below 0 where the winner explains the noise better. The paper's claim of variance is about this number (arXiv 2511.04753).

Legend: E comparisons, T timesteps, N items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded, collate
from prefopt.likelihoods.denoising import DenoisingLikelihood


class Contrast(NamedTuple):
    """Delta at one timestep over many comparisons."""

    timestep: int
    mean: float
    std: float
    """Over comparisons and noise."""
    snr: float
    """|mean| / std."""
    accuracy: float
    """Share of comparisons with Delta below 0."""


@torch.no_grad()
def deltas(
    likelihood: DenoisingLikelihood,
    model: nn.Module,
    examples: Sequence[Encoded[Any]],
    timesteps: Sequence[int],
    *,
    draws: int = 1,
    batch_size: int = 32,
) -> Tensor:
    """(T, draws x E) float64 Delta of every comparison.

    Args:
        likelihood: gives errors; their weight by timestep is left out.
        model: base network and ControlNet.
        examples: pairs, not yet at an epoch.
        timesteps: of training, as the scheduler counts them.
        draws: of noise, each comparison.
        batch_size: comparisons at a time.
    """
    likelihood = replace(likelihood, weight="constant")
    device = next(model.parameters()).device
    found: list[Tensor] = []
    for draw in range(draws):
        for start in range(0, len(examples), batch_size):
            # epochs below 0 are evaluations: no prompt is dropped, and each has noise of its own
            batch = collate(likelihood.at(e, -1 - draw) for e in examples[start : start + batch_size])
            plan = likelihood.plan(batch.items).to(device)
            scores_TN = torch.stack([likelihood.score(model, plan.at(t)).logp_N for t in timesteps]).double()
            edges = batch.edges.to(device)
            found.append((scores_TN[:, edges.second_E] - scores_TN[:, edges.first_E]).cpu())
    return torch.cat(found, 1)


def contrasts(delta_TE: Tensor, timesteps: Sequence[int]) -> list[Contrast]:
    """What `deltas` found, a line a timestep.

    >>> contrasts(torch.tensor([[-1.0, -3.0]]), [50])
    [Contrast(timestep=50, mean=-2.0, std=1.4142135623730951, snr=1.414213562373095, accuracy=1.0)]
    """
    lines = []
    for t, delta_E in zip(timesteps, delta_TE.double(), strict=True):
        mean, std = float(delta_E.mean()), float(delta_E.std())
        right = (delta_E < 0).double() + 0.5 * (delta_E == 0).double()
        lines.append(Contrast(t, mean, std, abs(mean) / std if std > 0 else 0.0, float(right.mean())))
    return lines
