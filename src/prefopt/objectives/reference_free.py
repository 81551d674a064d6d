"""Losses without a reference: their rho is the policy's own log-probability sum.

    a_w, a_l    log-probability a token, rho / |y|
Other symbols and shapes: see `base.py`.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State, checked, require
from prefopt.objectives.margins import AVERAGE, PLAIN, shaped
from prefopt.objectives.pairwise import check_smoothing, from_target, hinge, smoothed_logistic
from prefopt.objectives.sides import Sides
from prefopt.objectives.stable import log1mexp, softplus

Preference = Literal["sigmoid", "hinge", "ipo"]


def average(rho_E: Tensor, length_E: Tensor | None) -> Tensor:
    """(E,) per-token averages."""
    assert length_E is not None  # guaranteed by `needs`
    return rho_E / length_E


@dataclass(frozen=True, kw_only=True)
class SimPO(Objective):
    """Simple preference optimization: -log sigma(beta (a_w - a_l) - gamma) (arXiv 2405.14734, eq. 6).

    Give `gamma`, or `gamma_beta_ratio` as the authors' code does, not both; default: a ratio of 0.5. TRL's `simpo_gamma`
    is `gamma`; its default beta of 0.1 is too small for averages.

    Attributes:
        beta: > 0; 2 to 2.5 in the paper, 10 for newer data.
        gamma: target reward margin, >= 0.
        gamma_beta_ratio: gamma / beta.
        label_smoothing: e in [0, 0.5), share of labels taken to be flipped.

    >>> SimPO(beta=2.0, gamma=1.0)(torch.tensor([-8.0]), torch.tensor([-8.0]), length_w=torch.tensor([8.0]),
    ...     length_l=torch.tensor([4.0]))
    tensor([0.3133])
    """

    needs_reference: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"length"})
    beta: float = 2.0
    gamma: float = None  # type: ignore[assignment]  # set from the ratio or the default
    gamma_beta_ratio: InitVar[float | None] = None
    label_smoothing: float = 0.0

    def __post_init__(self, gamma_beta_ratio: float | None) -> None:
        if self.gamma is not None and gamma_beta_ratio is not None:
            raise ValueError(
                f"gamma and gamma_beta_ratio are two ways to say one thing; given gamma={self.gamma}, "
                f"gamma_beta_ratio={gamma_beta_ratio}"
            )
        if self.gamma is None:
            ratio = 0.5 if gamma_beta_ratio is None else checked("gamma_beta_ratio", gamma_beta_ratio, float)
            object.__setattr__(self, "gamma", checked("beta", self.beta, float) * ratio)
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")
        require(self.gamma >= 0, f"gamma must be at least 0; given {self.gamma}")
        check_smoothing(self.label_smoothing)

    def replace(self, **changes: Any) -> Objective:
        """A copy with other hyper-parameters; gamma stays unless it or the ratio is given."""
        if changes.get("gamma_beta_ratio") is not None:
            changes = {"gamma": None, **changes}
        return replace(self, **changes)

    def reward(self, a: Tensor) -> Tensor:
        """(E,) reward of a log-probability a token, before beta."""
        return a

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        a_w, a_l = average(sides.rho_w, sides.length_w), average(sides.rho_l, sides.length_l)
        u = self.beta * (self.reward(a_w) - self.reward(a_l)) - self.gamma
        return smoothed_logistic(u, self.label_smoothing)


@dataclass(frozen=True, kw_only=True)
class AlphaPO(SimPO):
    """AlphaPO: SimPO with the reward beta (1 - p^-alpha) / alpha, p = e^a (arXiv 2501.03884).

    alpha = 0 is SimPO's logarithm. Its slope is beta p^-alpha: a positive alpha makes the reward steeper for unlikely text, a
    negative one flatter. In float32 a log-probability below -80 / alpha a token gives no gradient.

    Attributes:
        alpha: shape of the reward, of either sign; the further from 0, the less like a logarithm.

    >>> AlphaPO(beta=2.0, gamma=1.0, alpha=0.5)(torch.tensor([-8.0]), torch.tensor([-8.0]), length_w=torch.tensor([8.0]),
    ...     length_l=torch.tensor([4.0]))
    tensor([0.0370])
    """

    alpha: float = 0.25

    def reward(self, a: Tensor) -> Tensor:
        """(E,) shaped reward."""
        return shaped(a, self.alpha)


@dataclass(frozen=True, kw_only=True)
class ORPO(Objective):
    """Odds ratio preference optimization: -a_w - lambda log sigma(log odds_w - log odds_l).

    arXiv 2403.07691, eq. 6, with log odds = a - log(1 - e^a). TRL's `beta` is `lambda`. TRL and the authors' code take
    the likelihood term over prompt and completion, averaged over all tokens of the batch; this one takes the
    completion, averaged per sequence.

    Attributes:
        lambda_: weight >= 0 of the odds-ratio term; also accepted as `lambda`.
    """

    needs_reference: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"length"})
    lambda_: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lambda_ >= 0, f"lambda must be at least 0; given {self.lambda_}")

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        a_w, a_l = average(sides.rho_w, sides.length_w), average(sides.rho_l, sides.length_l)
        log_odds_ratio = _log_odds(a_w) - _log_odds(a_l)
        return -a_w + self.lambda_ * softplus(-log_odds_ratio)

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """The log odds ratio."""
        a_w, a_l = average(sides.rho_w, sides.length_w), average(sides.rho_l, sides.length_l)
        return {"orpo/log_odds_ratio": (_log_odds(a_w) - _log_odds(a_l)).detach()}


def _log_odds(a: Tensor) -> Tensor:
    a = a.clamp(max=-1e-7)  # certainty has infinite odds
    return a - log1mexp(a)


@dataclass(frozen=True, kw_only=True)
class SLiC(Objective):
    """Sequence likelihood calibration: max(0, delta - log pi(y_w) + log pi(y_l)) - lambda log pi(y_w).

    arXiv 2305.10425, eq. 1 in its form without a reference, with the winner as the regularization target. The form
    on log-ratios is `hinge`.

    Attributes:
        delta: margin wanted between the two log-probability sums, nats.
        lambda_: weight >= 0 of the winner's likelihood; also accepted as `lambda`.
    """

    needs_reference: ClassVar[bool] = False
    delta: float = 1.0
    lambda_: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.delta >= 0, f"delta must be at least 0; given {self.delta}")
        require(self.lambda_ >= 0, f"lambda must be at least 0; given {self.lambda_}")

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return torch.relu(self.delta - sides.rho_w + sides.rho_l) - self.lambda_ * sides.rho_w


@dataclass(frozen=True, kw_only=True)
class SFT(Objective):
    """Negative log-likelihood of the winner, a mean over its tokens: the regularizer of RPO and of MPO's mixture.

    Usually a term of a sum (`"dpo+sft"`). TRL's "sft" averages over all tokens of the batch, so that long winners
    count more: `average="batch"`, which divides by the mean length of the (global) batch's winners.

    Attributes:
        average: "sequence" gives every winner the same weight, "batch" every token.

    >>> SFT()(torch.zeros(1), torch.zeros(1), logp_w=torch.tensor([-6.0]), logp_l=torch.tensor([-9.0]),
    ...     length_w=torch.tensor([3.0]), length_l=torch.tensor([3.0]))
    tensor([2.])
    """

    needs_reference: ClassVar[bool] = False
    winner_alone: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"logp", "length"})
    average: Literal["sequence", "batch"] = "sequence"

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        assert sides.logp_w is not None  # guaranteed by `needs`
        return -average(sides.logp_w, state["mean_length"] if self.average == "batch" else sides.length_w)

    def initial_state(self) -> State:
        """Nothing, or a length that the first batch replaces."""
        return {"mean_length": torch.ones(())} if self.average == "batch" else {}

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """Tokens of the winners, and winners."""
        if self.average == "sequence":
            return {}
        assert sides.length_w is not None  # guaranteed by `needs`
        if outcome_E3 is None or sides.length_l is None:
            return {"tokens": sides.length_w.sum(), "count": torch.ones_like(sides.length_w).sum()}
        length_w, length_l = sides.both("length")
        win, lose = outcome_E3[:, 0], outcome_E3[:, 1]
        return {"tokens": (win * length_w + lose * length_l).sum(), "count": (win + lose).sum()}

    def next_state(self, state: State, sums: State) -> State:
        """The mean length of this batch's winners."""
        if self.average == "sequence":
            return state
        count = sums["count"]
        return {
            "mean_length": torch.where(
                count > 0, sums["tokens"] / count.clamp(min=1e-6), torch.ones_like(count)
            )
        }


