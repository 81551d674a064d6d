"""Margin estimators: how two sides become one number m. Any of them may feed any link (`pairwise.py`, `ties.py`,
`bregman.py`), for any modality.

Legend of shape suffixes: E comparisons, T tokens. Symbols: see `base.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from prefopt.objectives.sides import Sides

# float32 overflows at exp(88.7); beyond this the score is continued at its value there
MAX_EXPONENT = 80.0

FDivergence = Literal["reverse_kl", "forward_kl", "js", "alpha", "chi2"]


@dataclass(frozen=True, kw_only=True)
class Margin:
    """The plain difference of log-ratios, m = rho_w - rho_l (DPO, arXiv 2305.18290, eq. 7)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, sides: Sides) -> Tensor:
        """(E,) margins."""
        return sides.rho_w - sides.rho_l


@dataclass(frozen=True, kw_only=True)
class AverageMargin(Margin):
    """Per-token averages: m = rho_w / |y_w| - rho_l / |y_l| (IPO in practice, Tulu 3's DPO, SimPO)."""

    needs: ClassVar[frozenset[str]] = frozenset({"length"})

    def __call__(self, sides: Sides) -> Tensor:
        """(E,) margins in nats per token."""
        length_w, length_l = sides.both("length")
        return sides.rho_w / length_w - sides.rho_l / length_l


def shaped(rho: Tensor, alpha: float) -> Tensor:
    """(E,) (1 - e^(-alpha rho)) / alpha, and its limit rho at alpha = 0; the exponent is capped at `MAX_EXPONENT`.

    Of a log-ratio it is the alpha-divergence's f', of a log-probability a token AlphaPO's reward.
    """
    return rho if alpha == 0 else -torch.expm1((-alpha * rho).clamp(max=MAX_EXPONENT)) / alpha


@dataclass(frozen=True, kw_only=True)
class FDivergenceMargin(Margin):
    """m = f'(e^rho_w) - f'(e^rho_l): DPO under another f-divergence (f-DPO, arXiv 2309.16240, Theorem 1).

    `f`: reverse_kl log t; forward_kl -1/t; js log(2t/(1+t)); alpha (1 - t^-alpha)/alpha with alpha in (0, 1);
    chi2 t + log t (chi2-PO). Exponents are capped at 80, where float32 would overflow: for forward_kl that is
    a log-ratio below -80, common for long sequences, and such a pair then gives no gradient.
    """

    f: FDivergence = "js"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if self.f not in ("reverse_kl", "forward_kl", "js", "alpha", "chi2"):
            raise ValueError(f"f must be reverse_kl, forward_kl, js, alpha or chi2; given {self.f!r}")
        if self.f == "alpha" and not 0 < self.alpha < 1:
            raise ValueError(
                f"alpha must lie strictly between 0 and 1 (0 is reverse KL, 1 forward KL); given {self.alpha}"
            )

    def score(self, rho: Tensor) -> Tensor:
        """(E,) f'(e^rho) up to a constant that cancels in the difference."""
        match self.f:
            case "reverse_kl":
                return rho
            case "forward_kl":
                return -torch.exp((-rho).clamp(max=MAX_EXPONENT))
            case "js":
                return torch.nn.functional.logsigmoid(rho)
            case "alpha":
                return shaped(rho, self.alpha)
            case "chi2":
                return torch.exp(rho.clamp(max=MAX_EXPONENT)) + rho

    def __call__(self, sides: Sides) -> Tensor:
        """(E,) margins."""
        return self.score(sides.rho_w) - self.score(sides.rho_l)


def desensitized(sides: Sides, name: str, a: float) -> tuple[Tensor, Tensor]:
    """(E,) sums of winner and loser in which tokens beyond the shorter side's length count `a` times.

    Args:
        sides: with lengths.
        name: what is summed: "rho_tokens" or "logp_tokens".
        a: LD-DPO's alpha, in [0, 1].
    """
    shorter_E = torch.minimum(*sides.both("length"))

    def decayed(token_ET: Tensor) -> Tensor:
        within_ET = torch.arange(token_ET.shape[1], device=token_ET.device) < shorter_E[:, None]
        return torch.where(within_ET, token_ET, a * token_ET).sum(-1)

    winner_ET, loser_ET = sides.both(name)
    return decayed(winner_ET), decayed(loser_ET)


