"""TRL's losses as prefopt's methods; Axolotl's are TRL's under names of its own.

Numbers agree with TRL's (docs/parity.md), likelihood terms included: TRL averages those over all tokens of a batch
(`average: batch`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefopt.migration.draft import ABSENT, Draft, as_list, number

PAIRED: Mapping[str, str] = {
    "sigmoid": "dpo",
    "sigmoid_norm": "sigmoid_norm",
    "hinge": "hinge",
    "ipo": "ipo",
    "exo_pair": "exo",
    "nca_pair": "nca",
    "robust": "robust",
    "bco_pair": "bco_pair",
    "sppo_hard": "sppo",
    "aot": "aot",
    "aot_unpaired": "aot_unpaired",
    "apo_zero": "apo_zero",
    "apo_down": "apo_down",
    "discopop": "discopop",
    "sft": "sft",
    "aot_pair": "aot",
}
"""`loss_type` of DPOConfig; `aot_pair` is what older versions called `aot`."""
SMOOTHED = frozenset({"robust", "exo", "aot", "aot_unpaired"})
"""Where TRL reads `label_smoothing`."""
DIVERGENCES: Mapping[str, str] = {
    "js_divergence": "js",
    "forward_kl": "forward_kl",
    "alpha_divergence": "alpha",
}
BATCH = "TRL averages likelihood terms over all tokens of a batch"


def dpo(draft: Draft, usual: Sequence[str] = ("sigmoid",)) -> None:
    """`loss_type`, `loss_weights` and what goes with them.

    Args:
        draft: whose names are DPOConfig's, or are called otherwise.
        usual: losses where none are given.
    """
    kinds = [str(kind) for kind in as_list(draft.take("loss_type"))] or list(usual)
    weights = [number(weight) for weight in as_list(draft.take("loss_weights"))]
    if unknown := [kind for kind in kinds if kind not in PAIRED]:
        draft.refuse(
            f"{draft.name('loss_type')}: {', '.join(unknown)}: prefopt knows no such loss of pairs; there are "
            f"{', '.join(PAIRED)}",
            "loss_weights",
            "beta",
            "label_smoothing",
            "f_divergence_type",
            "ld_alpha",
            "use_weighting",
        )
        return
    if weights and len(weights) != len(kinds):
        draft.refuse(
            f"{len(kinds)} losses and {len(weights)} {draft.name('loss_weights')}: one weight a loss is needed"
        )
        return
    if any(weights) and 0 in weights:
        kinds, weights = (
            [kind for kind, weight in zip(kinds, weights, strict=True) if weight],
            [w for w in weights if w],
        )
    terms = [PAIRED[kind] for kind in kinds]
    changed = _rewritten(draft, terms)
    if terms == ["sigmoid_norm"]:
        terms = ["dpo"]
        draft.put("margin", "average", "loss_type", why="sigmoid_norm")
    if rpo := draft.take("rpo_alpha"):
        terms, weights = [*terms, "sft"], [*(weights or [1.0] * len(terms)), rpo]
        changed += ["rpo_alpha"]
    origin = ["loss_type"] if draft.has("loss_type") else []
    draft.put("method", "+".join(terms), *origin, *changed)
    if any(weight != 1 for weight in weights):
        draft.put(
            "loss_weights", weights, *(["loss_weights"] if draft.has("loss_weights") else ["rpo_alpha"])
        )
    elif draft.has("loss_weights"):
        draft.same.append(draft.name("loss_weights"))
    if "sft" in terms:
        draft.put("average", "batch", why=BATCH)
    if terms != ["sft"]:
        _beta(draft)
    if "discopop" in terms:
        draft.explicit("tau", "discopop_tau", 0.05)
    elif draft.has("discopop_tau"):
        _unread(draft, "discopop_tau", 0.05)
    _smoothing(draft, terms)


def _rewritten(draft: Draft, terms: list[str]) -> list[str]:
    """The arguments that make f_dpo, ld_dpo or wpo of the sigmoid loss, which is replaced among the terms; other losses take them as keys."""
    divergence = (
        str(draft.take("f_divergence_type", "reverse_kl")).rpartition(".")[-1].lower()
    )  # older dumps: an enum
    changed = (
        ["f_divergence_type"] if divergence != "reverse_kl" and _diverging(draft, terms, divergence) else []
    )
    if divergence != "alpha_divergence":
        _unread(draft, "f_alpha_divergence_coef", 0.5)
    given = [
        *(["ld_alpha"] if draft.take("ld_alpha", 1) != 1 else []),
        *(["use_weighting"] if draft.take("use_weighting", False) else []),
    ]
    if terms == ["dpo"] and len(given) == 1:
        terms[:] = ["ld_dpo" if given == ["ld_alpha"] else "wpo"]
        if given == ["ld_alpha"]:
            draft.put("a", draft.take("ld_alpha"), "ld_alpha")
        return [*changed, *given]
    for key in given:
        if all(draft.takes(term, key) for term in terms if term != "sft"):
            draft.put(key, draft.take(key), key)
        else:
            draft.refuse(
                f"{draft.name(key)} with {', '.join(terms)}: prefopt has it of losses of pairs, and not of all of these"
            )
    return changed


def _diverging(draft: Draft, terms: list[str], divergence: str) -> bool:
    """Whether f_dpo with this divergence takes the place of the sigmoid loss."""
    if divergence not in DIVERGENCES:
        draft.refuse(f"f_divergence_type: {divergence}: needed one of reverse_kl, {', '.join(DIVERGENCES)}")
        return False
    if "dpo" not in terms or set(terms) - {"dpo", "sft"}:
        draft.refuse(
            f"f_divergence_type with {', '.join(terms)}: prefopt has other divergences of the sigmoid loss alone (f_dpo)"
        )
        return False
    terms[terms.index("dpo")] = "f_dpo"
    draft.put("f", DIVERGENCES[divergence], "f_divergence_type")
    if divergence == "alpha_divergence":
        origin = ["f_alpha_divergence_coef"] if draft.has("f_alpha_divergence_coef") else []
        coefficient = draft.take("f_alpha_divergence_coef", 0.5)
        draft.put("alpha", round(1 - coefficient, 12), *origin, why="1 minus TRL's coefficient")
    return True


def _beta(draft: Draft, default: float = 0.1) -> None:
    """Always written: TRL has one default for all losses, prefopt takes each method's from its paper."""
    draft.explicit("beta", "beta", default)


