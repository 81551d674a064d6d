"""Objectives on pairs of conditions of one image: which of two control images explains it better.

Both sides share image, timestep and noise, so what does not depend on the condition cancels from their difference. A score
is minus a mean squared denoising error, as in `diffusion.py`: logp = -l, rho = l_ref - l. Other symbols and shapes: see
`base.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, Sides, State, require
from prefopt.objectives.pairwise import smoothed_logistic


@dataclass(frozen=True, kw_only=True)
class ConditionPO(Objective):
    """Condition preference optimization for control models (arXiv 2511.04753, the authors' released code).

        Delta = l_w - l_l,  u = (beta/2) (Delta - Delta_ref)
        gated     (1-s) w max(0, Delta + margin) + s (1-w) max(0, margin - Delta),  w = sigma(u) without gradient
        sigmoid   (1-s) softplus(u) + s softplus(-u)
    and to either lambda l_w, so that the model goes on drawing well under the true condition.

    Where |Delta| is below the margin, the gradient of the sigmoid form is beta/2 times that of the gated one; beyond, the
    gate closes and the example is left alone. On image pairs under one condition the sigmoid form is Diffusion-DPO.

    Attributes:
        beta: > 0, per mean squared error; the half is the authors'.
        form: "gated" is what they released, "sigmoid" what their derivation leads to.
        margin: >= 0, in mean squared errors: how much better the true condition must explain the image; gated form only.
        label_smoothing: s in [0, 0.5).
        diffusion_weight: lambda >= 0, of the error under the winning condition. The authors draw its noise anew; here it is the
            pair's, which has the same expectation and costs nothing.
        per_beta: divide the sigmoid form by beta/2, so that lambda means the same in both forms.

    >>> ConditionPO()(torch.zeros(1), torch.zeros(1), logp_w=torch.tensor([-0.1]), logp_l=torch.tensor([-0.1]))
    tensor([0.0100])
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    beta: float = 5000.0
    form: Literal["gated", "sigmoid"] = "gated"
    margin: float = 0.01
    label_smoothing: float = 0.1
    diffusion_weight: float = 0.05
    per_beta: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")
        for name in ("margin", "diffusion_weight"):
            require(getattr(self, name) >= 0, f"{name} must not be negative; given {getattr(self, name)}")
        require(
            0 <= self.label_smoothing < 0.5,
            f"label_smoothing must be in [0, 0.5); given {self.label_smoothing}",
        )

    @property
    def reward_scale(self) -> float:
        """beta / 2."""
        return self.beta / 2

    def u(self, sides: Sides) -> Tensor:
        """(E,) reward margin, dimensionless: minus the u of the formulas above."""
        return self.reward_scale * (sides.rho_w - sides.rho_l)

    def delta(self, sides: Sides) -> Tensor:
        """(E,) Delta: error under the winning condition minus that under the losing one."""
        logp_w, logp_l = sides.both("logp")
        return logp_l - logp_w

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return self.preference(sides) - self.diffusion_weight * sides.both("logp")[0]

    def preference(self, sides: Sides) -> Tensor:
        """(E,) the loss without the diffusion term."""
        s = self.label_smoothing
        if self.form == "sigmoid":
            loss = smoothed_logistic(self.u(sides), s)
            return loss / self.reward_scale if self.per_beta else loss
        w, delta = self.weight(sides), self.delta(sides)
        return (1 - s) * w * torch.relu(delta + self.margin) + s * (1 - w) * torch.relu(self.margin - delta)

    def weight(self, sides: Sides) -> Tensor:
        """(E,) w: how far the policy is from preferring the winning condition more than the reference does, in (0, 1)."""
        return torch.sigmoid(-self.u(sides)).detach()

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Delta, the weight, and which gates are open."""
        delta = self.delta(sides).detach()
        found = {"condition_po/delta": delta, "condition_po/weight": self.weight(sides)}
        if self.form == "gated":
            found["condition_po/gate_open"] = (delta > -self.margin).to(delta.dtype)
        return found


__all__ = ["ConditionPO"]
