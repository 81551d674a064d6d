"""Losses that both prefopt and TRL have, as each of them spells it: the rows of the table that `trl_parity.py` writes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

COMPARED = ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "kto/z0", "grad_norm")


@dataclass(frozen=True)
class Case:
    """One loss as each tool spells it.

    Attributes:
        name: TRL's name.
        method: prefopt's method.
        options: prefopt's keys.
        trl: fields of `DPOConfig`, or of the configuration that goes with `trainer`.
        trainer: "DPO", "KTO", "CPO" or "TPO".
        rewards: False where the two tools mean different things by a reward; docs/parity.md says which.
        merging: prompts end in a space, which the tokenizer joins with the first word of some completions.
        vision: class of `tests/tiny_vision.py` that reads rows with images; None for text.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    trl: dict[str, Any] = field(default_factory=dict)
    rewards: bool = True
    merging: bool = False
    vision: str | None = None
    trainer: str = "DPO"

    @property
    def labelled(self) -> bool:
        """Whether rows are single labelled samples."""
        return self.trainer == "KTO"

    @property
    def inputs(self) -> str:
        """The folder of its model and rows."""
        return self.vision or f"merging-{self.merging}"

    @property
    def compared(self) -> tuple[str, ...]:
        """Which of COMPARED both tools log, with one meaning."""
        if self.labelled:
            z0 = ("kto/z0",) if self.method == "kto" else ()
            return ("loss", "rewards/chosen", "rewards/rejected", *z0, "grad_norm")
        return ("loss", *COMPARED[1:4], "grad_norm") if self.rewards else ("loss", "grad_norm")


def case(
    name: str,
    method: str,
    *,
    beta: float = 0.1,
    trl: dict[str, Any] | None = None,
    rewards: bool = True,
    merging: bool = False,
    **options: Any,
) -> Case:
    """A case whose beta is the same in both tools."""
    both = {"loss_type": [name], "beta": beta, **(trl or {})}
    return Case(name, method, {"beta": beta, **options}, both, rewards, merging)


def f_divergence(name: str, **options: Any) -> Case:
    """Sigmoid loss with another divergence."""
    spelt = {"js": "js_divergence", "forward_kl": "forward_kl", "alpha": "alpha_divergence"}[options["f"]]
    trl: dict[str, Any] = {"loss_type": ["sigmoid"], "f_divergence_type": spelt}
    if "alpha" in options:
        trl["f_alpha_divergence_coef"] = 1 - options["alpha"]
    return case(name, "f_dpo", trl=trl, **options)


def reference_free(name: str, method: str, *, trainer: str, trl: dict[str, Any], **options: Any) -> Case:
    """A case of one of TRL's trainers without a reference model.

    Where its loss is of averages a token, so are its rewards, and prefopt's of sums.
    """
    beta = options.pop("beta")
    sums = trl["loss_type"] in ("sigmoid", "hinge")
    options = {"beta": beta, **options}
    return Case(name, method, options, {"beta": beta, **trl}, rewards=sums, trainer=trainer)