def _unread(draft: Draft, key: str, default: float) -> None:
    """A hyper-parameter of a loss that this is not."""
    value = draft.take(key, ABSENT)
    if value == default:
        draft.same.append(draft.name(key))
    elif value is not ABSENT:
        draft.leave("this loss does not read it", key)


def _smoothing(draft: Draft, terms: Sequence[str]) -> None:
    epsilon = draft.take("label_smoothing", 0.0)
    reading = [term for term in terms if term in SMOOTHED]
    if not reading:
        if not epsilon:
            draft.same += [draft.name("label_smoothing")] * draft.has("label_smoothing")
        elif list(terms) == ["dpo"] and draft.tool != "TRL":
            draft.put("label_smoothing", epsilon, "label_smoothing", why="conservative DPO")
        else:
            draft.check(
                "TRL 1.16 does not read it with this loss; before 1.0, with sigmoid, it was conservative DPO: if that is meant, add "
                f"label_smoothing: {epsilon}",
                "label_smoothing",
            )
    elif epsilon and (
        too := [term for term in terms if term not in SMOOTHED and draft.takes(term, "label_smoothing")]
    ):
        draft.refuse(
            f"label_smoothing with {', '.join(terms)}: in TRL only {', '.join(reading)} reads it, here {' and '.join(too)} would, too"
        )
    elif epsilon or reading != ["robust"]:
        draft.explicit("label_smoothing", "label_smoothing", 0.0)
    else:
        draft.put("label_smoothing", 0.0, *(["label_smoothing"] if draft.has("label_smoothing") else []))


def kto(draft: Draft) -> None:
    """KTOConfig: `loss_type` kto or apo_zero_unpaired; and bco of older versions."""
    kind = str((as_list(draft.take("loss_type")) or ["kto"])[0])
    if kind not in ("kto", "apo_zero_unpaired", "bco"):
        draft.refuse(
            f"{draft.name('loss_type')}: {kind}: of single samples prefopt knows kto, apo_zero_unpaired and bco"
        )
        return
    draft.put("method", kind, *(["loss_type"] if draft.has("loss_type") else []))
    _beta(draft)
    for key in ("desirable_weight", "undesirable_weight"):
        if draft.take(key, 1.0) == 1.0:
            draft.same += [draft.name(key)] * draft.has(key)
        elif draft.takes(kind, key):
            draft.put(key, draft.take(key), key)
        else:
            draft.refuse(f"{draft.name(key)} with {kind}: prefopt's {kind} has no such weight")
    if draft.take("train_sampling_strategy", "sequential") == "sequential":
        given = ["train_sampling_strategy"] * draft.has("train_sampling_strategy")
        draft.check(
            "TRL's KTO reads rows in the order of the file; prefopt shuffles them, by the seed", *given
        )