@dataclass(frozen=True, kw_only=True)
class LengthDesensitizedMargin(Margin):
    """Tokens beyond the shorter side's length count `a` times (LD-DPO, arXiv 2409.06411, eq. 10).

    a = 1 is the plain margin; a = 0 looks only at the first min(|y_w|, |y_l|) tokens of each side.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"length", "rho_tokens"})
    a: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.a <= 1:
            raise ValueError(f"a must lie in [0, 1]; given {self.a}")

    def __call__(self, sides: Sides) -> Tensor:
        """(E,) margins."""
        return torch.sub(*desensitized(sides, "rho_tokens", self.a))


@dataclass(frozen=True, kw_only=True)
class SegmentMargin(Margin):
    """Tokens that the other side has not count `gamma` times (RLHF-V's dense DPO, arXiv 2312.00849).

    With `normalize` each side is a mean with these weights, else a sum; gamma = 1 is then the average or the plain margin.
    """

    gamma: float = 5.0
    normalize: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"gamma must be positive and finite; given {self.gamma}")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Tokens, which of them changed, and lengths to divide by."""
        return frozenset({"rho_tokens", "changed"} | ({"length"} if self.normalize else set()))

    def score(self, rho_ET: Tensor, changed_ET: Tensor, length_E: Tensor | None = None) -> Tensor:
        """(E,) weighted sums over tokens, or means where lengths are given."""
        more_ET = (self.gamma - 1) * changed_ET
        total_E = (rho_ET * (1 + more_ET)).sum(-1)
        if length_E is None:
            return total_E
        within_ET = torch.arange(rho_ET.shape[1], device=rho_ET.device) < length_E[:, None]
        return total_E / (length_E + (more_ET * within_ET).sum(-1))

    def __call__(self, sides: Sides) -> Tensor:
        """(E,) margins."""
        (rho_w, rho_l), (changed_w, changed_l) = sides.both("rho_tokens"), sides.both("changed")
        length_w, length_l = sides.both("length") if self.normalize else (None, None)
        return self.score(rho_w, changed_w, length_w) - self.score(rho_l, changed_l, length_l)


@dataclass(frozen=True, kw_only=True)
class ClippedMargin(Margin):
    """Each side's ratio e^rho clipped to [1 - clip_eps, 1 + clip_eps], as in PPO but without its min (SPO's code).

    rho itself is clipped, to the logs of the bounds: e^rho overflows, and then even a clipped side has NaN gradients.
    The slope is 1 on the closed interval and 0 outside.
    """

    clip_eps: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.clip_eps < 1:
            raise ValueError(f"clip_eps must lie strictly between 0 and 1; given {self.clip_eps}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest log-ratio."""
        return math.log1p(-self.clip_eps), math.log1p(self.clip_eps)

    def score(self, rho: Tensor) -> Tensor:
        """(E,) clipped log-ratios."""
        return rho.clamp(*self.bounds)

    def outside(self, rho: Tensor) -> Tensor:
        """(E,) True where a side is clipped."""
        low, high = self.bounds
        return (rho < low) | (rho > high)

    def __call__(self, sides: Sides) -> Tensor:
        """(E,) margins."""
        return self.score(sides.rho_w) - self.score(sides.rho_l)


PLAIN = Margin()
AVERAGE = AverageMargin()
NAMES = ("sum", "average", "clipped", "reverse_kl", "forward_kl", "js", "chi2")


def margin_from_name(name: str | Margin) -> Margin:
    """A margin by its configuration name (`NAMES`), or an instance as is."""
    if isinstance(name, Margin):
        return name
    match name:
        case "sum":
            return PLAIN
        case "average":
            return AVERAGE
        case "clipped":
            return ClippedMargin()
        case "reverse_kl" | "forward_kl" | "js" | "chi2":
            return FDivergenceMargin(f=name)
    raise ValueError(f"margin {name!r} is not one of: {', '.join(NAMES)}, or a Margin object")
