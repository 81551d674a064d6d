"""LongVPO's loss: DPO, and the winner's likelihood a token (arXiv 2602.02341).

Symbols and shapes: see `base.py`. What is new in the method lies in what the reference sees, not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prefopt.objectives.base import State, require
from prefopt.objectives.pairwise import smoothed_logistic
from prefopt.objectives.reference_free import SFT, WithLikelihood
from prefopt.objectives.sides import Sides


@dataclass(frozen=True, kw_only=True)
class LongVPO(WithLikelihood):
    """-log sigma(beta (rho_w - rho_l)) - alpha log pi(y_w) / |y_w|.

    Attributes:
        beta: >= 0; 0 leaves log 2 and the second term: supervised learning of the winners, and no reference.
        alpha: >= 0, weight of the winner's negative log-likelihood a token. With a reference that sees less than the policy,
            0 loses what the model could do before.

    >>> four = torch.tensor([-4.0])
    >>> LongVPO()(torch.zeros(1), torch.zeros(1), logp_w=four, logp_l=four, length_w=-four, length_l=-four)
    tensor([1.6931])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp", "length"})
    beta: float = 0.1
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "alpha"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0; given {getattr(self, name)}")
        require(self.beta + self.alpha > 0, "beta and alpha are both 0: nothing would be learned")

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """Not where beta is 0."""
        return self.beta > 0

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        preference_E = smoothed_logistic(self.beta * (sides.rho_w - sides.rho_l), 0)
        return preference_E + self.alpha * self.nll(sides, state)

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Negative log-likelihood of the winner a token, nats."""
        return {"sft": SFT().win_loss(sides, {})}
