"""What every likelihood offers, and the scores it gives. Training and references know no more than this.

Legend: N items, L scored parts of an item (tokens of the longest completion; 1 for a whole image).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded


@dataclass(frozen=True, slots=True)
class ItemScores:
    """Scores of N items, float32 or wider."""

    logp_NL: Tensor
    """(N, L) score of each part of an item; zero after the item's end. For text, log-probabilities in nats."""
    length_N: Tensor
    """(N,) number of scored parts: tokens, or 1 of an undivided thing (`one_part`)."""
    log_p2_N: Tensor | None = None
    """(N,) sum over completion tokens of log sum_v pi(v)^2; only when asked for."""
    entropy_N: Tensor | None = None
    """(N,) sum over completion tokens of the entropy of pi, nats; only when asked for."""
    top1_N: Tensor | None = None
    """(N,) completion tokens that were the likeliest ones; only when asked for."""
    logp_own_N: Tensor | None = None
    """(N,) score under noise of the item's own, 0 of items that nobody asked it of; only when asked for."""
    consistency_N: Tensor | None = None
    """(N,) a detector's loss on the one-step estimate, 0 where it is not taken; only when asked for."""
    seen_N: Tensor | None = None
    """(N,) 1 where it is taken."""
    changed_NL: Tensor | None = None
    """(N, L) 1 for tokens that the comparison's other side has not; only where items were encoded with it."""
    distribution_KV: Tensor | None = None
    """(K, V) log-probabilities of all tokens at the K scored places, in the plan's order; only when asked for."""
    auxiliary: Tensor | None = None
    """A loss of the model's own, weighed, that is added to the objective's (balance of experts)."""
    aux_loss: Tensor | None = None
    """The same without its weight, for the log."""

    @property
    def logp_N(self) -> Tensor:
        """(N,) score of each item."""
        return self.logp_NL.sum(-1)


def one_part(score_N: Tensor) -> ItemScores:
    """Scores of items without parts."""
    return ItemScores(logp_NL=score_N[:, None], length_N=torch.ones(len(score_N), device=score_N.device))


class Plan(Protocol):
    """A batch laid out as tensors, made on the host."""

    def to(self, device: torch.device) -> Any:
        """The same plan on another device."""
        ...


class Likelihood(Protocol):
    """How likely a model finds encoded items. The item's own type is known to the likelihood alone."""

    version: int
    """Of what a score means; part of the reference cache's key."""

    def settings(self) -> dict[str, Any]:
        """Whatever else a score depends on besides model and item; part of the reference cache's key."""
        ...

    def at(self, example: Encoded[Any], epoch: int) -> Encoded[Any]:
        """The example as it is scored in an epoch: the same every time for text, with fresh noise for denoising.

        Epochs below 0 are evaluations.
        """
        ...

    def renewed(self, example: Encoded[Any]) -> bool:
        """Whether the reference is shown something else in each epoch, so that its scores belong to one (noise)."""
        ...

    def seen_by_reference(self, item: Any) -> Any:
        """The item as the reference scores it; the same object unless it has another condition there."""
        ...

    def key(self, item: Any) -> str:
        """Digest, in hexadecimal digits, of all that an item's score depends on but for the model."""
        ...

    def width(self, item: Any) -> int:
        """Size of an item in a batch (tokens; 1 where all items are alike), for batching by size."""
        ...

    def family(self, item: Any) -> Any:
        """What items must have in common to be worth scoring together (text: the prompt); hashable."""
        ...

    def plan(self, items: Sequence[Any]) -> Any:
        """Lay items out for one forward pass (a `Plan`)."""
        ...

    def score(self, model: nn.Module, plan: Any, extras: Collection[str] = ()) -> ItemScores:
        """Scores of the planned items, with gradients."""
        ...
