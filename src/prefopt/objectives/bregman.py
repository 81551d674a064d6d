"""Bregman preference optimization: match the ratio of two responses' likelihoods to the data's (arXiv 2505.19601).

    R       model ratio e^-u; the data's is P(y_l > y_w) / P(y_w > y_l)
    h       strictly convex function; the loss of a pair is h'(R) R - h(R) - h'(1/R), an affine function of D_h
    lambda  parameter of Basu's power divergence, here `lambda_` since Python reserves the word
Everything is computed in u; R itself would overflow. Other symbols and shapes: see `base.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State, require
from prefopt.objectives.generators import Generator, log_generator
from prefopt.objectives.margins import AVERAGE, PLAIN, FDivergenceMargin
from prefopt.objectives.sides import Sides
from prefopt.objectives.stable import phi, softplus

DEFAULT_R_MIN = 0.01


@dataclass(frozen=True, kw_only=True)
class BPO(Objective):
    """Bregman preference optimization (arXiv 2505.19601, Theorem 3 and Table 2): DPO's optimum, another weighting.

    Per pair, at u clipped to [-log r_max, -log r_min]:

        lr       log(1 + R), which is DPO
        kliep    R + log R
        lsif     R^2 - 2/R + 1
        ba       (1 + lambda) [(R^{1+lambda} - 1)/(1+lambda) - (R^{-lambda} - 1)/lambda]
        sba      ba / (s (1 + lambda)): gradient scale does not depend on lambda at R = 1, and is DPO's for s = 4

    For lambda >= 0 (kliep: 0, lsif: 1) the loss has no lower bound, so R is clipped at 0.01 unless told otherwise, and
    loss values are no measure of progress. Pairs with u < -88 / (1 + lambda) overflow float32 without `r_max` (all but
    lr): a loud infinity, never hidden.

    Attributes:
        h: "sba", "lr", "kliep", "lsif" or "ba".
        beta: scale of the reward margin, > 0.
        lambda_: > -1, read by sba and ba; also accepted as `lambda`. Above -1/2 it weighs confident pairs more.
        s: gradient scale of sba, > 0. None: 4, or under the simpo ratio the value that equates the weights of sba and
            lr at R = e^gamma.
        r_min: R is clipped from below here; such pairs, already well separated, give no gradient. None: 0.01 where
            the loss is unbounded below, else no clip.
        r_max: R is clipped from above here; such pairs are ignored as outliers. None: no clip.
        mix_weight: w in [0, 1]: w * h + (1 - w) * lr.
        ratio: what u is. "dpo" beta m; "simpo" beta (log pi(y_w)/|y_w| - log pi(y_l)/|y_l|) - gamma, without a
            reference; "fdpo" beta [f'(e^rho_w) - f'(e^rho_l)]; "fpo" R = e^f(sigma(beta m)) - 1.
        gamma: target margin >= 0 of the simpo ratio.
        f: generator of the fdpo ratio (reverse_kl, forward_kl, js, alpha, chi2) or the fpo ratio (forward_kl,
            jeffrey, js, alpha, hellinger).
        f_alpha: in (0, 1), for f = "alpha".
        allow_unbounded: keep `r_min=None` unclipped even where the loss is unbounded below.

    >>> BPO(beta=0.1)(torch.tensor([10.0]), torch.tensor([0.0]))  # e^{-u/2} - 1
    tensor([-0.3935])
    """

    h: Literal["sba", "lr", "kliep", "lsif", "ba"] = "sba"
    beta: float = 0.1
    lambda_: float = -0.5
    s: float | None = None
    r_min: float | None = None
    r_max: float | None = None
    mix_weight: float = 1.0
    ratio: Literal["dpo", "simpo", "fdpo", "fpo"] = "dpo"
    gamma: float = 0.0
    f: Literal["forward_kl", "reverse_kl", "js", "alpha", "chi2", "jeffrey", "hellinger"] = "js"
    f_alpha: float = 0.5
    allow_unbounded: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")
        require(
            self.lambda_ > -1,
            f"lambda must be greater than -1, where h stops being convex; given {self.lambda_}",
        )
        require(self.s is None or self.s > 0, f"s must be positive; given {self.s}")
        require(
            self.r_min is None or 0 < self.r_min < 1,
            f"r_min must lie in (0, 1); given {self.r_min}. For no clip, leave it out and set allow_unbounded=True",
        )
        require(self.r_max is None or self.r_max > 1, f"r_max must be greater than 1; given {self.r_max}")
        require(0 <= self.mix_weight <= 1, f"mix_weight must lie in [0, 1]; given {self.mix_weight}")
        require(self.gamma >= 0, f"gamma must be at least 0; given {self.gamma}")
        require(
            self.gamma == 0 or self.ratio == "simpo",
            f"gamma belongs to ratio='simpo'; given ratio={self.ratio!r}",
        )
        if self.ratio == "fpo":
            allowed = ("forward_kl", "jeffrey", "js", "alpha", "hellinger")
            require(
                self.f in allowed,
                f"the fpo ratio needs f > 0 on (0, 1): {', '.join(allowed)}; given {self.f!r}",
            )
        if self.ratio == "fdpo":
            allowed = ("reverse_kl", "forward_kl", "js", "alpha", "chi2")
            require(self.f in allowed, f"the fdpo ratio takes f = {', '.join(allowed)}; given {self.f!r}")
        require(
            self.f != "alpha" or 0 < self.f_alpha < 1, f"f_alpha must lie in (0, 1); given {self.f_alpha}"
        )
        zero = torch.zeros(1, dtype=torch.float64)
        sides = Sides(rho_w=zero, rho_l=zero, length_w=zero + 1, length_l=zero + 1)
        u_0 = float(self.u(sides))
        low, high = self.clip
        if not low < u_0 < high:
            raise ValueError(
                f"the clip r_min={math.exp(-high):.3g}, r_max={math.exp(-low):.3g} covers R = {math.exp(-u_0):.3g}, the "
                "ratio of two equal responses, so training would not move: widen the clip"
            )

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """False for the simpo ratio."""
        return self.ratio != "simpo"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Lengths for the simpo ratio."""
        return frozenset({"length"} if self.ratio == "simpo" else ())

    @property
    def exponent(self) -> float | None:
        """lambda of the member in use; None for lr."""
        return {"lr": None, "kliep": 0.0, "lsif": 1.0}.get(self.h, self.lambda_)

    @property
    def scale(self) -> float:
        """Divisor of BA's loss and gradient divided by (1 + lambda); `s` for sba, 1/(1 + lambda) for the others."""
        if self.h != "sba":
            return 1 / (1 + (self.exponent or 0.0))
        if self.s is not None:
            return self.s
        return (1 + math.exp(self.gamma)) * (
            math.exp(self.lambda_ * self.gamma) + math.exp(-(1 + self.lambda_) * self.gamma)
        )

    @property
    def clip(self) -> tuple[float, float]:
        """Range of u outside which a pair gives no gradient."""
        r_min = self.r_min
        unbounded = self.exponent is not None and self.exponent >= 0 and self.mix_weight > 0
        if r_min is None and unbounded and not self.allow_unbounded:
            r_min = DEFAULT_R_MIN
        return (
            -math.inf if self.r_max is None else -math.log(self.r_max),
            math.inf if r_min is None else -math.log(r_min),
        )

    def u(self, sides: Sides) -> Tensor:
        """(E,) -log R, before clipping."""
        match self.ratio:
            case "dpo":
                return self.beta * PLAIN(sides)
            case "simpo":
                return self.beta * AVERAGE(sides) - self.gamma
            case "fdpo":
                return self.beta * FDivergenceMargin(f=self.f, alpha=self.f_alpha)(sides)  # type: ignore[arg-type]
            case "fpo":
                return _fpo_u(self.f, self.beta * PLAIN(sides), self.f_alpha)  # type: ignore[arg-type]

    def clipped(self, u: Tensor) -> Tensor:
        """(E,) u inside the clip; the gradient is 0 outside."""
        low, high = self.clip
        return u if math.isinf(low) and math.isinf(high) else u.clamp(low, high)

    def member_loss(self, u: Tensor) -> Tensor:
        """(E,) full Bregman value of h at u (no clip, no mixture); 0 at u = 0, except lr (log 2) and kliep (1)."""
        if self.exponent is None:
            return softplus(-u)
        if self.h == "kliep":
            return torch.exp(-u) - u
        return -(phi(-(1 + self.exponent), u) + phi(self.exponent, u)) / self.scale

    def weight(self, u: Tensor) -> Tensor:
        """(E,) -d loss / d u at u, mixture and clip included: how hard this pair is pushed."""
        w = torch.sigmoid(-u)
        if self.exponent is not None:
            w_h = (torch.exp(-(1 + self.exponent) * u) + torch.exp(self.exponent * u)) / self.scale
            w = self.mix_weight * w_h + (1 - self.mix_weight) * w
        return torch.where(self._outside(u), 0.0, w)

    def G_h(self, u: Tensor) -> Tensor:
        """(E,) the same with respect to R (Proposition 4): h''(R) R + h''(1/R) / R^2, 0 where clipped."""
        G = torch.sigmoid(u)
        if self.exponent is not None:
            G_h = (torch.exp(-self.exponent * u) + torch.exp((1 + self.exponent) * u)) / self.scale
            G = self.mix_weight * G_h + (1 - self.mix_weight) * G
        return torch.where(self._outside(u), 0.0, G)

    def _outside(self, u: Tensor) -> Tensor:
        low, high = self.clip
        return (u < low) | (u > high)

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        u = self.clipped(self.u(sides))
        if self.mix_weight == 1:
            return self.member_loss(u)
        return self.mix_weight * self.member_loss(u) + (1 - self.mix_weight) * softplus(-u)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """As `Objective.__call__`; also raises where a loss overflows, naming the comparison and the remedy."""
        losses = super().__call__(*args, **kwargs)
        if not bool(losses.isfinite().all()):
            index = int((~losses.isfinite()).nonzero()[0])
            raise ValueError(
                f"BPO(h={self.h!r}): the loss of comparison {index} is {float(losses[index].detach())}; its ratio R overflows "
                f"{losses.dtype} because the policy strongly prefers the losing side. Set r_max (the paper uses 30 or 100)"
            )
        return losses

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Weights, and which pairs are clipped at either side."""
        with torch.no_grad():
            u = self.u(sides)
            low, high = self.clip
            return {
                "bpo/weight": self.weight(u),
                "bpo/clipped_r_min": (u > high).to(u.dtype),
                "bpo/clipped_r_max": (u < low).to(u.dtype),
            }


def _fpo_u(f: Generator, v: Tensor, alpha: float) -> Tensor:
    """(E,) -log(e^{f(sigma(v))} - 1), without forming f where it is tiny or e^f where it is huge."""
    log_f = log_generator(f, v, alpha)
    F = torch.exp(log_f)
    small = F < 0.1
    x = torch.where(small, F, 0.0)
    y = torch.where(small, 1.0, F)
    return -torch.where(small, log_f + x / 2 + x**2 / 24 - x**4 / 2880, y + torch.log(-torch.expm1(-y)))


__all__ = ["BPO"]