SIGMOID = {"loss_type": ["sigmoid"]}
BOTH = {"ld_alpha": 0.5, "use_weighting": True}
CASES = [
    case("sigmoid", "dpo"),
    case("sigmoid, merged boundaries", "dpo", trl=SIGMOID, merging=True),
    case("hinge", "hinge"),
    case("ipo", "ipo"),
    case("exo_pair", "exo", label_smoothing=1e-3, trl={"label_smoothing": 1e-3}),
    case("nca_pair", "nca"),
    case("robust", "robust", label_smoothing=0.1, trl={"label_smoothing": 0.1}),
    case("bco_pair", "bco_pair"),
    case("sppo_hard", "sppo"),
    case("aot", "aot"),
    case("aot_unpaired", "aot_unpaired"),
    case("apo_zero", "apo_zero"),
    case("apo_down", "apo_down"),
    case("discopop", "discopop", beta=0.05),
    Case("sft", "sft", {"average": "batch"}, {"loss_type": ["sft"]}, rewards=False),
    case(
        "sigmoid + 0.5 sft",
        "dpo+0.5*sft",
        average="batch",
        trl={"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
    ),
    case(
        "hinge + 0.5 sft, ld_alpha 0.5",
        "hinge",
        rpo_alpha=0.5,
        average="batch",
        ld_alpha=0.5,
        trl={"loss_type": ["hinge", "sft"], "loss_weights": [1.0, 0.5], "ld_alpha": 0.5},
        rewards=False,
    ),
    case("sigmoid_norm", "dpo", beta=5.0, margin="average"),
    f_divergence("sigmoid, js_divergence", f="js"),
    f_divergence("sigmoid, forward_kl", f="forward_kl"),
    f_divergence("sigmoid, alpha_divergence 0.7", f="alpha", alpha=0.3),
    case("sigmoid, ld_alpha 0.5", "dpo", ld_alpha=0.5, trl={**SIGMOID, "ld_alpha": 0.5}, rewards=False),
    *(
        case(
            f"{name}, ld_alpha 0.5",
            method,
            ld_alpha=0.5,
            trl={"loss_type": [name], "ld_alpha": 0.5},
            rewards=False,
        )
        for name, method in (
            ("ipo", "ipo"),
            ("apo_zero", "apo_zero"),
            ("aot", "aot"),
            ("aot_unpaired", "aot_unpaired"),
        )
    ),
    case("sigmoid, use_weighting", "dpo", use_weighting=True, trl={**SIGMOID, "use_weighting": True}),
    *(
        case(
            f"{name}, use_weighting",
            name,
            use_weighting=True,
            trl={"loss_type": [name], "use_weighting": True},
        )
        for name in ("ipo", "bco_pair")
    ),
    case(
        "sigmoid + 0.2 bco_pair, ld_alpha 0.5, use_weighting",
        "dpo+0.2*bco_pair",
        **BOTH,
        trl={"loss_type": ["sigmoid", "bco_pair"], "loss_weights": [1.0, 0.2], **BOTH},
        rewards=False,
    ),
    Case("kto, one batch", "kto", {"beta": 0.1}, {"loss_type": "kto", "beta": 0.1}, trainer="KTO"),
    Case(
        "apo_zero_unpaired",
        "apo_zero_unpaired",
        {"beta": 0.1, "desirable_weight": 1.3},
        {"loss_type": "apo_zero_unpaired", "beta": 0.1, "desirable_weight": 1.3},
        trainer="KTO",
    ),
    *(
        reference_free(
            f"CPO {loss}",
            "contrastive_po",
            trainer="CPO",
            beta=0.1,
            loss=loss,
            average="batch",
            trl={"loss_type": loss},
        )
        for loss in ("sigmoid", "hinge", "ipo")
    ),
    reference_free(
        "CPO sigmoid, cpo_alpha 0.3, label_smoothing 0.1",
        "contrastive_po",
        trainer="CPO",
        beta=0.1,
        alpha=0.3,
        label_smoothing=0.1,
        average="batch",
        trl={"loss_type": "sigmoid", "cpo_alpha": 0.3, "label_smoothing": 0.1},
    ),
    reference_free(
        "CPO simpo",
        "simpo",
        trainer="CPO",
        beta=2.0,
        gamma=0.5,
        trl={"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 0.5},
    ),
    reference_free(
        "CPO simpo, cpo_alpha 0.2",
        "simpo",
        trainer="CPO",
        beta=2.0,
        gamma=0.5,
        rpo_alpha=0.2,
        average="batch",
        trl={"loss_type": "simpo", "cpo_alpha": 0.2, "simpo_gamma": 0.5},
    ),
    reference_free(
        "CPO alphapo, alpha 0.25",
        "alpha_po",
        trainer="CPO",
        beta=2.0,
        gamma=0.5,
        alpha=0.25,
        trl={"loss_type": "alphapo", "simpo_gamma": 0.5, "alpha": 0.25},
    ),
    *(
        reference_free(
            f"TPO {loss}",
            "tpo",
            trainer="TPO",
            beta=2.0 if loss == "tpo-l" else 0.1,
            loss=loss,
            tpo_alpha=0.7,
            average="batch",
            trl={"loss_type": loss, "tpo_alpha": 0.7},
        )
        for loss in ("sigmoid", "hinge", "ipo", "tpo-l")
    ),
]
VISION = ("llava", "llava_next", "qwen2_5_vl", "gemma3")
CASES += [
    replace(one, name=f"{one.name}, images ({vision})", vision=vision)
    for vision in VISION
    for one in CASES
    if one.name in (("sigmoid", "ipo", "kto, one batch") if vision == "llava" else ("sigmoid",))
]
