"""Objectives of image diffusion: the same links and margins, at the scales of denoising errors and reverse steps.

What a log-ratio is depends on the likelihood that gives it; every one is a mean over the D latent elements, so that
beta does not depend on the resolution:
    denoising    log pi(x) = -MSE(x), the mean squared denoising error at one (timestep, noise), shared by both sides of
                 a comparison: rho = MSE_ref - MSE_theta (about 1e-4)
    transition   rho = mean_d log N(x'; mu_theta, sigma) / N(x'; mu_ref, sigma) of one reverse step
    guided       rho = q(eps_theta, target) - q(eps_ref, target), q(p, y) = -mean_d (p - y)^2 (GradSPO)
Where an objective has no reference, rho is the policy's own -MSE, or a judge's score. Other symbols and shapes: see
`base.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State, require
from prefopt.objectives.batchwise import KTO
from prefopt.objectives.margins import PLAIN, ClippedMargin, Margin
from prefopt.objectives.pairwise import DPO, smoothed_logistic
from prefopt.objectives.sides import Branch, Sides
from prefopt.objectives.stable import softplus, x_over_expm1


@dataclass(frozen=True, kw_only=True)
class DiffusionDPO(DPO):
    """Diffusion-DPO: DPO on denoising errors, -log sigma((beta/2) m) (arXiv 2311.12908, eq. 14, in the authors' code).

    The half is the authors' convention and kept, so that their beta can be used. diffusers' SD script has no half:
    its 2500 is this 5000. The reward of an image is (beta/2) rho.

    Attributes:
        beta: > 0, per mean squared error; it stands for beta T omega / D of the paper.

    >>> DiffusionDPO()(torch.tensor([1e-4]), torch.tensor([-1e-4]))
    tensor([0.4741])
    """

    beta: float = 5000.0

    @property
    def reward_scale(self) -> float:
        """beta / 2."""
        return self.beta / 2


@dataclass(frozen=True, kw_only=True)
class StepDPO(DPO):
    """DPO on one reverse step, each side's ratio clipped: -log sigma(beta [clip(rho_w) - clip(rho_l)]).

    Behind SPO (arXiv 2406.04314), LPO (arXiv 2502.01051), D3PO (arXiv 2311.13231) and GradSPO, which differ in where
    pairs and log-ratios come from. A clipped side has no gradient, also where it lies on the wrong side: a pair with
    both sides clipped teaches nothing, and nothing in the loss pulls it back.

    Attributes:
        beta: > 0, per mean log-ratio; SPO and GradSPO 10, LPO 500, D3PO 0.1.
        clip_eps: in (0, 1); the ratio e^rho of each side is clipped to [1 - clip_eps, 1 + clip_eps]. None: no clip.

    >>> StepDPO(beta=10.0)(torch.tensor([0.02, 1e4]), torch.tensor([-0.03, -1e4]))
    tensor([0.4741, 0.1261])
    """

    beta: float = 10.0
    clip_eps: float | None = 0.1
    margin: Margin = field(init=False, default=PLAIN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip_eps is not None:
            object.__setattr__(self, "margin", ClippedMargin(clip_eps=self.clip_eps))

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Which sides are clipped, and which comparisons have no gradient at all."""
        if not isinstance(self.margin, ClippedMargin):
            return {}
        out_w, out_l = self.margin.outside(sides.rho_w), self.margin.outside(sides.rho_l)
        shares = {"chosen": out_w, "rejected": out_l, "both": out_w & out_l}
        return {f"step_dpo/clipped_{name}": out.to(sides.rho_w.dtype) for name, out in shares.items()}


@dataclass(frozen=True, kw_only=True)
class DiffusionKTO(KTO):
    """Diffusion-KTO: w_y [1 - U(beta (2y - 1)(rho - Q))] on single labelled images (arXiv 2404.04465, authors' code).

    KTO with another reference point: Q = max(0, mean rho of the batch), over all processes and without gradient.

    Attributes:
        beta: > 0, per mean squared error.
        utility: U of z. "sigmoid" sigma(z), gains and losses saturate; "loss_averse" log sigma(z), losses do not;
            "risk_seeking" -log sigma(-z), gains do not, so that the loss has no lower bound.
        desirable_weight: w_1 > 0 (the authors' lambda_D).
        undesirable_weight: w_0 > 0 (the authors' lambda_U).

    >>> DiffusionKTO()(torch.tensor([1e-3, -1e-3]), torch.tensor([True, False]))
    tensor([0.2689, 0.2689])
    """

    branches: ClassVar[Mapping[str, Branch]] = {}
    beta: float = 1000.0
    utility: Literal["sigmoid", "loss_averse", "risk_seeking"] = "sigmoid"

    def statistics(self, sides: Sides, outcome_E3: Tensor | None) -> State:
        """Sum and count of log-ratios, good and bad alike."""
        rho = sides.rho_w.detach()
        return {"sum": rho.sum(), "count": torch.ones_like(rho).sum()}

    def disutility(self, z: Tensor) -> Tensor:
        """(E,) 1 - U(z)."""
        match self.utility:
            case "sigmoid":
                return super().disutility(z)
            case "loss_averse":
                return 1 + softplus(-z)
            case "risk_seeking":
                return 1 - softplus(z)


@dataclass(frozen=True, kw_only=True)
class MaPO(Objective):
    """Margin-aware preference optimization: MSE_w - beta log sigma(T [phi(c MSE_w) - phi(c MSE_l)]), no reference.

    phi(x) = x / (e^x - 1) falls from 1 at no error towards 0 (arXiv 2406.06424, authors' code; theirs is 0/0 at zero
    error). The first term is fine-tuning on the winner, as `sft`.

    Attributes:
        beta: weight > 0 of the preference term (not a scale of the margin).
        snr_value: c > 0, factor on the error inside phi.
        num_train_timesteps: T > 0, scale of the margin.

    >>> MaPO()(torch.tensor([0.0, -0.1]), torch.tensor([0.0, -0.1]))  # rho is -MSE
    tensor([0.0693, 0.1693])
    """

    needs_reference: ClassVar[bool] = False
    beta: float = 0.1
    snr_value: float = 0.5
    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "snr_value", "num_train_timesteps"):
            require(getattr(self, name) > 0, f"{name} must be positive; given {getattr(self, name)}")

    def z(self, sides: Sides) -> Tensor:
        """(E,) T [phi(c MSE_w) - phi(c MSE_l)]."""
        phi_w, phi_l = (x_over_expm1(-self.snr_value * rho) for rho in (sides.rho_w, sides.rho_l))
        return self.num_train_timesteps * (phi_w - phi_l)

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        return -sides.rho_w + self.beta * softplus(-self.z(sides))

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """The margin inside the sigmoid."""
        return {"mapo/margin": self.z(sides).detach()}


@dataclass(frozen=True, kw_only=True)
class LRM(Objective):
    """Training of a reward model: -log sigma(s_w - s_l); for a tie -[log sigma(d) + log sigma(-d)]/2 - log 2.

    rho are the judge's scores s; there is no reference and nothing to set (arXiv 2502.01051, the loss of PickScore's
    code). The tie loss is least, and exactly 0, where both sides score alike. Weights such as one over the number
    of pairs of a prompt are the edges'.

    >>> LRM()(torch.tensor([1.0, 7.0]), torch.tensor([0.0, 7.0]), torch.tensor([False, True]))
    tensor([0.3133, 0.0000])
    """

    needs_reference: ClassVar[bool] = False
    has_tie_term: ClassVar[bool] = True

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) negative log-likelihood of the win."""
        return softplus(sides.rho_l - sides.rho_w)

    def tie_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) cross-entropy to (1/2, 1/2) above its least value."""
        return smoothed_logistic(sides.rho_w - sides.rho_l, 0.5) - math.log(2)


__all__ = ["LRM", "DiffusionDPO", "DiffusionKTO", "MaPO", "StepDPO"]
