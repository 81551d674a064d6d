"""Losses that doubt labels pair by pair: SSAPO (arXiv 2502.18099) and its parent SPA (arXiv 2406.04412).

The constants of each pair come from outside, as columns of the comparison, and carry no gradient:
    f       `robust_moved`: share of the pair's mass that the adversary moves, in [0, 1]
    d       `robust_shift`: how far, >= 0, in units of u (leader `prob_atoms`: of the probability sigma(u))
    lambda  `robust_lambda`: price of movement; negative: the pair is outside the game
    A       `robust_low`: lower end of the adversary's window
    z       `spa_flag`: 1 where the label is doubted, else 0
Pairs without the columns, or at epsilon = 0, have DPO's loss. Other symbols and shapes: see `base.py`; K atoms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from prefopt.objectives.base import State, require
from prefopt.objectives.margins import PLAIN, Margin
from prefopt.objectives.pairwise import Pairwise
from prefopt.objectives.sides import Sides
from prefopt.objectives.stable import softplus

Leader = Literal["shift", "dual", "weights", "prob_atoms"]
Floor = Literal["linear", "clamp"]
LEAST_PROBABILITY = 1e-6  # where the released code clamps


def shift_loss(u: Tensor, moved: Tensor, shift: Tensor) -> Tensor:
    """(E,) (1-f) ell(u) + f ell(u - d), ell(u) = -log sigma(u): the adversary's atoms ride with the policy.

    >>> shift_loss(torch.zeros(1), torch.tensor([0.5]), torch.tensor([2.0]))
    tensor([1.4100])
    """
    return (1 - moved) * softplus(-u) + moved * softplus(shift - u)


def dual_loss(u: Tensor, moved: Tensor, price: Tensor, low: Tensor) -> Tensor:
    """(E,) max(ell(u), ell(A) - lambda (u - A)): the robust objective less its constant lambda * epsilon.

    Its gradient is exact at the policy for which lambda was found (envelope theorem). One pair of a group may lie
    where both branches are equal; f says how it is shared between them. Pairs with lambda < 0 have ell(u).

    >>> dual_loss(torch.zeros(1), torch.zeros(1), torch.tensor([0.5]), torch.tensor([-4.0]))
    tensor([2.0181])
    """
    stay = softplus(-u)
    inside = price >= 0
    # what the masked rows hold must be finite, or its gradient survives as NaN
    away = softplus(-low) - price.clamp(min=0) * (u - low)
    tie = 8 * torch.finfo(u.dtype).eps * (1 + stay.detach().abs() + away.detach().abs())
    gap = (away - stay).detach()
    share = torch.where(gap.abs() <= tie, moved, (gap > 0).to(u.dtype)) * inside
    return (1 - share) * stay + share * away


def weights_loss(u: Tensor, mass_EK: Tensor) -> Tensor:
    """(E,) (sum_k s_k) ell(u): Algorithm 1 to the letter, where masses sum to 1, so this is DPO.

    >>> weights_loss(torch.zeros(1), torch.tensor([[0.25, 0.75]]))
    tensor([0.6931])
    """
    return mass_EK.sum(-1) * softplus(-u)


def prob_atoms_loss(
    u: Tensor, mass_EK: Tensor, displacement_EK: Tensor, pieces: int = 6, floor: Floor = "linear"
) -> Tensor:
    """(E,) sum_k s_k phi(sigma(u) - d_k), the released code's leader, in probability space.

    Args:
        u: (E,) reward margins.
        mass_EK: (E, K) masses s_k, summing to 1.
        displacement_EK: (E, K) d_k in units of probability, positive downwards; 0 where s_k = 0.
        pieces: the follower's K.
        floor: phi below what -log can take. "linear": -log v for v >= 1/K and its tangent there below; atoms that
            were not moved have ell(u) exactly. "clamp": -log max(v, 1e-6) as released; mass that the adversary moved
            to 0 then has no gradient, and neither have pairs with u < -13.8, moved or not.

    >>> prob_atoms_loss(torch.zeros(1), torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 0.5]]))
    tensor([1.7425])
    """
    v_EK = torch.sigmoid(u)[:, None] - displacement_EK
    if floor == "clamp":
        phi_EK = -torch.log(v_EK.clamp(min=LEAST_PROBABILITY))
    else:
        high = v_EK * pieces >= 1
        log_EK = -torch.log(torch.where(high, v_EK, 1.0))
        phi_EK = torch.where(high, log_EK, math.log(pieces) + 1 - pieces * v_EK)
        phi_EK = torch.where(displacement_EK == 0, softplus(-u)[:, None], phi_EK)
    return (mass_EK * phi_EK).sum(-1)


def spa_loss(u: Tensor, flag: Tensor, alpha: float) -> Tensor:
    """(E,) (1 - alpha z) ell(u) + alpha z ell(-u): label smoothing of the flagged pairs.

    >>> spa_loss(torch.ones(2), torch.tensor([0.0, 1.0]), alpha=0.1)
    tensor([0.3133, 0.4133])
    """
    return (1 - alpha * flag) * softplus(-u) + alpha * flag * softplus(u)


@dataclass(frozen=True, kw_only=True)
class SSAPO(Pairwise):
    """The leader of Stackelberg self-annotated preference optimization (arXiv 2502.18099).

    The margin is the plain sum, since the adversary's constants are in its units; they must come from gaps against
    the same reference. Pairs whose label the policy is least sure of are judged at a worse margin than theirs, and so
    pull harder: pessimism, not removal of noise.

    Attributes:
        leader: how the adversary's distribution enters. "shift": moved mass rides with the policy; "dual": the exact
            robust objective on a fixed window; "weights": Algorithm 1 to the letter, which is DPO; "prob_atoms": the
            released code's, whose constants are in probability.
        floor: for "prob_atoms", the loss of mass near or below probability 0: "linear" or "clamp" (as released).
        pieces: for "prob_atoms", the number of tangents K >= 1 that the adversary used.

    >>> moved = {"robust_moved": torch.tensor([0.5]), "robust_shift": torch.tensor([2.0])}
    >>> SSAPO(beta=0.1)(torch.zeros(1), torch.zeros(1), **moved)
    tensor([1.4100])
    """

    leader: Leader = "shift"
    floor: Floor = "linear"
    pieces: int = 6
    margin: Margin = field(init=False, default=PLAIN)

    columns: ClassVar[Mapping[str, float]] = {
        "robust_moved": 0.0,
        "robust_shift": 0.0,
        "robust_lambda": -1.0,
        "robust_low": 0.0,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.pieces >= 1, f"pieces must be at least 1; given {self.pieces}")

    @property
    def space(self) -> Literal["margin", "probability"]:
        """What the constants of the pairs must be measured in; the follower's `space`."""
        return "probability" if self.leader == "prob_atoms" else "margin"

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        u = self.u(sides)
        moved, shift = (self.column(sides, name) for name in ("robust_moved", "robust_shift"))
        match self.leader:
            case "shift":
                return shift_loss(u, moved, shift)
            case "dual":
                price, low = (self.column(sides, name) for name in ("robust_lambda", "robust_low"))
                return dual_loss(u, moved, price, low)
            case "weights":
                return weights_loss(u, torch.stack([1 - moved, moved], dim=-1))
            case "prob_atoms":
                mass_EK = torch.stack([1 - moved, moved], dim=-1)
                displacement_EK = torch.stack([torch.zeros_like(shift), shift], dim=-1)
                return prob_atoms_loss(u, mass_EK, displacement_EK, self.pieces, self.floor)

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Share of mass moved."""
        return {"ssapo/moved": self.column(sides, "robust_moved")}


@dataclass(frozen=True, kw_only=True)
class SPA(Pairwise):
    """Self-refinement of SPA: label smoothing on the pairs flagged as least confident (arXiv 2406.04412).

    Attributes:
        alpha: in [0, 0.5), how far a flagged label is smoothed.

    >>> SPA(beta=0.1, alpha=0.1)(torch.tensor([10.0]), torch.zeros(1), spa_flag=torch.ones(1))
    tensor([0.4133])
    """

    alpha: float = 0.1

    columns: ClassVar[Mapping[str, float]] = {"spa_flag": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.alpha < 0.5, f"alpha must lie in [0, 0.5); given {self.alpha}")

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return spa_loss(self.u(sides), self.column(sides, "spa_flag"), self.alpha)

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """The flags."""
        return {"spa/flagged": self.column(sides, "spa_flag")}


__all__ = [
    "SPA",
    "SSAPO",
    "dual_loss",
    "prob_atoms_loss",
    "shift_loss",
    "spa_loss",
    "weights_loss",
]
