"""Objectives that weigh the tokens in which two answers differ: DDPO for any text, CHiP with an image contrast too.

Symbols and shapes: see `base.py`; `SegmentMargin` has the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from prefopt.objectives.base import require
from prefopt.objectives.images import named
from prefopt.objectives.margins import PLAIN, Margin, SegmentMargin
from prefopt.objectives.pairwise import Pairwise
from prefopt.objectives.sides import Branch, Sides
from prefopt.objectives.stable import softplus
from prefopt.objectives.weighted import Terms, Weighted


@dataclass(frozen=True, kw_only=True)
class DDPO(Pairwise):
    """Dense DPO on corrected segments (RLHF-V, arXiv 2312.00849): changed tokens count gamma times.

        s(y) = (1/N) [sum over unchanged tokens of rho_t + gamma sum over changed ones],   N = |unchanged| + gamma |changed|
        loss = -log sigma(beta (s(y_w) - s(y_l)))

    Attributes:
        beta: > 0, of a weighted mean over tokens; of a sum without `normalize`.
        gamma: weight of a changed token, > 0.
        normalize: divide by N; the code derived from RLHF-V's leaves it out unless it averages.

    >>> import torch
    >>> part = {"changed_w": torch.tensor([[0.0, 1.0]]), "changed_l": torch.tensor([[0.0, 1.0]])}
    >>> rho = {"rho_tokens_w": torch.tensor([[0.0, 1.0]]), "rho_tokens_l": torch.tensor([[0.0, -1.0]])}
    >>> two = torch.tensor([2.0])
    >>> DDPO(beta=0.6)(torch.tensor([1.0]), torch.tensor([-1.0]), length_w=two, length_l=two, **part, **rho)
    tensor([0.3133])
    """

    beta: float = 0.5
    gamma: float = 5.0
    normalize: bool = True
    margin: Margin = field(init=False, default=PLAIN)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "margin", SegmentMargin(gamma=self.gamma, normalize=self.normalize))

    def link(self, u: Tensor) -> Tensor:
        """(E,) logistic loss."""
        return softplus(-u)


@dataclass(frozen=True, kw_only=True)
class CHiP(Weighted):
    """Cross-modal hierarchical DPO (arXiv 2501.16629, the authors' released code).

        m_r = rho_w - rho_l,   m_v = rho_w - rho_cw            changed tokens count `segment_weight` times in all of them
        k   = K_l - sg K_w                                     K(y) = sum_t KL(pi_ref(. | y before t) || pi_theta(. | y before t))
        inside     -log sigma(beta (m_r + m_v - kappa k))
        separate   -log sigma(beta m_r) - log sigma(beta m_v) + kappa beta k

    The image term compares one answer under two images, so log Z(m)/Z(m') is missing from its margin.

    Attributes:
        beta: > 0.
        combine: "inside" is the released code: one sigmoid around all; "separate" is the paper's sum of terms.
        kappa: weight >= 0 of the divergence of the losing answer beyond that of the winning one (TDPO); 0 needs no distributions.
        segment_weight: of a changed token, > 0.

    >>> import torch
    >>> rho, none = {"rho_tokens_w": torch.zeros(1, 2), "rho_tokens_l": torch.zeros(1, 2)}, torch.zeros(1)
    >>> part = {"changed_w": torch.ones(1, 2), "changed_l": torch.ones(1, 2), "kl_w": none, "kl_l": none}
    >>> CHiP()(none, none, rho_cw=none, rho_tokens_cw=torch.zeros(1, 2), **rho, **part)  # log 2
    tensor([0.6931])
    """

    wins_only: ClassVar[bool] = True
    label: ClassVar[str] = "chip"
    branches: ClassVar[Mapping[str, Branch]] = named("cw")
    combine: Literal["inside", "separate"] = "inside"
    kappa: float = 0.1
    segment_weight: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kappa >= 0, f"kappa must not be negative; given {self.kappa}")
        require(self.segment_weight > 0, f"segment_weight must be positive; given {self.segment_weight}")

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Tokens, which of them changed, and divergences."""
        return self.weighted.needs | ({"kl"} if self.kappa > 0 else set())

    @property
    def weighted(self) -> SegmentMargin:
        """How tokens are weighed."""
        return SegmentMargin(gamma=self.segment_weight, normalize=False)

    @property
    def terms(self) -> Terms:
        """One around all, or one each."""
        if self.combine == "inside":
            return {"all": (1.0, lambda sides: self.preferred(self.margin(sides)))}
        return {
            "response": (1.0, lambda sides: self.preferred(self.weighted(sides))),
            "image": (1.0, lambda sides: self.preferred(self.of_image(sides))),
            "token": (self.kappa, lambda sides: self.beta * self.divergence(sides)),
        }

    def margin(self, sides: Sides) -> Tensor:
        """(E,) what stands inside the one sigmoid, before beta."""
        both = self.weighted(sides) + self.of_image(sides)
        return both - self.kappa * self.divergence(sides) if self.kappa > 0 else both

    def of_image(self, sides: Sides) -> Tensor:
        """(E,) m_v: the right answer under its image and under the contrast image."""
        other_ET = sides.branches["cw"].rho_tokens
        if other_ET is None:
            raise ValueError("chip weighs tokens under the contrast image too: give rho_tokens_cw=...")
        (tokens_ET, _), (changed_ET, _) = sides.both("rho_tokens"), sides.both("changed")
        return self.weighted.score(tokens_ET - other_ET, changed_ET)

    def divergence(self, sides: Sides) -> Tensor:
        """(E,) k."""
        kl_w, kl_l = sides.both("kl")
        return kl_l - kl_w.detach()


__all__ = ["DDPO", "CHiP"]
