"""Objectives that contrast two images: the answers to both, or one answer under both.

    m, m'       the comparison's own image, and the contrast image
    y_w, y_l    the right and a wrong answer under m (chosen, rejected);  y'_w, y'_l  the same under m' (contrast_chosen, ...)
    rho_c       rho(m, y'_w)        rho_cc  rho(m', y'_w)        rho_cr   rho(m', y'_l)
    rho_cw      rho(m', y_w)        rho_rev rho(m, y_rev)        rho_crev rho(m', y_rev)
Two answers under one image have the same partition function Z(m), which cancels from their margin. One answer under two images
does not: its margin lacks beta log Z(m)/Z(m'), whatever the policy is. Other symbols and shapes: see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from prefopt.objectives.base import State, require
from prefopt.objectives.sides import Branch, Sides
from prefopt.objectives.stable import softplus
from prefopt.objectives.weighted import Terms, Weighted

BRANCHES = {
    "c": Branch(condition="own", sample="contrast_chosen"),
    "cc": Branch(condition="contrast", sample="contrast_chosen"),
    "cw": Branch(condition="contrast", sample="chosen"),
    "cr": Branch(condition="contrast", sample="contrast_rejected"),
    "rev": Branch(condition="own", sample="revised"),
    "crev": Branch(condition="contrast", sample="revised"),
}
"""What the names of their log-ratios stand for."""


def named(*names: str) -> Mapping[str, Branch]:
    """Some of `BRANCHES`."""
    return {name: BRANCHES[name] for name in names}


EQUAL = 1e-3  # nats; what rounding does to the difference of two sums of a hundred tokens in float32


@dataclass(frozen=True, kw_only=True)
class SymMPO(Weighted):
    """Symmetric multimodal preference optimization (arXiv 2506.11712, the authors' released code).

        response  -log sigma(beta (rho_w - rho_l))
        pair      -log sigma(beta m_1) - log sigma(beta m_2)       m_1 = rho_w - rho_c,  m_2 = rho_cc - rho_cw
        margin    (m_1 - m_2)^2
        anchor    -log sigma(beta rho_w - delta) - log sigma(beta rho_cc - delta)
        loss      = response + lambda pair + gamma margin + eta anchor

    Each image has its own right answer, and the other image's right answer is the wrong one: both margins are between two
    answers under one image. The pair term alone is DPO on the rows (m; y_w, y'_w) and (m'; y'_w, y_w). No term stops a
    gradient. The margin term is a bias unless the two true margins agree; it only says that similar images should have
    similar margins.

    Attributes:
        beta: > 0.
        pair_weight: lambda >= 0, of the sum of both directions.
        margin_weight: gamma >= 0, in the units of `margin_units`.
        anchor_weight: eta >= 0, of the sum of both anchors.
        anchor_delta: delta, the reward that the right answers should exceed.
        response_weight: weight >= 0 of the response term; with 0 nothing of y_l is read, so rows need none.
        margin_units: "logratio" squares nats, as the released code does and the reported numbers come from; "reward" squares
            beta times them, as the paper writes it (the same gamma / beta^2).
        dpo_on_contrast: add the response term under m' too, between y'_w and y'_l.
        average: take means over tokens instead of sums, of policy and reference alike.

    >>> zero = torch.zeros(1)
    >>> SymMPO()(zero, zero, rho_c=zero, rho_cc=zero, rho_cw=zero)  # 4 log 2
    tensor([2.7726])
    """

    wins_only: ClassVar[bool] = True
    label: ClassVar[str] = "symmpo"
    pair_weight: float = 0.5
    margin_weight: float = 1e-4
    anchor_weight: float = 1.0
    anchor_delta: float = 0.0
    response_weight: float = 1.0
    margin_units: Literal["logratio", "reward"] = "logratio"
    dpo_on_contrast: bool = False
    average: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.response_weight > 0 or not self.dpo_on_contrast,
            "dpo_on_contrast is a part of the response term: give it a response_weight above 0, or leave it out",
        )

    @property
    def reads_loser(self) -> bool:  # type: ignore[override]
        """Whether the response term counts."""
        return self.response_weight > 0

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Lengths for means."""
        return frozenset({"length"}) if self.average else frozenset()

    @property
    def branches(self) -> Mapping[str, Branch]:  # type: ignore[override]
        """What the terms that count read."""
        crossed = self.pair_weight > 0 or self.margin_weight > 0
        read = {
            "c": crossed,
            "cc": crossed or self.anchor_weight > 0 or self.dpo_on_contrast,
            "cw": crossed,
            "cr": self.dpo_on_contrast,
        }
        return named(*(name for name, wanted in read.items() if wanted))

    @property
    def terms(self) -> Terms:
        """The four of the loss."""
        return {
            "response": (self.response_weight, self.response),
            "pair": (self.pair_weight, self.pair),
            "margin": (self.margin_weight, self.margin),
            "anchor": (self.anchor_weight, self.anchor),
        }

    def rho(self, sides: Sides, name: str) -> Tensor:
        """(E,) log-ratio of a side or branch: nats, or nats a token."""
        own = name in ("w", "l")
        rho = getattr(sides, f"rho_{name}") if own else sides.rho(name)
        if not self.average:
            return rho
        length = getattr(sides, f"length_{name}") if own else sides.branches[name].length
        if length is None:
            raise ValueError(f"means over tokens need the lengths: give length_{name}=...")
        return rho / length

    def margins(self, sides: Sides) -> tuple[Tensor, Tensor]:
        """(E,) m_1 and m_2, between the same two answers under either image."""
        m_1 = self.rho(sides, "w") - self.rho(sides, "c")
        return m_1, self.rho(sides, "cc") - self.rho(sides, "cw")

    def response(self, sides: Sides) -> Tensor:
        """(E,) right against wrong answer under m, and if asked for under m'."""
        loss_E = self.preferred(self.rho(sides, "w") - self.rho(sides, "l"))
        if self.dpo_on_contrast:
            loss_E = loss_E + self.preferred(self.rho(sides, "cc") - self.rho(sides, "cr"))
        return loss_E

    def pair(self, sides: Sides) -> Tensor:
        """(E,) each image prefers its own answer."""
        m_1, m_2 = self.margins(sides)
        return self.preferred(m_1) + self.preferred(m_2)

    def margin(self, sides: Sides) -> Tensor:
        """(E,) squared difference of the two margins."""
        m_1, m_2 = self.margins(sides)
        return (self.unit * (m_1 - m_2)) ** 2

    @property
    def unit(self) -> float:
        """What a nat counts in the margin term."""
        return self.beta if self.margin_units == "reward" else 1.0

    def anchor(self, sides: Sides) -> Tensor:
        """(E,) both right answers gain over the reference."""
        own, other = (self.beta * self.rho(sides, name) - self.anchor_delta for name in ("w", "cc"))
        return softplus(-own) + softplus(-other)

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Terms, branches' rewards, and of the crossed pairs margins, their gap, accuracies and the margin term's share.

        `margin_share` is that of the margin term in the size of the gradient with respect to the two margins, in [0, 1].
        """
        found = super().diagnostics(sides, state)
        if "c" not in self.branches:
            return found
        m_1, m_2 = (m.detach() for m in self.margins(sides))
        gap = (m_1 - m_2).abs()
        of_pair = (
            self.pair_weight * self.beta * (torch.sigmoid(-self.beta * m_1) + torch.sigmoid(-self.beta * m_2))
        )
        of_margin = 4 * self.margin_weight * self.unit**2 * gap
        total = (of_pair + of_margin).clamp_min(torch.finfo(gap.dtype).tiny)
        return found | {
            "symmpo/margin_own": m_1,
            "symmpo/margin_contrast": m_2,
            "symmpo/margin_gap": gap,
            "symmpo/margin_share": of_margin / total,
            "symmpo/accuracy_own": above_zero(m_1),
            "symmpo/accuracy_contrast": above_zero(m_2),
        }


def above_zero(margin_E: Tensor) -> Tensor:
    """(E,) 1 for margins above zero, one half for those that are zero but for rounding: at the start all are."""
    return (margin_E > EQUAL).to(margin_E.dtype) + 0.5 * (margin_E.abs() <= EQUAL)


@dataclass(frozen=True, kw_only=True)
class MDPO(Weighted):
    """mDPO (arXiv 2406.11839): DPO, the same answer under a spoilt image, and an anchor; MFPO's form too.

        -log sigma(beta (rho_w - rho_l)) - w_i log sigma(beta (rho_w - rho_cw)) - w_a log sigma(beta rho_w - delta)

    The image term compares one answer under two images, so log Z(m)/Z(m') is missing from its margin.

    Attributes:
        beta: > 0.
        image_weight: w_i >= 0.
        anchor_weight: w_a >= 0.
        anchor_delta: delta, the reward that the right answer should exceed.

    >>> MDPO()(torch.zeros(1), torch.zeros(1), rho_cw=torch.zeros(1))  # 3 log 2
    tensor([2.0794])
    """

    wins_only: ClassVar[bool] = True
    label: ClassVar[str] = "mdpo"
    image_weight: float = 1.0
    anchor_weight: float = 1.0
    anchor_delta: float = 0.0

    @property
    def branches(self) -> Mapping[str, Branch]:  # type: ignore[override]
        """The right answer under the contrast image."""
        return named("cw") if self.image_weight > 0 else {}

    @property
    def terms(self) -> Terms:
        """The three of the loss."""
        return {
            "response": (1.0, lambda sides: self.preferred(sides.rho_w - sides.rho_l)),
            "image": (self.image_weight, lambda sides: self.preferred(sides.rho_w - sides.rho("cw"))),
            "anchor": (
                self.anchor_weight,
                lambda sides: softplus(self.anchor_delta - self.beta * sides.rho_w),
            ),
        }


@dataclass(frozen=True, kw_only=True)
class SVCO(Weighted):
    """Symmetric visual contrastive optimization: each answer prefers its own image (arXiv 2502.13928, by arXiv 2605.31312).

        -log sigma(beta (rho_w - rho_cw)) - log sigma(beta (rho_cc - rho_c))

    The four log-ratios of SymMPO's pair term, paired along the other axis: the partition functions do not cancel. Nothing of y_l
    is read; `dpo+svco` adds the answers.

    Attributes:
        beta: > 0.

    >>> zero = torch.zeros(1)
    >>> SVCO()(zero, zero, rho_c=zero, rho_cc=zero, rho_cw=zero)  # 2 log 2
    tensor([1.3863])
    """

    wins_only: ClassVar[bool] = True
    reads_loser: ClassVar[bool] = False
    label: ClassVar[str] = "svco"
    branches: ClassVar[Mapping[str, Branch]] = named("c", "cc", "cw")

    @property
    def terms(self) -> Terms:
        """One an answer."""
        return {
            "image": (1.0, lambda sides: self.preferred(sides.rho_w - sides.rho("cw"))),
            "image_swapped": (1.0, lambda sides: self.preferred(sides.rho("cc") - sides.rho("c"))),
        }


@dataclass(frozen=True, kw_only=True)
class OPADPO(Weighted):
    """On-policy alignment DPO, its second stage, of whole answers (arXiv 2501.09695).

        sum over y in {y_gt, y_rev} of
            -log sigma(beta (rho(m, y) - rho(m, y_gen))) - mu log sigma(beta (rho(m, y) - rho(m', y)))
            - nu log sigma(beta rho(m, y) - delta)

    chosen is y_gt, the true answer; rejected is y_gen, the model's own; revised is y_rev, the own one minimally corrected. The
    released code differs: it takes the sigmoid place by place across two different answers, and its anchor lowers y_rev.

    Attributes:
        beta: > 0.
        image_weight: mu >= 0; m' is the image with 30 % of its patches masked.
        anchor_weight: nu >= 0.
        anchor_delta: delta, the reward that both good answers should exceed.

    >>> zero = torch.zeros(1)
    >>> OPADPO()(zero, zero, rho_rev=zero, rho_cw=zero, rho_crev=zero)  # (2 + 2 mu + 2 nu) log 2
    tensor([3.0498])
    """

    wins_only: ClassVar[bool] = True
    label: ClassVar[str] = "opa_dpo"
    image_weight: float = 0.2
    anchor_weight: float = 1.0
    anchor_delta: float = 0.0

    @property
    def branches(self) -> Mapping[str, Branch]:  # type: ignore[override]
        """The corrected answer, and both under the contrast image."""
        return named("rev", *(("cw", "crev") if self.image_weight > 0 else ()))

    @property
    def terms(self) -> Terms:
        """The three of the loss, each summed over both good answers."""
        return {
            "response": (1.0, self.response),
            "image": (self.image_weight, self.image),
            "anchor": (self.anchor_weight, self.anchor),
        }

    def response(self, sides: Sides) -> Tensor:
        """(E,) both good answers against the model's own."""
        return self.preferred(sides.rho_w - sides.rho_l) + self.preferred(sides.rho("rev") - sides.rho_l)

    def image(self, sides: Sides) -> Tensor:
        """(E,) both under their image against the masked one."""
        own, revised = sides.rho_w - sides.rho("cw"), sides.rho("rev") - sides.rho("crev")
        return self.preferred(own) + self.preferred(revised)

    def anchor(self, sides: Sides) -> Tensor:
        """(E,) both gain over the reference."""
        own, revised = (self.beta * rho - self.anchor_delta for rho in (sides.rho_w, sides.rho("rev")))
        return softplus(-own) + softplus(-revised)


__all__ = ["BRANCHES", "MDPO", "OPADPO", "SVCO", "SymMPO"]
