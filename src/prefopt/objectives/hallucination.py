"""Objectives against answers that come from the language prior: what the model says without looking, or misled by noise.

    logp(., y)  log pi_theta(y | image, prompt), summed over tokens; the blank image stands for none
    a_t         at place t of y_w, the token that a model finds likeliest under the contrast image
Other symbols and shapes: see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from prefopt.objectives.base import State, require
from prefopt.objectives.sides import Branch, Sides
from prefopt.objectives.weighted import Terms, Weighted


@dataclass(frozen=True, kw_only=True)
class VDPO(Weighted):
    """Vision-guided DPO (arXiv 2411.02712, the authors' released code): a policy guided away from its answer without the image.

        g(y)  = (1 + alpha) logp(m, y) - alpha sg[logp(blank, y)]
        loss  = -log sigma(beta [(g(y_w) - logp_ref(m, y_w)) - (g(y_l) - logp_ref(m, y_l))])
                - w_i log sigma(beta [rho(m, y_w) - sg rho(blank, y_w)])

    alpha = 0 is DPO. The authors' script sets their gamma = 1 + alpha to 0, where no gradient exists: refused here.

    Attributes:
        beta: > 0.
        alpha: strength of the guidance, > -1; must be given, since the paper's value is not known.
        prior: whose log-probability under the blank image is subtracted: of the "policy" as it is, or of the "reference".
        image_weight: w_i >= 0, of mDPO's image term on y_w with the blank side held fixed.

    >>> import torch
    >>> zero, one = torch.zeros(1), torch.tensor([-4.0])
    >>> VDPO(alpha=1.0)(zero, zero, logp_w=one, logp_l=one, logp_w_blank=one, logp_l_blank=one)
    tensor([0.6931])
    """

    wins_only: ClassVar[bool] = True
    required: ClassVar[frozenset[str]] = frozenset({"alpha"})
    needs: ClassVar[frozenset[str]] = frozenset({"logp"})
    label: ClassVar[str] = "vdpo"
    alpha: float | None = None
    prior: Literal["policy", "reference"] = "policy"
    image_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.alpha is None or self.alpha > -1,
            f"alpha must be above -1: at -1 the policy's own term vanishes and there is no gradient; given {self.alpha}",
        )

    @property
    def branches(self) -> Mapping[str, Branch]:  # type: ignore[override]
        """Both answers under the blank image, without gradient."""
        frozen = self.prior == "reference"
        return {
            "w_blank": Branch(
                condition="blank",
                sample="chosen",
                gradient=False,
                reference=frozen or self.image_weight > 0,
            ),
            "l_blank": Branch(condition="blank", sample="rejected", gradient=False, reference=frozen),
        }

    @property
    def terms(self) -> Terms:
        """Guided answers, and the image."""
        return {
            "response": (1.0, lambda sides: self.preferred(self.margin(sides))),
            "image": (
                self.image_weight,
                lambda sides: self.preferred(sides.rho_w - sides.rho("w_blank").detach()),
            ),
        }

    def margin(self, sides: Sides) -> Tensor:
        """(E,) difference of the guided log-ratios, nats.

        Raises:
            ValueError: alpha was not given.
        """
        self.check_given()
        assert self.alpha is not None
        logp_w, logp_l = sides.both("logp")
        guided_w = sides.rho_w + self.alpha * (logp_w - self.blank(sides, "w_blank"))
        return guided_w - (sides.rho_l + self.alpha * (logp_l - self.blank(sides, "l_blank")))

    def blank(self, sides: Sides, name: str) -> Tensor:
        """(E,) log-probability of an answer under the blank image, without gradient."""
        score = sides.branches[name]
        if score.logp is None:
            raise ValueError(f"vdpo reads log-probabilities under the blank image: give logp_{name}=...")
        return (score.logp - sides.rho(name) if self.prior == "reference" else score.logp).detach()

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Terms, and by how much the image makes the right answer likelier (nats)."""
        logp_w, _ = sides.both("logp")
        seen = (logp_w - self.blank(sides, "w_blank")).detach()
        return super().diagnostics(sides, state) | {"vdpo/image_sensitivity": seen}


@dataclass(frozen=True, kw_only=True)
class POVID(Weighted):
    """POVID, its second stage (arXiv 2402.11411, the authors' released code).

        (1 - mix) [-log sigma(beta (rho_w - rho_l))] + mix [-log sigma(beta (rho_w - rho_misled))]
        rho_misled = sum_t [log pi_theta(a_t | m, y_w before t) - log pi_ref(a'_t | m, y_w before t)]

    a_t are the policy's own likeliest tokens under the noised image, a'_t the reference's; both are scored under the clean one.

    Attributes:
        beta: > 0.
        mix: share of the term with misled tokens, in [0, 1]; 0 is the first stage, DPO on injected hallucinations.

    >>> import torch
    >>> POVID()(torch.zeros(1), torch.zeros(1), rho_misled=torch.zeros(1))  # log 2
    tensor([0.6931])
    """

    wins_only: ClassVar[bool] = True
    label: ClassVar[str] = "povid"
    mix: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.mix <= 1, f"mix must lie in [0, 1]; given {self.mix}")

    @property
    def reads_loser(self) -> bool:  # type: ignore[override]
        """Whether rejected answers count."""
        return self.mix < 1

    @property
    def branches(self) -> Mapping[str, Branch]:  # type: ignore[override]
        """The misled tokens."""
        return {"misled": Branch(condition="own", sample="misled")} if self.mix > 0 else {}

    @property
    def terms(self) -> Terms:
        """Rejected answers, and misled tokens."""
        return {
            "response": (1 - self.mix, lambda sides: self.preferred(sides.rho_w - sides.rho_l)),
            "misled": (self.mix, lambda sides: self.preferred(sides.rho_w - sides.rho("misled"))),
        }


@dataclass(frozen=True, kw_only=True)
class HADPO(Weighted):
    """HA-DPO (arXiv 2311.16839, the authors' released code): DPO beside the likelihood of instruction data.

        -log sigma(beta (rho_w - rho_l)) + lambda_aux nll(auxiliary sample)          nll: mean over its tokens

    Attributes:
        beta: > 0.
        auxiliary_weight: lambda_aux >= 0, of an instruction sample beside every comparison: 0.5 for MiniGPT-4, 0 (then no such
            sample is needed) for LLaVA.

    >>> import torch
    >>> HADPO(auxiliary_weight=0.5)(torch.zeros(1), torch.zeros(1), logp_aux=torch.tensor([-6.0]),
    ...     length_aux=torch.tensor([3.0]))
    tensor([1.6931])
    """

    label: ClassVar[str] = "ha_dpo"
    auxiliary_weight: float = 0.0

    @property
    def branches(self) -> Mapping[str, Branch]:  # type: ignore[override]
        """The instruction sample."""
        beside = Branch(condition="auxiliary", sample="auxiliary", reference=False)
        return {"aux": beside} if self.auxiliary_weight > 0 else {}

    @property
    def terms(self) -> Terms:
        """Preference and likelihood."""
        return {
            "response": (1.0, lambda sides: self.preferred(sides.rho_w - sides.rho_l)),
            "auxiliary": (self.auxiliary_weight, self.auxiliary),
        }

    def auxiliary(self, sides: Sides) -> Tensor:
        """(E,) negative log-likelihood a token of the instruction sample."""
        score = sides.branches["aux"]
        if score.logp is None or score.length is None:
            raise ValueError("ha_dpo averages over the instruction sample's tokens: give length_aux=... too")
        return -score.logp / score.length


__all__ = ["HADPO", "POVID", "VDPO"]
