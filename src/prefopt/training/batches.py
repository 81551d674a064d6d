"""From a batch of encoded examples to the sides that an objective sees.

Legend: N items, E comparisons, L longest completion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prefopt.comparisons import Batch, Edges
from prefopt.likelihoods.base import ItemScores, Likelihood
from prefopt.objectives.base import Objective, Sides
from prefopt.references import Reference


class Scored(NamedTuple):
    """A batch under policy and reference."""

    sides: Sides
    edges: Edges
    """On the device."""
    width: int
    """Of its items, summed (tokens)."""
    auxiliary: Tensor | None
    """A loss of the model's own, see `ItemScores`."""


@dataclass
class Scorer:
    """Scores batches under policy and reference.

    Attributes:
        likelihood: plans and scores.
        reference: gives the other half of every log-ratio.
        objective: decides which extras are computed.
        device: where the model is.
        measures: extras that are computed for metrics, whatever the objective reads.
    """

    likelihood: Likelihood
    reference: Reference
    objective: Objective
    device: torch.device
    measures: frozenset[str] = frozenset()

    def sides(self, model: nn.Module, batch: Batch[Any]) -> Scored:
        """Both sides of every comparison of the batch, and what else the loop must know of it."""
        plan = self.likelihood.plan(batch.items).to(self.device)
        scores = self.likelihood.score(model, plan, extras=self.objective.needs | self.measures)
        reference_NL = self.reference.scores(batch.items, plan)
        edges = batch.edges.to(self.device)
        mismatched_E = None
        if "rho_mismatched" in self.objective.needs:
            mismatched_E = self._log_ratios_aside(model, batch.aside)
        sides = join(scores, reference_NL, edges, self.objective, mismatched_E)
        return Scored(sides, edges, sum(map(self.likelihood.width, batch.items)), scores.auxiliary)

    @torch.no_grad()
    def _log_ratios_aside(self, model: nn.Module, items: list[Any]) -> Tensor:
        plan = self.likelihood.plan(items).to(self.device)
        logp_NL = self.likelihood.score(model, plan).logp_NL
        reference_NL = self.reference.scores(items, plan)
        return (logp_NL if reference_NL is None else logp_NL - reference_NL).sum(-1)


def join(
    scores: ItemScores,
    reference_NL: Tensor | None,
    edges: Edges,
    objective: Objective,
    mismatched_E: Tensor | None = None,
) -> Sides:
    """Gather per-item scores at the two ends of every edge.

    Args:
        scores: the policy's.
        reference_NL: (N, L) per-token reference log-probabilities, None for none.
        edges: on the same device.
        objective: extras beyond sums and lengths are gathered only if it needs them.
        mismatched_E: (E,) log-ratios of mismatched completions.
    """
    rho_NL = scores.logp_NL if reference_NL is None else scores.logp_NL - reference_NL
    rho_N, logp_N = rho_NL.sum(-1), scores.logp_N
    first, second = edges.first_E, edges.second_E
    paired = not objective.unpaired and not edges.singles

    def ends(value_N: Tensor) -> tuple[Tensor, Tensor | None]:
        return value_N[first], value_N[second] if paired else None

    rho_w, rho_l = ends(rho_N)
    logp_w, logp_l = ends(logp_N)
    length_w, length_l = ends(scores.length_N.to(rho_N.dtype))
    extras: dict[str, Tensor | None] = {}
    if "rho_tokens" in objective.needs:
        extras["rho_tokens_w"], extras["rho_tokens_l"] = ends(rho_NL)
    for name in ("log_p2", "entropy", "top1", "logp_own", "consistency", "seen"):
        value_N = getattr(scores, f"{name}_N")
        if value_N is not None:
            extras[f"{name}_w"], extras[f"{name}_l"] = ends(value_N)
    return Sides(
        rho_w=rho_w,
        rho_l=torch.zeros_like(rho_w) if rho_l is None else rho_l,
        logp_w=logp_w,
        logp_l=logp_l,
        length_w=length_w,
        length_l=length_l,
        rho_mismatched=mismatched_E,
        columns=edges.columns,
        **extras,
    )
