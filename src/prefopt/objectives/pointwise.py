"""Losses that look at each side's reward on its own, not only at their difference.

    r_w, r_l    beta * rho_w, beta * rho_l
The partition function does not cancel here, so margin estimators (lengths, f-divergences) do not apply. Other symbols
and shapes: see `base.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State, require
from prefopt.objectives.sides import Sides
from prefopt.objectives.stable import softplus


@dataclass(frozen=True, kw_only=True)
class Pointwise(Objective):
    """Base: a loss of the two rewards.

    Attributes:
        beta: scale from log-ratio to reward, > 0.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")

    def loss_of_rewards(self, r_w: Tensor, r_l: Tensor) -> Tensor:
        """(E,) losses."""
        raise NotImplementedError

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return self.loss_of_rewards(self.beta * sides.rho_w, self.beta * sides.rho_l)


@dataclass(frozen=True, kw_only=True)
class NCA(Pointwise):
    """Noise contrastive alignment on pairs: -log sigma(r_w) - [log sigma(-r_w) + log sigma(-r_l)] / 2.

    arXiv 2402.05369, eq. 11; TRL's "nca_pair". It keeps the winner's likelihood from falling.

    >>> NCA()(torch.zeros(1), torch.zeros(1))  # 2 log 2
    tensor([1.3863])
    """

    beta: float = 0.01

    def loss_of_rewards(self, r_w: Tensor, r_l: Tensor) -> Tensor:
        """(E,) losses."""
        return softplus(-r_w) + 0.5 * softplus(r_w) + 0.5 * softplus(r_l)


@dataclass(frozen=True, kw_only=True)
class SPPO(Objective):
    """Self-play preference optimization: (rho_w - 1/(2 beta))^2 + (rho_l + 1/(2 beta))^2.

    arXiv 2405.00675, eq. 4.7 with hard labels; TRL's "sppo_hard". Soft votes p have the gradient of the paper's soft
    form, whose target is (p - 1/2)/beta. Targets are large (500 nats at the default), and so are losses (1e5).

    Attributes:
        beta: 1 / eta of the paper, > 0.
    """

    beta: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) squared distances from the two targets."""
        target = 1 / (2 * self.beta)
        return (sides.rho_w - target) ** 2 + (sides.rho_l + target) ** 2


@dataclass(frozen=True, kw_only=True)
class APOZero(Pointwise):
    """Anchored preference optimization, zero: [1 - sigma(r_w)] + sigma(r_l) (arXiv 2408.06266, eq. 7).

    For winners better than the model: raises them and lowers losers.
    """

    def loss_of_rewards(self, r_w: Tensor, r_l: Tensor) -> Tensor:
        """(E,) losses."""
        return torch.sigmoid(-r_w) + torch.sigmoid(r_l)


@dataclass(frozen=True, kw_only=True)
class APODown(Pointwise):
    """Anchored preference optimization, down: sigma(r_w) + [1 - sigma(r_w - r_l)] (arXiv 2408.06266, eq. 8).

    For winners worse than the model: lowers both sides, the loser more.
    """

    def loss_of_rewards(self, r_w: Tensor, r_l: Tensor) -> Tensor:
        """(E,) losses."""
        return torch.sigmoid(r_w) + torch.sigmoid(r_l - r_w)


@dataclass(frozen=True, kw_only=True)
class DPOP(Pointwise):
    """DPO-Positive (Smaug): -log sigma(beta [m - lambda max(0, -rho_w)]) (arXiv 2402.13228, eq. 3).

    Equals DPO while the winner is at least as likely as under the reference.

    Attributes:
        lambda_: penalty >= 0 on a winner that falls below the reference; also accepted as `lambda`.
    """

    beta: float = 0.3
    lambda_: float = 50.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lambda_ >= 0, f"lambda must be at least 0; given {self.lambda_}")

    def loss_of_rewards(self, r_w: Tensor, r_l: Tensor) -> Tensor:
        """(E,) losses."""
        return softplus(-(r_w - r_l - self.lambda_ * torch.relu(-r_w)))

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Where the penalty acts."""
        return {"dpop/active": (sides.rho_w < 0).to(sides.rho_w.dtype)}


@dataclass(frozen=True, kw_only=True)
class BCOPair(Pointwise):
    """Binary classifier optimization on pairs, without its shift: -log sigma(r_w) - log sigma(-r_l).

    arXiv 2404.04656 with delta = 0, as TRL's "bco_pair"; `bco` has the running shift, on single labelled samples.
    """

    beta: float = 0.01

    def loss_of_rewards(self, r_w: Tensor, r_l: Tensor) -> Tensor:
        """(E,) losses."""
        return softplus(-r_w) + softplus(r_l)


__all__ = ["DPOP", "NCA", "SPPO", "APODown", "APOZero", "BCOPair", "Pointwise"]