def cpo(draft: Draft, kind: str | None = None) -> None:
    """CPOConfig: CPO, and SimPO and AlphaPO, which are its losses.

    Args:
        draft: whose names are CPOConfig's, or are called otherwise.
        kind: the loss, where the tool says it elsewhere.
    """
    given = as_list(draft.take("loss_type"))
    kind = kind or str((given or ["sigmoid"])[0])
    bent = kind == "alphapo"  # simpo without a likelihood term
    kind = "simpo" if bent else kind
    origin = ["loss_type"] if draft.has("loss_type") else []
    nll, smoothing, alpha = (
        0.0 if bent else draft.take("cpo_alpha", 1.0),
        draft.take("label_smoothing", 0.0),
        draft.take("alpha", 0.0),
    )
    draft.same += [draft.name("label_smoothing")] * (draft.has("label_smoothing") and not smoothing)
    draft.same += [draft.name("alpha")] * (draft.has("alpha") and not alpha)
    methods = {
        "sigmoid": "contrastive_po",
        "hinge": "contrastive_po",
        "ipo": "contrastive_po",
        "simpo": "simpo",
    }
    if kind not in methods:
        draft.refuse(f"{draft.name('loss_type')}: {kind}: needed one of {', '.join(methods)}, alphapo")
        return
    method = methods[kind]
    if alpha:
        if kind != "simpo":
            draft.refuse(f"alpha with loss_type {kind}: prefopt has AlphaPO of the simpo loss alone")
            return
        method = "alpha_po"
    cpo = method == "contrastive_po"  # which has the likelihood term itself
    draft.put("method", f"{method}+sft" if nll and not cpo else method, *origin)
    if cpo:
        draft.explicit("alpha", "cpo_alpha", 1.0)
        draft.put("average", "batch", why=BATCH)
    elif nll:
        draft.put("loss_weights", [1.0, nll], *(["cpo_alpha"] if draft.has("cpo_alpha") else []))
        draft.put("average", "batch", why=BATCH)
    elif bent and draft.take("cpo_alpha", 0.0):
        draft.leave("alphapo has no likelihood term", "cpo_alpha")
    elif draft.has("cpo_alpha"):
        draft.same.append(draft.name("cpo_alpha"))
    _beta(draft)
    if cpo:
        _unread(draft, "simpo_gamma", 0.5)
        if kind != "sigmoid":
            draft.put("loss", kind, *origin)
    else:
        draft.explicit("gamma", "simpo_gamma", 0.5)
        if alpha:
            draft.put("alpha", alpha, "alpha")
    if smoothing and kind in ("hinge", "ipo"):
        draft.leave("this loss does not read it", "label_smoothing")
    elif smoothing and draft.takes(method, "label_smoothing"):
        draft.put("label_smoothing", smoothing, "label_smoothing")
    elif smoothing:
        draft.refuse(f"label_smoothing: prefopt's {method} has none")


def simpo(draft: Draft) -> None:
    """The SimPOConfig of SimPO's authors, whose files are alignment-handbook's otherwise."""
    kind = str((as_list(draft.take("loss_type")) or ["sigmoid"])[0])
    if kind != "sigmoid" or draft.take("sft_weight", 0.0):
        draft.refuse(
            f"loss_type: {kind}, sft_weight: {draft.take('sft_weight', 0.0)}: prefopt's simpo is sigmoid, without sft_weight"
        )
        return
    draft.same += ["loss_type"] * draft.has("loss_type")
    draft.put("method", "simpo", "gamma_beta_ratio")
    _beta(draft, 2.0)
    draft.explicit("gamma_beta_ratio", "gamma_beta_ratio", 0.25)
    if epsilon := draft.take("label_smoothing", 0.0):
        draft.put("label_smoothing", epsilon, "label_smoothing")


def orpo(draft: Draft) -> None:
    """ORPOConfig, whose `beta` is the paper's lambda."""
    if draft.has("loss_type"):
        draft.same.append(draft.name("loss_type"))
    draft.put("method", "orpo")
    draft.explicit("lambda", "beta", 0.1)
    draft.check(
        "TRL's likelihood term of ORPO is over prompt and answer, averaged over all tokens of a batch; prefopt's is over the "
        "answer, averaged over each",
        *(),
    )


def tpo(draft: Draft) -> None:
    """TPOConfig, whose names are the method's; its defaults are TRL's own."""
    kind = str((as_list(draft.take("loss_type")) or ["sigmoid"])[0])
    draft.put("method", "tpo")
    if kind == "sigmoid":
        draft.same += [draft.name("loss_type")] * draft.has("loss_type")
    else:
        draft.put("loss", kind, "loss_type")
    _beta(draft, 0.01)
    draft.explicit("tpo_alpha", "tpo_alpha", 1.0)
    draft.put("average", "batch", why=BATCH)
    if kind == "tpo-l":
        draft.explicit("tpo_l_gamma", "tpo_l_gamma", 0.5)
    else:
        _unread(draft, "tpo_l_gamma", 0.5)
    if epsilon := draft.take("label_smoothing", 0.0):
        draft.put("label_smoothing", epsilon, "label_smoothing")
