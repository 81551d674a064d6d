"""Links on one margin u = beta * m: DPO and the losses that differ from it in the link.

Symbols and shapes: see `base.py`. Every link is a function of u alone, so that any margin estimator serves it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefopt.objectives.base import Objective, State, require
from prefopt.objectives.generators import Generator, divergence, generator
from prefopt.objectives.margins import (
    AVERAGE,
    PLAIN,
    FDivergence,
    FDivergenceMargin,
    LengthDesensitizedMargin,
    Margin,
    margin_from_name,
)
from prefopt.objectives.sides import Sides
from prefopt.objectives.stable import softplus


@dataclass(frozen=True, kw_only=True)
class Pairwise(Objective):
    """A margin estimator followed by a link.

    Attributes:
        beta: scale of the reward margin, > 0; larger keeps the policy closer to the reference.
        margin: "sum", "average" (per token), "clipped" (ratios within 1 +- 0.1), "reverse_kl", "forward_kl", "js", "chi2",
            or a `Margin` object.
    """

    beta: float = 0.1
    margin: Margin = PLAIN

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "margin", margin_from_name(self.margin))
        require(self.beta > 0, f"beta must be positive; given {self.beta}")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the margin estimator reads."""
        return self.margin.needs

    def u(self, sides: Sides) -> Tensor:
        """(E,) reward margin, dimensionless."""
        return self.reward_scale * self.margin(sides)

    def link(self, u: Tensor) -> Tensor:
        """(E,) loss of a win at reward margin u."""
        raise NotImplementedError

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return self.link(self.u(sides))


def smoothed_logistic(u: Tensor, e: float) -> Tensor:
    """(E,) -(1-e) log sigma(u) - e log sigma(-u)."""
    return softplus(-u) if e == 0 else (1 - e) * softplus(-u) + e * softplus(u)


def hinge(u: Tensor) -> Tensor:
    """(E,) max(0, 1 - u)."""
    return torch.relu(1 - u)


def from_target(m: Tensor, tau: float) -> Tensor:
    """(E,) (m - 1/(2 tau))^2."""
    return (m - 1 / (2 * tau)) ** 2


@dataclass(frozen=True, kw_only=True)
class DPO(Pairwise):
    """Direct preference optimization: -log sigma(u) (arXiv 2305.18290, eq. 7).

    TRL's "sigmoid"; with `margin="average"` its "sigmoid_norm" (Tulu 3). TRL ignores its `label_smoothing` here;
    this one does not.

    Attributes:
        label_smoothing: e in [0, 0.5), share of labels taken to be flipped (conservative DPO).

    >>> DPO(beta=0.1)(torch.tensor([1.0]), torch.tensor([-1.0]))
    tensor([0.5981])
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.label_smoothing)

    def link(self, u: Tensor) -> Tensor:
        """(E,) smoothed logistic loss."""
        return smoothed_logistic(u, self.label_smoothing)


def check_smoothing(e: float) -> None:
    """Raise ValueError unless e is the rate of a minority."""
    require(0 <= e < 0.5, f"label_smoothing must lie in [0, 0.5); given {e}")


@dataclass(frozen=True, kw_only=True)
class CDPO(DPO):
    """Conservative DPO: label smoothing at 0.1 (Mitchell 2023, "A note on DPO with noisy preferences")."""

    label_smoothing: float = 0.1


@dataclass(frozen=True, kw_only=True)
class RobustDPO(Pairwise):
    """Robust DPO: [-(1-e) log sigma(u) + e log sigma(-u)] / (1 - 2e) (arXiv 2403.00409, eq. 12).

    Unbiased: its mean over labels flipped at rate e is the DPO loss. Unbounded below for e > 0, so losses turn
    negative: judge a run by accuracies and margins.

    Attributes:
        label_smoothing: e in [0, 0.5), the rate at which labels are flipped.
    """

    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.label_smoothing)

    def link(self, u: Tensor) -> Tensor:
        """(E,) unbiased logistic loss."""
        e = self.label_smoothing
        return ((1 - e) * softplus(-u) - e * softplus(u)) / (1 - 2 * e)


@dataclass(frozen=True, kw_only=True)
class IPO(Pairwise):
    """Identity preference optimization: (m - 1/(2 beta))^2 (arXiv 2310.12036, eq. 17, beta is its tau).

    Log-ratios are averaged over tokens, as in the runs of the paper and in TRL. Without it the target 1/(2 beta)
    means another thing at every length.

    Attributes:
        length_normalize: average each log-ratio over its tokens; False takes sums, as the equation is printed.

    >>> sums = IPO(beta=0.1, length_normalize=False)
    >>> sums(torch.tensor([5.0]), torch.tensor([0.0]))
    tensor([0.])
    """

    length_normalize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.margin in (PLAIN, AVERAGE) or not self.length_normalize,
            "IPO with another margin estimator needs length_normalize=False",
        )
        if self.length_normalize:
            object.__setattr__(self, "margin", AVERAGE)

    def replace(self, **changes: Any) -> Objective:
        """A copy with other hyper-parameters."""
        # length_normalize decides the margin; a stale one must not survive it
        return (
            replace(self, **{"margin": PLAIN, **changes})
            if "length_normalize" in changes
            else replace(self, **changes)
        )

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) squared distances from the target."""
        return from_target(self.margin(sides), self.beta)


