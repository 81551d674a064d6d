"""Losses on the policy's own answers beside an opponent's: Nash-MD (arXiv 2312.00886) and XPO (arXiv 2405.21046).

What was found out about the answers when they were sampled comes as columns of the comparison, without gradient:
    P       `probability`: that the policy's answer is preferred to the opponent's, in [0, 1]
            `reference_first`: 1 where the first side is the reference's answer, 0 where the second is, negative: unknown
Other symbols and shapes: see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prefopt.objectives.base import State, Unpaired, require
from prefopt.objectives.pairwise import DPO
from prefopt.objectives.sides import Sides


def nash_md_loss(rho: Tensor, probability: Tensor, beta: float) -> Tensor:
    """(E,) beta rho^2 / 2 - (P - 1/2) rho.

    Its gradient is the paper's estimator with the sign of a descent, -(P - 1/2 - beta rho) grad log pi(y|x) (section 8.2,
    tau = beta), whose 1/2 is a baseline; for answers of another policy it draws rho to (P - 1/2) / beta.

    >>> nash_md_loss(torch.tensor([1.0]), torch.tensor([0.9]), beta=0.1)
    tensor([-0.3500])
    """
    return 0.5 * beta * rho**2 - (probability - 0.5) * rho


@dataclass(frozen=True, kw_only=True)
class NashMD(Unpaired):
    """Nash mirror descent by policy gradient (arXiv 2312.00886), on single answers of the policy.

    Samples without a `probability` have 1 where they are labelled good, else 0.

    Attributes:
        beta: weight > 0 of the KL divergence from the reference, the paper's tau.

    >>> NashMD(beta=0.1)(torch.zeros(2), torch.tensor([True, False]))
    tensor([0., 0.])
    """

    beta: float = 0.1

    columns: ClassVar[Mapping[str, float]] = {"probability": -1.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")

    def probability(self, sides: Sides, label: float) -> Tensor:
        """(E,) P, or the label where it is not known."""
        given = self.column(sides, "probability")
        return torch.where(given >= 0, given, label)

    def desirable_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return nash_md_loss(sides.rho_w, self.probability(sides, 1.0), self.beta)

    def undesirable_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return nash_md_loss(sides.rho_w, self.probability(sides, 0.0), self.beta)

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """P, where it is known."""
        given = self.column(sides, "probability")
        return {"nash_md/probability": torch.where(given >= 0, given, torch.nan)}


@dataclass(frozen=True, kw_only=True)
class XPO(DPO):
    """Exploratory preference optimization: DPO's loss + alpha log pi(y_ref|x) (arXiv 2405.21046, algorithm 1).

    y_ref is the side that the reference wrote; a policy that finds it less likely is paid for it, which is optimism. The
    term reads rho in place of log pi, from which it differs by a constant. Pairs of unknown origin have DPO's loss.

    Attributes:
        alpha: >= 0, weight of the bonus, per nat.

    >>> XPO(alpha=0.5)(torch.zeros(1), torch.tensor([-2.0]), reference_first=torch.zeros(1))  # 0.5981 - 1
    tensor([-0.4019])
    """

    alpha: float = 1e-5

    columns: ClassVar[Mapping[str, float]] = {"reference_first": -1.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha >= 0, f"alpha must be at least 0; given {self.alpha}")

    def rho_reference(self, sides: Sides) -> Tensor:
        """(E,) log-ratio of the reference's answer, 0 where it is not known which that is."""
        first = self.column(sides, "reference_first")
        return torch.where(first > 0, sides.rho_w, torch.where(first == 0, sides.rho_l, 0.0))

    def losses(self, sides: Sides, outcome_E3: Tensor | None, state: State) -> Tensor:
        """(E,) losses; the bonus asks who wrote an answer, not which won."""
        return super().losses(sides, outcome_E3, state) + self.alpha * self.rho_reference(sides)

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Log-ratio of the reference's answers, in nats."""
        known = self.column(sides, "reference_first") >= 0
        return {"xpo/reference_logratio": torch.where(known, self.rho_reference(sides), torch.nan)}


__all__ = ["XPO", "NashMD", "nash_md_loss"]
