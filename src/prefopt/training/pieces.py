"""A batch's gradient at the memory of a few of its items: exact, for one more forward pass.

A loss is a function of scores, and margins join scores of different items, so that cutting an example apart would change it.
But the gradient goes through scores one at a time: all items are scored without gradients first, the loss is differentiated
with respect to their scores, and then each piece is scored again and its scores pushed back with these derivatives.

Legend: N items, L longest completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.comparisons import Batch
from prefopt.likelihoods.base import ItemScores
from prefopt.training.batches import Known, Scored, Scorer, join

THROUGH = ("logp_NL", "logp_own_N", "consistency_N")
"""Scores that carry a gradient."""


@dataclass(frozen=True)
class Pieces:
    """Items of a batch in the order in which they are scored, a few at a time.

    Attributes:
        scorer: of the run.
        batch: some examples.
        size: items of a piece.
    """

    scorer: Scorer
    batch: Batch[Any]
    size: int

    @property
    def items(self) -> list[Sequence[Any]]:
        """The pieces."""
        return [self.batch.items[n : n + self.size] for n in range(0, len(self.batch.items), self.size)]

    def scored(self, model: nn.Module, randomness: Any) -> tuple[Scored, dict[str, Tensor]]:
        """The batch's sides as functions of scores that are leaves, and these leaves.

        Args:
            model: the policy.
            randomness: called with a piece's number before it is scored.

        Raises:
            ValueError: the objective or the model has a term that is no function of scores.
        """
        if "kl" in self.scorer.objective.needs:
            raise ValueError("a divergence needs whole distributions: leave per_device_train_batch_items out")
        known: list[Known] = []
        with torch.no_grad():
            for n, items in enumerate(self.items):
                randomness(n)
                plan = self.scorer.likelihood.plan(items).to(self.scorer.device)
                known.append(self.scorer.against(items, plan, self.score(model, plan)))
        scores = joined([one.scores for one in known])
        reference_NL = padded([one.reference_NL for one in known])
        leaves = {
            name: getattr(scores, name).requires_grad_()
            for name in THROUGH
            if getattr(scores, name) is not None
        }
        edges = self.batch.edges.to(self.scorer.device)
        aside = self.scorer.aside(model, self.batch.aside) if self.batch.aside else None
        sides = join(Known(replace(scores, **leaves), reference_NL), edges, self.scorer.objective, aside)
        width = sum(map(self.scorer.likelihood.width, self.batch.items))
        return Scored(sides, edges, width, None), leaves

    def score(self, model: nn.Module, plan: Any) -> ItemScores:
        """Scores of a piece."""
        scores = self.scorer.likelihood.score(model, plan, extras=self.scorer.asked)
        if scores.auxiliary is not None:
            raise ValueError(
                "a loss that balances experts is no function of scores: leave per_device_train_batch_items out, or set "
                "router_aux_loss_coef=0"
            )
        return scores

    def pulled(self, model: nn.Module, number: int, leaves: dict[str, Tensor]) -> Tensor:
        """What to differentiate for one piece: its scores, times the loss's derivatives with respect to them."""
        items = self.items[number]
        plan = self.scorer.likelihood.plan(items).to(self.scorer.device)
        scores = self.score(model, plan)
        start = number * self.size
        total = scores.logp_NL.new_zeros(())
        for name, leaf in leaves.items():
            if leaf.grad is None:
                continue
            value = getattr(scores, name)
            pull = leaf.grad[start : start + len(items)]
            if value.dim() == 2:
                pull = pull[:, : value.shape[1]]
            total = total + (value * pull).sum()
        return total


def joined(parts: Sequence[ItemScores]) -> ItemScores:
    """Scores of several pieces as those of one batch."""
    values: dict[str, Any] = {}
    for f in fields(ItemScores):
        found = [getattr(part, f.name) for part in parts]
        values[f.name] = None if found[0] is None else padded(found)
    return ItemScores(**values)


def padded(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Tensors one below the other, those of two sides padded with zeros on the right."""
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    if found[0].dim() < 2:
        return torch.cat(found)
    longest = max(part.shape[1] for part in found)
    return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in found])
