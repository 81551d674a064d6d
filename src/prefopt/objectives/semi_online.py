"""SoPo: the winner comes from data, the loser is sampled now (arXiv 2412.05095); and the losses that its theory compares.

Symbols (see `base.py` for others):
    S     the least similarity of the winner to the samples that were drawn beside it
    r_l   reward of the loser, the worst of these samples
    h     log-ratios of a group of samples
Whatever says how good or how similar samples are is data: no gradient goes through it.

Legend: E comparisons, K samples of a group, best first unless rewards say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State, require
from prefopt.objectives.sides import Sides
from prefopt.objectives.stable import softplus


@dataclass(frozen=True, kw_only=True)
class SoPo(Objective):
    """-log sigma(beta [(C - S) rho_w - m rho_l]), m = 1 where r_l < tau and 0 where the loser is good (eq. 14).

    A loser that is vetoed leaves no trace, not even a gradient. For diffusion models rho is -T omega (E_theta - E_ref),
    the bound on the log-ratio (eq. 16 and 17), which is the likelihood's business.

    Attributes:
        beta: > 0.
        C: >= 1, from which similarities are taken; below 1 a winner could be unlearned.
        tau: losers of this reward or above are vetoed. None: the column `tau`, a run's own calibration, says so, and nothing
            is vetoed without one.
        variant: "sopo"; "usopo" weighs winners by 1; "sopo_no_filter" vetoes nothing; "dsopo" neither weighs nor vetoes: DPO.

    >>> columns = {"min_similarity": torch.tensor([0.5, 0.5]), "rejected_reward": torch.tensor([0.2, 0.8])}
    >>> SoPo(tau=0.45)(torch.tensor([1.0, 1.0]), torch.tensor([-1.0, -1.0]), **columns)
    tensor([0.0789, 0.2014])
    """

    columns: ClassVar[Mapping[str, float]] = {
        "min_similarity": 0.0,
        "rejected_reward": -math.inf,
        "tau": math.inf,
    }
    beta: float = 1.0
    C: float = 2.0
    tau: float | None = None
    variant: Literal["sopo", "usopo", "sopo_no_filter", "dsopo"] = "sopo"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")
        require(
            self.C >= 1,
            f"C must be 1 or more, or winners that resemble samples would be unlearned; given {self.C}",
        )

    def weight(self, sides: Sides) -> Tensor:
        """(E,) of the winner: C - S, or 1."""
        if self.variant in ("usopo", "dsopo"):
            return torch.ones_like(sides.rho_w, requires_grad=False)
        return self.C - self.column(sides, "min_similarity")

    def kept(self, sides: Sides) -> Tensor:
        """(E,) booleans: which losers are learned from."""
        if self.variant in ("sopo_no_filter", "dsopo"):
            return torch.ones_like(sides.rho_w, dtype=torch.bool, requires_grad=False)
        tau = self.column(sides, "tau") if self.tau is None else self.tau
        return self.column(sides, "rejected_reward") < tau

    def z(self, sides: Sides) -> Tensor:
        """(E,) beta [(C - S) rho_w - m rho_l]."""
        # where, not a product: a vetoed loser may have any score
        loser_E = torch.where(self.kept(sides), sides.rho_l, torch.zeros_like(sides.rho_l))
        return self.beta * (self.weight(sides) * sides.rho_w - loser_E)

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return softplus(-self.z(sides))

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Weight of winners, share of losers kept, z, and sigma(-z): 1/2 throughout is the linear regime, 0 is saturated."""
        z = self.z(sides).detach()
        return {
            "sopo/weight": self.weight(sides),
            "sopo/kept": self.kept(sides).to(z.dtype),
            "sopo/z": z,
            "sopo/slope": torch.sigmoid(-z),
        }


def plackett_luce(h_K: Tensor, beta: float = 1.0) -> Tensor:
    """Offline DPO of a ranking: -sum_k log(e^{beta h_k} / sum_{j >= k} e^{beta h_j}) (eq. 3); pairwise DPO for K = 2.

    Args:
        h_K: (..., K) log-ratios, the best first.
        beta: > 0.

    Returns:
        (...) losses.

    >>> plackett_luce(torch.tensor([1.0, -1.0]), beta=0.1)
    tensor(0.5981)
    """
    u_K = beta * h_K
    return (tails(u_K) - u_K).sum(-1)


def soft_plackett_luce(h_K: Tensor, reward_K: Tensor, beta: float = 1.0) -> Tensor:
    """Online DPO of the paper's second theorem: each rank's one-hot target is replaced by its probability under the rewards.

    -sum_k p_r(k) log p_theta(k), both over the tail of the order of the rewards. An aid to thought: what trains is
    the best against the worst.

    Args:
        h_K: (..., K) log-ratios in any order.
        reward_K: (..., K) rewards.
        beta: > 0.

    Returns:
        (...) losses.
    """
    order_K = torch.argsort(reward_K, dim=-1, descending=True, stable=True)
    u_K, r_K = beta * h_K.gather(-1, order_K), reward_K.gather(-1, order_K)
    return (torch.exp(r_K - tails(r_K)) * (tails(u_K) - u_K)).sum(-1)


def tails(x_K: Tensor) -> Tensor:
    """(..., K) log of the sum of e^x from each place to the end."""
    return x_K.flip(-1).logcumsumexp(-1).flip(-1)