@dataclass(frozen=True, kw_only=True)
class Hinge(Pairwise):
    """Hinge loss max(0, 1 - u) (SLiC on log-ratios, arXiv 2305.10425; RSO's hinge-norm, arXiv 2309.06657)."""

    def link(self, u: Tensor) -> Tensor:
        """(E,) hinge losses."""
        return hinge(u)


@dataclass(frozen=True, kw_only=True)
class EXO(Pairwise):
    """Efficient exact optimization on pairs: KL(q || [1-e, e]) with q = (sigma(u), sigma(-u)) (arXiv 2402.00856, eq. 16).

    Attributes:
        label_smoothing: e in (0, 0.5).
    """

    label_smoothing: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 < self.label_smoothing < 0.5,
            f"label_smoothing must lie in (0, 0.5), since EXO divides by it; given {self.label_smoothing}",
        )

    def link(self, u: Tensor) -> Tensor:
        """(E,) reverse KL to the smoothed label."""
        return divergence("reverse_kl", u, self.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class FDPO(Pairwise):
    """f-DPO: -log sigma(beta [f'(e^rho_w) - f'(e^rho_l)]) (arXiv 2309.16240, eq. 13); `FDivergenceMargin` has the f'.

    In float32 log-ratios below -80 (forward_kl, alpha) or above 80 (chi2) leave exp's range and give no gradient.
    TRL's `f_alpha_divergence_coef` a is 1 - alpha, and its forward_kl has no cap.

    Attributes:
        f: "reverse_kl" (= DPO), "forward_kl", "js", "alpha" or "chi2".
        alpha: in (0, 1), read by f = "alpha" only.
    """

    f: FDivergence = "js"
    alpha: float = 0.5
    margin: Margin = field(init=False, default=PLAIN)

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", FDivergenceMargin(f=self.f, alpha=self.alpha))
        super().__post_init__()

    def link(self, u: Tensor) -> Tensor:
        """(E,) logistic loss."""
        return softplus(-u)


@dataclass(frozen=True, kw_only=True)
class FPO(Pairwise):
    """Pairwise f-PO: sum_i p_i f(q_i / p_i), q = (sigma(u), sigma(-u)), p = (1-e, e) (arXiv 2410.21662, eq. 9).

    At e = 0 only the winner's term f(sigma(u)) is kept. forward_kl is DPO with label smoothing (up to a constant),
    reverse_kl is EXO. The minimiser differs from DPO's unless f is forward_kl.

    Attributes:
        f: "forward_kl", "reverse_kl", "jeffrey", "js", "alpha" or "hellinger".
        alpha: in (0, 1), read by f = "alpha" only.
        label_smoothing: e in [0, 0.5).
    """

    f: Generator = "js"
    alpha: float = 0.5
    label_smoothing: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.label_smoothing)
        require(
            self.f != "alpha" or 0 < self.alpha < 1,
            f"alpha must lie strictly between 0 and 1; given {self.alpha}",
        )

    def link(self, u: Tensor) -> Tensor:
        """(E,) f-divergence between model and label."""
        if self.label_smoothing == 0:
            return generator(self.f, u, self.alpha)
        return divergence(self.f, u, self.label_smoothing, self.alpha)


