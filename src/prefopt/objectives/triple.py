"""Triple preference optimization: a pair, and a third answer that is to become likely (arXiv 2405.16681).

Symbols and shapes: see `base.py`. The third answer is the paper's gold one; TRL and the data call it `reference`, which has
nothing to do with a reference model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from prefopt.objectives.base import State, require
from prefopt.objectives.reference_free import SFT, SimPO, WithLikelihood, check_smoothed, preference_loss
from prefopt.objectives.sides import Branch, Sides

GOLD = Branch(condition="own", sample="reference", reference=False)


@dataclass(frozen=True, kw_only=True)
class TPO(WithLikelihood):
    """-log sigma(beta (log pi(y_w) - log pi(y_l))) + tpo_alpha NLL(y_gold) (arXiv 2405.16681, eq. 6; TRL's TPOTrainer).

    Attributes:
        beta: > 0; with loss = "ipo" its tau.
        tpo_alpha: weight >= 0 of the gold answer's mean-token negative log-likelihood; at 0 rows need no `reference`.
        loss: of the pair: "sigmoid"; "hinge", max(0, 1 - u); "ipo", on averages a token; or "tpo-l", SimPO's.
        label_smoothing: e in [0, 0.5), share of labels taken to be flipped; for "sigmoid" and "tpo-l".
        tpo_l_gamma: target reward margin >= 0 of "tpo-l", 0.5 unless given; no other loss takes it.

    >>> TPO(beta=0.1)(torch.tensor([-4.0]), torch.tensor([-4.0]), logp_reference=torch.tensor([-6.0]),
    ...     length_reference=torch.tensor([3.0]), length_w=torch.tensor([2.0]), length_l=torch.tensor([2.0]))
    tensor([2.6931])
    """

    needs_reference: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"length"})
    beta: float = 0.01
    tpo_alpha: float = 1.0
    loss: Literal["sigmoid", "hinge", "ipo", "tpo-l"] = "sigmoid"
    label_smoothing: float = 0.0
    tpo_l_gamma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")
        require(self.tpo_alpha >= 0, f"tpo_alpha must be at least 0; given {self.tpo_alpha}")
        check_smoothed(self.loss, self.label_smoothing)
        require(
            self.tpo_l_gamma is None or self.tpo_l_gamma >= 0,
            f"tpo_l_gamma must be at least 0; given {self.tpo_l_gamma}",
        )
        require(
            self.tpo_l_gamma is None or self.loss == "tpo-l",
            f"tpo_l_gamma is for loss=tpo-l, and loss={self.loss} does not read it; given {self.tpo_l_gamma}. Leave one of "
            "them out",
        )

    @property
    def branches(self) -> Mapping[str, Branch]:  # type: ignore[override]
        """The gold answer, where it counts."""
        return {"reference": GOLD} if self.tpo_alpha > 0 else {}

    @property
    def sft(self) -> SFT:
        """The likelihood term; it counts no tokens where it does not count itself."""
        return super().sft if self.tpo_alpha > 0 else SFT()

    def likely(self, sides: Sides) -> Sides:
        """The gold answer in the winner's place, whoever won."""
        gold = sides.branches["reference"]
        return replace(sides, logp_w=gold.logp, length_w=gold.length)

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """The likelihood term's, of all gold answers."""
        return self.sft.statistics(self.likely(sides), None) if self.tpo_alpha > 0 else {}

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        if self.loss == "tpo-l":
            gamma = 0.5 if self.tpo_l_gamma is None else self.tpo_l_gamma
            simpo = SimPO(beta=self.beta, gamma=gamma, label_smoothing=self.label_smoothing)
            preference_E = simpo.win_loss(sides, state)
        else:
            preference_E = preference_loss(self.loss, sides, self.beta, self.label_smoothing)
        if self.tpo_alpha == 0:
            return preference_E
        return preference_E + self.tpo_alpha * self.nll(sides, state)

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Negative log-likelihood of the gold answer a token, nats."""
        return {"tpo/nll": SFT().win_loss(self.likely(sides), {}).detach()} if self.tpo_alpha > 0 else {}


__all__ = ["TPO"]
