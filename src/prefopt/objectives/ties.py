"""Preference models with three outcomes, win, lose and tie: Rao-Kupper and Davidson (arXiv 2409.17431).

    d       reward margin beta * m of the two sides
    nu      tie parameter; larger means more ties at equal strength
    alpha   log nu
Both models take any margin estimator: the tie model is a link, independent of how d is estimated. Other symbols and
shapes: see `base.py`.
"""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State, as_shares, checked, require
from prefopt.objectives.pairwise import Pairwise
from prefopt.objectives.sides import Sides
from prefopt.objectives.stable import log_expm1, softplus


@dataclass(frozen=True, kw_only=True)
class TieModel(Pairwise):
    """What Rao-Kupper and Davidson share.

    Attributes:
        nu: tie parameter (Rao-Kupper: >= 1, default 3; Davidson: >= 0, default 1).
        alpha: log nu, as another way to give nu; giving both is an error.
        tie_weight: factor on the loss of tied comparisons.
    """

    nu: float = None  # type: ignore[assignment]  # set from alpha or the default
    alpha: InitVar[float | None] = None
    tie_weight: float = 1.0

    default_nu: ClassVar[float]
    least_nu: ClassVar[float]

    def __post_init__(self, alpha: float | None) -> None:
        name = type(self).__name__
        if alpha is not None and self.nu is not None:
            raise ValueError(
                f"{name}: nu and alpha = log nu are two names for one number; given nu={self.nu}, alpha={alpha}"
            )
        if alpha is not None:
            alpha = checked("alpha", alpha, float)
            require(abs(alpha) < 700, f"{name}: alpha = log nu must lie within (-700, 700); given {alpha}")
            object.__setattr__(self, "nu", math.exp(alpha))
        elif self.nu is None:
            object.__setattr__(self, "nu", self.default_nu)
        super().__post_init__()
        require(self.nu >= self.least_nu, f"{name}: nu must be at least {self.least_nu:g}; given {self.nu:g}")
        require(self.tie_weight > 0, f"tie_weight must be positive; given {self.tie_weight}")

    def replace(self, **changes: Any) -> Objective:
        """A copy with other hyper-parameters."""
        if changes.get("alpha") is not None:
            changes = {"nu": None, **changes}
        return replace(self, **changes)

    @property
    def log_nu(self) -> float:
        """alpha = log nu; -inf for a Davidson model without ties."""
        return math.log(self.nu) if self.nu > 0 else -math.inf

    @property
    def has_tie_term(self) -> bool:  # type: ignore[override]
        """False at the smallest nu, where a tie has probability 0 and the model is Bradley-Terry."""
        return self.nu > self.least_nu

    def check_data(self, has_ties: bool) -> None:
        """Refuse ties at a nu that makes them impossible."""
        if has_ties and not self.has_tie_term:
            raise ValueError(
                f"{type(self).__name__}: the tie loss is undefined for nu={self.nu:g}, which makes ties impossible; "
                f"choose nu > {self.least_nu:g} (default {self.default_nu:g}) or drop the ties"
            )

    # -- the model: three log-probabilities as functions of the reward margin d -------------------------------

    def log_p_win(self, d: Tensor) -> Tensor:
        """(E,) log-probability that the first side wins; of the second at -d."""
        raise NotImplementedError

    def log_p_tie(self, d: Tensor) -> Tensor:
        """(E,) log-probability of a tie."""
        raise NotImplementedError

    def log_probabilities(self, d: Tensor) -> Tensor:
        """(E, 3) log-probabilities of (win, lose, tie) at reward margins d.

        >>> Davidson(nu=1.0).log_probabilities(torch.zeros(1)).exp()
        tensor([[0.2500, 0.2500, 0.5000]])
        """
        return torch.stack([self.log_p_win(d), self.log_p_win(-d), self.log_p_tie(d)], dim=-1)

    def probabilities(self, d: Tensor) -> Tensor:
        """(E, 3) probabilities of (win, lose, tie)."""
        return self.log_probabilities(d).exp()

    def classify(self, d: Tensor) -> Tensor:
        """(E,) most probable outcome: 0 win, 1 lose, 2 tie."""
        return self.log_probabilities(d).argmax(-1)

    def scale_win(self, d: Tensor) -> Tensor:
        """(E,) Delta of a win: grad loss = -Delta * beta * grad m (section 2.3 of the paper)."""
        raise NotImplementedError

    def scale_tie(self, d: Tensor) -> Tensor:
        """(E,) Delta of a tie; odd in d, so that ties pull the margin to 0 from both sides."""
        raise NotImplementedError

    def ideal_margin(self, p_win: float, p_lose: float) -> float:
        """Margin m (nats) of the best policy if these are the true outcome probabilities; the rest are ties."""
        raise NotImplementedError

    @classmethod
    def nu_from_tie_rate(cls, tie_rate: float) -> float:
        """The nu at which two equally good responses tie with probability `tie_rate` in [0, 1)."""
        raise NotImplementedError

    @classmethod
    def _slope(cls, log_nu: float, d: Tensor, shares_E3: Tensor) -> float:
        """Derivative in log nu of the mean negative log-likelihood."""
        raise NotImplementedError

    @classmethod
    def fit_nu(cls, d: Tensor, outcome: Tensor) -> float:
        """The nu of highest likelihood for fixed reward margins.

        Args:
            d: (E,) reward margins, dimensionless, of held-out comparisons.
            outcome: (E,) boolean, True = tie, or (E, 3) shares of (win, lose, tie).

        Raises:
            ValueError: no ties, or nothing but ties: the likelihood then has no maximum.

        >>> nu = RaoKupper.fit_nu(torch.zeros(4), torch.tensor([True, False, True, False]))
        >>> round(nu, 4)  # two equals tie half of the time
        3.0
        """
        d = d.detach().double()
        shares_E3 = as_shares(outcome, like=d)
        share = float(shares_E3[:, 2].mean())
        require(
            0 < share < 1,
            f"nu can be fitted only where some but not all comparisons tie; here a share of {share:g}",
        )
        low, high = -50.0 if cls.least_nu == 0 else 1e-12, 50.0
        for _ in range(100):  # the negative log-likelihood is convex in log nu: bisect its slope
            middle = (low + high) / 2
            low, high = (low, middle) if cls._slope(middle, d, shares_E3) > 0 else (middle, high)
        return math.exp((low + high) / 2)

    # -- the loss ---------------------------------------------------------------------------------------------

    def link(self, u: Tensor) -> Tensor:
        """(E,) negative log-likelihood of a win."""
        return -self.log_p_win(u)

    def tie_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) negative log-likelihood of a tie, times `tie_weight`."""
        return -self.tie_weight * self.log_p_tie(self.u(sides))

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """How strongly a win and a tie at these margins would pull."""
        with torch.no_grad():
            d = self.u(sides)
            return {"ties/scale_win": self.scale_win(d), "ties/scale_tie": self.scale_tie(d)}


@dataclass(frozen=True, kw_only=True)
class RaoKupper(TieModel):
    """DPO-RK: ties by Rao and Kupper (1967), P(win) = sigma(d - alpha) (arXiv 2409.17431, section 2.2).

    P(tie) = (nu^2 - 1) sigma(d - alpha) sigma(-d - alpha). nu = 1 without ties is DPO; wins alone are DPO with the
    offset alpha. Ties contribute almost nothing while |d| < alpha.

    >>> RaoKupper(beta=0.3, nu=3.0)(torch.zeros(2), torch.zeros(2), torch.tensor([False, True]))
    tensor([1.3863, 0.6931])
    """

    default_nu: ClassVar[float] = 3.0
    least_nu: ClassVar[float] = 1.0

    def log_p_win(self, d: Tensor) -> Tensor:
        """(E,) log sigma(d - alpha)."""
        return -softplus(self.log_nu - d)

    def log_p_tie(self, d: Tensor) -> Tensor:
        """(E,) log P(tie), as a sum of logs: 1 - P(win) - P(lose) would cancel."""
        return log_expm1(2 * self.log_nu) - (softplus(self.log_nu - d) + softplus(self.log_nu + d))

    def scale_win(self, d: Tensor) -> Tensor:
        """(E,) sigma(alpha - d)."""
        return torch.sigmoid(self.log_nu - d)

    def scale_tie(self, d: Tensor) -> Tensor:
        """(E,) sigma(alpha - d) - sigma(alpha + d), in (-1, 1)."""
        return torch.sigmoid(self.log_nu - d) - torch.sigmoid(self.log_nu + d)

    def ideal_margin(self, p_win: float, p_lose: float) -> float:
        """m = (alpha + logit P(win)) / beta."""
        return (self.log_nu + math.log(p_win) - math.log1p(-p_win)) / self.beta

    @classmethod
    def nu_from_tie_rate(cls, tie_rate: float) -> float:
        """nu = (1 + p) / (1 - p)."""
        _check_tie_rate(tie_rate)
        return (1 + tie_rate) / (1 - tie_rate)

    @classmethod
    def _slope(cls, log_nu: float, d: Tensor, shares_E3: Tensor) -> float:
        win, lose = torch.sigmoid(log_nu - d), torch.sigmoid(log_nu + d)
        tie = win + lose - 2 / -math.expm1(-2 * log_nu)
        return float((shares_E3 * torch.stack([win, lose, tie], dim=-1)).sum(-1).mean())


@dataclass(frozen=True, kw_only=True)
class Davidson(TieModel):
    """DPO-D: ties by Davidson (1970), P(tie) = 2 nu sqrt(P(win) P(lose)) (arXiv 2409.17431, section 2.2).

    P(win) / P(lose) = e^d, as in Bradley-Terry. nu = 0 without ties is DPO. Its tie pull is at most half as strong as
    Rao-Kupper's.

    >>> Davidson(beta=0.3)(torch.zeros(2), torch.zeros(2), torch.tensor([False, True]))
    tensor([1.3863, 0.6931])
    """

    default_nu: ClassVar[float] = 1.0
    least_nu: ClassVar[float] = 0.0

    def log_p_win(self, d: Tensor) -> Tensor:
        """(E,) -log(1 + e^-d + 2 nu e^{-d/2})."""
        if self.nu == 0:
            return -softplus(-d)
        return -softplus(torch.logaddexp(-d, self._log_2nu - d / 2))

    def log_p_tie(self, d: Tensor) -> Tensor:
        """(E,) -log(1 + (e^{d/2} + e^{-d/2}) / (2 nu))."""
        return -softplus(torch.logaddexp(d / 2, -d / 2) - self._log_2nu)

    @property
    def _log_2nu(self) -> float:
        return math.log(2) + self.log_nu

    def scale_win(self, d: Tensor) -> Tensor:
        """(E,) P(lose) + P(tie) / 2."""
        return self.log_p_win(-d).exp() + self.log_p_tie(d).exp() / 2

    def scale_tie(self, d: Tensor) -> Tensor:
        """(E,) [P(lose) - P(win)] / 2, in (-1/2, 1/2)."""
        return (self.log_p_win(-d).exp() - self.log_p_win(d).exp()) / 2

    def ideal_margin(self, p_win: float, p_lose: float) -> float:
        """m = log(P(win) / P(lose)) / beta (Theorem 1)."""
        return math.log(p_win / p_lose) / self.beta

    @classmethod
    def nu_from_tie_rate(cls, tie_rate: float) -> float:
        """nu = p / (1 - p)."""
        _check_tie_rate(tie_rate)
        return tie_rate / (1 - tie_rate)

    @classmethod
    def _slope(cls, log_nu: float, d: Tensor, shares_E3: Tensor) -> float:
        p_tie = torch.sigmoid(math.log(2) + log_nu - torch.logaddexp(d / 2, -d / 2))
        return float((p_tie - shares_E3[:, 2]).mean())


def _check_tie_rate(rate: float) -> None:
    require(0 <= rate < 1, f"the tie rate of equals must lie in [0, 1); given {rate}")


__all__ = ["Davidson", "RaoKupper", "TieModel"]