@dataclass(frozen=True, kw_only=True)
class RDPO(Pairwise):
    """Length-regularized DPO: -log sigma(u + alpha (|y_w| - |y_l|)) (arXiv 2403.19159, eq. 9).

    A longer winner counts as already preferred, so pairs decided by length teach less.

    Attributes:
        alpha: reward per token of length difference, >= 0.
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha >= 0, f"alpha must be at least 0; given {self.alpha}")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The margin's needs and lengths."""
        return self.margin.needs | {"length"}

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        length_w, length_l = sides.both("length")
        return softplus(-(self.u(sides) + self.alpha * (length_w - length_l)))


@dataclass(frozen=True, kw_only=True)
class LDDPO(Pairwise):
    """Length-desensitized DPO: tokens beyond the shorter side count `a` times (arXiv 2409.06411, eq. 10).

    The hyper-parameter `ld_alpha` does the same to other losses.

    Attributes:
        a: weight in [0, 1] of the tokens beyond min(|y_w|, |y_l|); 1 is DPO.
    """

    a: float = 0.5
    margin: Margin = field(init=False, default=PLAIN)

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", LengthDesensitizedMargin(a=self.a))
        super().__post_init__()

    def link(self, u: Tensor) -> Tensor:
        """(E,) logistic loss."""
        return softplus(-u)


ON_POLICY = frozenset({"logp", "log_p2", "length"})
"""What `on_policy_weight` reads."""


def on_policy_weight(sides: Sides) -> Tensor:
    """(E,) w(y_w) w(y_l), detached; w(y) = exp(mean over tokens of [log pi(y_t) - log sum_v pi(v)^2]) (WPO)."""
    logs = zip(sides.both("logp"), sides.both("log_p2"), sides.both("length"), strict=True)
    mean_w, mean_l = ((logp - log_p2) / length for logp, log_p2, length in logs)
    return torch.exp(mean_w + mean_l).detach()


@dataclass(frozen=True, kw_only=True)
class WPO(Pairwise):
    """Weighted preference optimization: sg[w(y_w) w(y_l)] (-log sigma(u)) (arXiv 2406.11827, eq. 2).

    w(y) = exp(mean over tokens of [log pi(y_t) - log sum_v pi(v)^2]) is about 1 for text the policy would write itself
    and small for off-policy text. Weights are not normalised, so losses shrink with off-policy data. `use_weighting`
    puts the same weights before other losses.
    """

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """The margin's needs and what the weights read."""
        return self.margin.needs | ON_POLICY

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return on_policy_weight(sides) * softplus(-self.u(sides))

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """The weights."""
        return {"wpo/weight": on_policy_weight(sides)}


@dataclass(frozen=True, kw_only=True)
class DiscoPOP(Pairwise):
    """Discovered preference optimization: (1-s)(-log sigma(u)) + s e^-u, s = sigma(u/tau) (arXiv 2406.08414, eq. 5).

    Not monotone: at the default tau it rises with u from -0.12 to 0.07, so the first gradients, at policy = reference,
    lower the margin.

    Attributes:
        tau: width of the transition between the two losses, in (0, 1]; beyond 1 the exponential part overflows.
    """

    beta: float = 0.05
    tau: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.tau <= 1, f"tau must lie in (0, 1]; given {self.tau}")

    def link(self, u: Tensor) -> Tensor:
        """(E,) blended losses."""
        # s * e^-u in one exponential: the product of 0 and inf never arises
        return torch.sigmoid(-u / self.tau) * softplus(-u) + torch.exp(logsigmoid(u / self.tau) - u)


__all__ = [
    "CDPO",
    "DPO",
    "EXO",
    "FDPO",
    "FPO",
    "IPO",
    "LDDPO",
    "ON_POLICY",
    "RDPO",
    "WPO",
    "DiscoPOP",
    "Hinge",
    "Pairwise",
    "RobustDPO",
    "check_smoothing",
    "from_target",
    "hinge",
    "on_policy_weight",
    "smoothed_logistic",
]