@dataclass(frozen=True, kw_only=True)
class WithLikelihood(Objective):
    """Base: losses with a negative log-likelihood beside the preference, which is `SFT`'s.

    Attributes:
        average: see `SFT`: "sequence" gives every sample the same weight, "batch" every token.
    """

    average: Literal["sequence", "batch"] = "sequence"

    @property
    def sft(self) -> SFT:
        """The likelihood term."""
        return SFT(average=self.average)

    def likely(self, sides: Sides) -> Sides:
        """Sides whose winner is to become likelier."""
        return sides

    def nll(self, sides: Sides, state: State) -> Tensor:
        """(E,) mean-token negative log-likelihoods."""
        return self.sft.win_loss(self.likely(sides), state)

    def initial_state(self) -> State:
        """The likelihood term's."""
        return self.sft.initial_state()

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """The likelihood term's."""
        return self.sft.statistics(self.likely(sides), outcome_E3)

    def next_state(self, state: State, sums: State) -> State:
        """The likelihood term's."""
        return self.sft.next_state(state, sums)


def preference_loss(loss: Preference, sides: Sides, beta: float, e: float) -> Tensor:
    """(E,) losses of log-probabilities: sums, and for "ipo", whose target is a number of nats, averages a token.

    Args:
        loss: which.
        sides: with lengths.
        beta: scale of the margin, or ipo's tau.
        e: label smoothing of "sigmoid".
    """
    if loss == "ipo":
        return from_target(AVERAGE(sides), beta)
    u = beta * PLAIN(sides)
    return hinge(u) if loss == "hinge" else smoothed_logistic(u, e)


