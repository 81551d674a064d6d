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

from prefopt.objectives.base import Objective, State, require
from prefopt.objectives.pairwise import smoothed_logistic
from prefopt.objectives.sides import Sides


@dataclass(frozen=True, kw_only=True)
class Consistent(Objective):
    """An objective with ControlNet++'s reward of consistency, a mean over the winners that a detector looked at.

    Attributes:
        consistency_weight: lambda_c >= 0; 0 for none.
    """

    consistency_weight: float = 0.0

    @property
    def state_of_rows(self) -> bool:  # type: ignore[override]
        """Whether there is a share of winners that are looked at."""
        return self.consistency_weight > 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.consistency_weight >= 0,
            f"consistency_weight must not be negative; given {self.consistency_weight}",
        )

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Scores, and what the detector says."""
        return frozenset({"logp"}) | ({"consistency", "seen"} if self.consistency_weight > 0 else set())

    def consistency(self, sides: Sides, state: State) -> Tensor:
        """(E,) whose mean is the mean of the detector's loss over the winners that were looked at; 0 where none was."""
        assert sides.consistency_w is not None  # guaranteed by `needs`
        assert sides.seen_w is not None
        share = state["seen"].to(sides.consistency_w.dtype)
        return sides.seen_w * sides.consistency_w / share.clamp_min(1e-10)

    def told(self, sides: Sides) -> dict[str, Tensor]:
        """What the detector says, of the winners that were looked at alone."""
        if self.consistency_weight == 0 or sides.consistency_w is None or sides.seen_w is None:
            return {}
        return {"consistency/loss": sides.consistency_w.detach().masked_fill(sides.seen_w == 0, torch.nan)}

    def initial_state(self) -> State:
        """The share of winners that are looked at, which the first batch replaces."""
        return {"seen": torch.ones(())} if self.consistency_weight > 0 else {}

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """Winners that were looked at, and all."""
        if self.consistency_weight == 0:
            return {}
        assert sides.seen_w is not None  # guaranteed by `needs`
        return {"seen": sides.seen_w.detach().sum(), "count": torch.ones_like(sides.seen_w).sum()}

    def next_state(self, state: State, sums: State) -> State:
        """Their share in this batch."""
        return {"seen": sums["seen"] / sums["count"]} if self.consistency_weight > 0 else state


@dataclass(frozen=True, kw_only=True)
class ConditionPO(Consistent):
    """Condition preference optimization for control models (arXiv 2511.04753, the authors' released code).

        Delta = l_w - l_l,  u = (beta/2) (Delta - Delta_ref)
        gated     (1-s) w max(0, Delta + margin) + s (1-w) max(0, margin - Delta),  w = sigma(u) without gradient
        sigmoid   (1-s) softplus(u) + s softplus(-u)
    and to either lambda l'_w, so that the model goes on drawing well under the true condition. l'_w is the error under noise and
    a timestep of its own, as in the authors' code, or the pair's.

    Where |Delta| is below the margin, the gradient of the sigmoid form is beta/2 times that of the gated one; beyond, the
    gate closes and the example is left alone. On image pairs under one condition the sigmoid form is Diffusion-DPO.

    Attributes:
        beta: > 0, per mean squared error; the half is the authors'.
        form: "gated" is what they released, "sigmoid" what their derivation leads to.
        margin: >= 0, in mean squared errors: how much better the true condition must explain the image; gated form only.
        label_smoothing: s in [0, 0.5).
        diffusion_weight: lambda >= 0, of the error under the winning condition.
        diffusion_draw: "own" draws its noise and timestep anew, as the authors do, which is half as much work again; "pair"
            takes those of the pair: the same expectation, and nothing to compute.
        consistency_weight: lambda_c >= 0, of ControlNet++'s reward of consistency (`ControlNetPP`); the authors train with it
            before, not beside.
        per_beta: divide the sigmoid form by beta/2, so that lambda means the same in both forms.

    >>> pair = ConditionPO(diffusion_draw="pair")
    >>> pair(torch.zeros(1), torch.zeros(1), logp_w=torch.tensor([-0.1]), logp_l=torch.tensor([-0.1]))
    tensor([0.0100])
    """

    beta: float = 5000.0
    form: Literal["gated", "sigmoid"] = "gated"
    margin: float = 0.01
    label_smoothing: float = 0.1
    diffusion_weight: float = 0.05
    diffusion_draw: Literal["own", "pair"] = "own"
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
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Scores, and what the terms beside the preference read."""
        own = {"logp_own"} if self.diffusion_weight > 0 and self.diffusion_draw == "own" else set()
        return super().needs | own

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
        loss_E = self.preference(sides)
        if self.diffusion_weight > 0:
            drawn = "logp_own" if self.diffusion_draw == "own" else "logp"
            loss_E = loss_E - self.diffusion_weight * sides.both(drawn)[0]
        if self.consistency_weight > 0:
            loss_E = loss_E + self.consistency_weight * self.consistency(sides, state)
        return loss_E

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
        """Delta, the weight, which gates are open, and what the detector says."""
        delta = self.delta(sides).detach()
        found = {
            "condition_po/delta": delta, "condition_po/weight": self.weight(sides), **self.told(sides)
        }  # fmt: skip
        if self.form == "gated":
            found["condition_po/gate_open"] = (delta > -self.margin).to(delta.dtype)
        return found


@dataclass(frozen=True, kw_only=True)
class ControlNetPP(Consistent):
    """ControlNet++ (arXiv 2404.07987, section 3.2): the diffusion loss, and a reward for following the control image.

        loss = l_w + lambda_c sum_i mask_i reward_i / sum_i mask_i        mask_i: t_i is small (`consistency_timestep`)
        reward = loss of a detector on the one-step estimate of x_0, against what the control image shows

    Attributes:
        consistency_weight: lambda_c >= 0; 0.5 for class maps and line art, 1 for edges and depth; 0 is ControlNet's own loss.

    >>> ControlNetPP()(torch.zeros(1), torch.zeros(1), logp_w=torch.tensor([-0.1]), logp_l=torch.tensor([-0.1]),
    ...     consistency_w=torch.tensor([0.4]), consistency_l=torch.zeros(1), seen_w=torch.ones(1), seen_l=torch.zeros(1))
    tensor([0.3000])
    """

    needs_reference: ClassVar[bool] = False
    winner_alone: ClassVar[bool] = True
    consistency_weight: float = 0.5

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        assert sides.logp_w is not None  # guaranteed by `needs`
        if self.consistency_weight == 0:
            return -sides.logp_w
        return self.consistency_weight * self.consistency(sides, state) - sides.logp_w

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """What the detector says where it looked."""
        return self.told(sides)


__all__ = ["ConditionPO", "ControlNetPP"]
