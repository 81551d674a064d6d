"""From a batch of encoded examples to the sides that an objective sees.

Legend: N items, E comparisons, L longest completion, K scored tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prefopt.comparisons import Batch, Edges
from prefopt.likelihoods.base import ItemScores, Likelihood
from prefopt.objectives.base import Objective
from prefopt.objectives.sides import Branch, Score, Sides
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
    aux_loss: Tensor | None = None
    """The same without its weight."""


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
        """Both sides of every comparison of the batch, its branches, and what else the loop must know of it."""
        plan = self.likelihood.plan(batch.items).to(self.device)
        scores = self.likelihood.score(model, plan, extras=self.asked)
        known = self.against(batch.items, plan, scores)
        edges = batch.edges.to(self.device)
        aside = self.aside(model, batch.aside) if batch.aside else None
        sides = join(known, edges, self.objective, aside)
        width = sum(map(self.likelihood.width, batch.items))
        return Scored(sides, edges, width, scores.auxiliary, scores.aux_loss)

    @property
    def asked(self) -> frozenset[str]:
        """Extras of the likelihood."""
        needs = self.objective.needs | self.measures
        return needs | {"distribution"} if "kl" in needs else needs

    def against(self, items: Sequence[Any], plan: Any, scores: ItemScores) -> Known:
        """Scores of items, and those of the reference."""
        reference_NL = self.reference.scores(items, plan)
        kl_N = None
        if "kl" in self.objective.needs:
            kl_N = divergence(plan, scores, self.reference.distribution(items, plan))
        return Known(scores, reference_NL, kl_N)

    @torch.no_grad()
    def aside(self, model: nn.Module, items: Sequence[Any]) -> Known:
        """The same of items that no gradient goes through."""
        plan = self.likelihood.plan(items).to(self.device)
        scores = self.likelihood.score(model, plan)
        read = any(branch.reference and not branch.gradient for branch in self.objective.branches.values())
        return Known(scores, self.reference.scores(items, plan) if read else None)


class Known(NamedTuple):
    """Items under policy and reference."""

    scores: ItemScores
    reference_NL: Tensor | None
    """(N, L) per-token reference log-probabilities, None for none."""
    kl_N: Tensor | None = None
    """(N,) divergence from the reference, summed over tokens; where it is asked for."""

    @property
    def rho_NL(self) -> Tensor:
        """(N, L) log-ratios by token."""
        logp_NL = self.scores.logp_NL
        return logp_NL if self.reference_NL is None else logp_NL - self.reference_NL


def divergence(plan: Any, policy: ItemScores, reference_KV: Tensor) -> Tensor:
    """(N,) sum over an item's tokens of KL(pi_ref || pi_theta), nats (TDPO, arXiv 2404.11999, eq. 11)."""
    assert policy.distribution_KV is not None  # asked for
    kl_K = (reference_KV.exp() * (reference_KV - policy.distribution_KV)).sum(-1)
    kl_NL = kl_K.new_zeros(policy.logp_NL.shape)
    return kl_NL.index_put((plan.item_K, plan.offset_K), kl_K).sum(-1)


def join(known: Known, edges: Edges, objective: Objective, aside: Known | None = None) -> Sides:
    """Gather per-item scores at the two ends of every edge, and at its branches.

    Args:
        known: of the batch's items.
        edges: on the same device.
        objective: extras beyond sums and lengths are gathered only if it needs them.
        aside: of items that branches name beyond these.
    """
    scores, rho_NL = known.scores, known.rho_NL
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
    if "logp_tokens" in objective.needs:
        extras["logp_tokens_w"], extras["logp_tokens_l"] = ends(scores.logp_NL)
    if "changed" in objective.needs and scores.changed_NL is not None:
        extras["changed_w"], extras["changed_l"] = ends(scores.changed_NL)
    if known.kl_N is not None:
        extras["kl_w"], extras["kl_l"] = ends(known.kl_N)
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
        branches={
            name: branch_of(name, branch, known, edges, aside) for name, branch in objective.branches.items()
        },
        columns=edges.columns,
        **extras,
    )


def branch_of(name: str, branch: Branch, known: Known, edges: Edges, aside: Known | None) -> Score:
    """A branch of every comparison; raises ValueError where the data carries none of that name."""
    if name not in edges.branches:
        raise ValueError(
            f"these comparisons carry no branch {name!r} ({branch.sample} under the condition {branch.condition!r})"
        )
    place_E = edges.branches[name]
    if not branch.gradient:
        assert aside is not None  # what has no gradient stands there
        known, place_E = aside, place_E - len(known.scores.length_N)
    rho_NL = known.rho_NL if branch.reference else None
    return Score(
        rho=None if rho_NL is None else rho_NL.sum(-1)[place_E],
        logp=known.scores.logp_N[place_E],
        length=known.scores.length_N[place_E].to(known.scores.logp_NL.dtype),
        rho_tokens=None if rho_NL is None else rho_NL[place_E],
    )