def check_smoothed(loss: str, e: float) -> None:
    """Raise ValueError for a label smoothing out of range, or where the loss has no place for it."""
    check_smoothing(e)
    require(
        e == 0 or loss not in ("hinge", "ipo"),
        f"label_smoothing is for loss=sigmoid, and loss={loss} does not read it; given {e}. Leave one of them out",
    )


@dataclass(frozen=True, kw_only=True)
class ContrastivePO(WithLikelihood):
    """Contrastive preference optimization: -log sigma(beta (log pi(y_w) - log pi(y_l))) + alpha NLL(y_w).

    arXiv 2401.08417, eqs. 4 and 5 (the paper calls it CPO). As in the authors' code and TRL's CPOTrainer, log-probability
    sums in the preference term and a mean over tokens in the likelihood term; those average it over all tokens of the
    batch (`average="batch"`), this one per sequence.

    Attributes:
        beta: > 0; with loss = "ipo" its tau.
        alpha: weight >= 0 of the winner's mean-token negative log-likelihood; TRL's `cpo_alpha`.
        loss: "sigmoid"; "hinge", max(0, 1 - u); or "ipo", a squared distance from 1/(2 beta) on averages a token.
        label_smoothing: e in [0, 0.5), share of labels taken to be flipped; for "sigmoid".
    """

    needs_reference: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"length"})
    beta: float = 0.1
    alpha: float = 1.0
    loss: Preference = "sigmoid"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")
        require(self.alpha >= 0, f"alpha must be at least 0; given {self.alpha}")
        check_smoothed(self.loss, self.label_smoothing)

    def likely(self, sides: Sides) -> Sides:
        """The winner's, whose log-ratio is its log-probability."""
        return replace(sides, logp_w=sides.rho_w, logp_l=sides.rho_l)

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        preference_E = preference_loss(self.loss, sides, self.beta, self.label_smoothing)
        return preference_E + self.alpha * self.nll(sides, state)


__all__ = ["ORPO", "SFT", "AlphaPO", "ContrastivePO", "SLiC", "SimPO", "WithLikelihood"]
