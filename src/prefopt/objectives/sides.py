"""What an objective may look at: the two sides of its comparisons, and the branches that it asks for by name.

Symbols and shapes: see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A further sample that an objective reads with each comparison: under which condition, and which.

    Attributes:
        condition: "own" is the comparison's; others are the row's (`contrast`: its contrast image) or made of it.
        sample: "chosen", "rejected", or another of the row's.
        gradient: whether the loss is differentiated through its score.
        reference: whether its log-ratio is read; False where its log-probability is all.
    """

    condition: str
    sample: str
    gradient: bool = True
    reference: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What is known of one branch of E comparisons; fields as those of `Sides`, which say what they are."""

    rho: Tensor | None = None
    logp: Tensor | None = None
    length: Tensor | None = None
    rho_tokens: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """All that an objective may look at: the two sides of E comparisons, one entry a comparison.

    Only the two log-ratios are always there; an objective names what else it reads in `Objective.needs`.
    """

    rho_w: Tensor
    """(E,) log-ratio of the winner."""
    rho_l: Tensor
    """(E,) log-ratio of the loser; zeros for unpaired rows."""
    length_w: Tensor | None = None
    """(E,) number of scored tokens (winner)."""
    length_l: Tensor | None = None
    logp_w: Tensor | None = None
    """(E,) policy log-probability sum of the winner, for terms that look at the policy alone."""
    logp_l: Tensor | None = None
    rho_tokens_w: Tensor | None = None
    """(E, T) per-token log-ratios of the winner, zero after its end."""
    rho_tokens_l: Tensor | None = None
    logp_tokens_w: Tensor | None = None
    """(E, T) the policy's per-token log-probabilities of the winner, zero after its end."""
    logp_tokens_l: Tensor | None = None
    log_p2_w: Tensor | None = None
    """(E,) sum over tokens of log sum_v pi(v)^2 (WPO)."""
    log_p2_l: Tensor | None = None
    entropy_w: Tensor | None = None
    """(E,) sum over tokens of the entropy of pi, nats."""
    entropy_l: Tensor | None = None
    top1_w: Tensor | None = None
    """(E,) tokens that were the likeliest ones under pi."""
    top1_l: Tensor | None = None
    logp_own_w: Tensor | None = None
    """(E,) score of the winner under noise of its own, that the loser does not share (diffusion terms)."""
    logp_own_l: Tensor | None = None
    consistency_w: Tensor | None = None
    """(E,) how far what a detector sees in the one-step estimate of the winner is from its control image; 0 where unseen."""
    consistency_l: Tensor | None = None
    seen_w: Tensor | None = None
    """(E,) 1 where the estimate was looked at (little noise), else 0."""
    seen_l: Tensor | None = None
    changed_w: Tensor | None = None
    """(E, T) 1 for tokens of the winner that the other side has not, 0 for those that both have."""
    changed_l: Tensor | None = None
    kl_w: Tensor | None = None
    """(E,) sum over tokens of KL(pi_ref(.|y_<t) || pi_theta(.|y_<t)), nats."""
    kl_l: Tensor | None = None
    branches: Mapping[str, Score] = field(default_factory=dict)
    """Scores of `Objective.branches`, by name."""
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """Further per-comparison columns, (E,) each, by name (for example `offset`)."""

    def both(self, name: str) -> tuple[Tensor, Tensor]:
        """An optional field of winner and loser, known to be there because the objective's `needs` names it."""
        winner, loser = getattr(self, f"{name}_w"), getattr(self, f"{name}_l")
        if winner is None or loser is None:
            raise ValueError(f"these sides carry no {name}; name it in the objective's `needs`")
        return winner, loser

    def rho(self, name: str) -> Tensor:
        """(E,) log-ratio of a branch, known to be there because the objective's `branches` name it."""
        found = self.branches[name].rho if name in self.branches else None
        if found is None:
            raise ValueError(
                f"these sides carry no log-ratio of {name}; name it in the objective's `branches`"
            )
        return found

    def swapped(self) -> Sides:
        """The same comparisons with winner and loser exchanged."""
        return Sides(
            rho_w=self.rho_l,
            rho_l=self.rho_w,
            length_w=self.length_l,
            length_l=self.length_w,
            logp_w=self.logp_l,
            logp_l=self.logp_w,
            rho_tokens_w=self.rho_tokens_l,
            rho_tokens_l=self.rho_tokens_w,
            logp_tokens_w=self.logp_tokens_l,
            logp_tokens_l=self.logp_tokens_w,
            log_p2_w=self.log_p2_l,
            log_p2_l=self.log_p2_w,
            entropy_w=self.entropy_l,
            entropy_l=self.entropy_w,
            top1_w=self.top1_l,
            top1_l=self.top1_w,
            logp_own_w=self.logp_own_l,
            logp_own_l=self.logp_own_w,
            consistency_w=self.consistency_l,
            consistency_l=self.consistency_w,
            seen_w=self.seen_l,
            seen_l=self.seen_w,
            changed_w=self.changed_l,
            changed_l=self.changed_w,
            kl_w=self.kl_l,
            kl_l=self.kl_w,
            branches=self.branches,
            columns=self.columns,
        )

    def where(self, keep_E: Tensor) -> Sides:
        """The same comparisons with everything of the rows outside `keep_E` replaced by harmless constants.

        Masking a loss after the fact (0 * inf) turns an overflow on a row that does not count into NaN gradients
        everywhere; masking what goes in does not.
        """

        def masked(x: Tensor | None, filler: float) -> Tensor | None:
            if x is None:
                return None
            keep = keep_E.reshape(-1, *[1] * (x.dim() - 1))
            return torch.where(keep, x, torch.full_like(x, filler))

        values: dict[str, Any] = {}
        for f in fields(self):
            if f.name in ("columns", "branches"):
                continue
            values[f.name] = masked(getattr(self, f.name), harmless(f.name))
        branches = {
            name: Score(**{f.name: masked(getattr(score, f.name), harmless(f.name)) for f in fields(score)})
            for name, score in self.branches.items()
        }
        return Sides(columns=self.columns, branches=branches, **values)


def harmless(name: str) -> float:
    """What stands for a field of `Sides` on rows that do not count."""
    # a length of 0 would divide by zero; a policy log-prob of 0 means certainty, whose log-odds diverge
    return 1.0 if name.startswith("length") else -1.0 if name.startswith("logp") else 0.0
