"""Objectives by name: `get`, and what names and hyper-parameters there are."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, overload

from prefopt.objectives.base import Objective, checked
from prefopt.objectives.batchwise import AOT, BCO, KTO, AOTUnpaired, APOZeroUnpaired, BetaDPO
from prefopt.objectives.bregman import BPO
from prefopt.objectives.combining import COMBINED, why_not
from prefopt.objectives.conditions import ConditionPO, ControlNetPP
from prefopt.objectives.diffusion import LRM, DiffusionDPO, DiffusionKTO, MaPO, StepDPO
from prefopt.objectives.hallucination import HADPO, POVID, VDPO
from prefopt.objectives.images import MDPO, OPADPO, SVCO, SymMPO
from prefopt.objectives.long_video import LongVPO
from prefopt.objectives.mixture import MPO, Mixture
from prefopt.objectives.pairwise import (
    CDPO,
    DPO,
    EXO,
    FDPO,
    FPO,
    IPO,
    LDDPO,
    RDPO,
    WPO,
    DiscoPOP,
    Hinge,
    RobustDPO,
)
from prefopt.objectives.pointwise import DPOP, NCA, SPPO, APODown, APOZero, BCOPair
from prefopt.objectives.reference_free import ORPO, SFT, AlphaPO, ContrastivePO, SimPO, SLiC
from prefopt.objectives.robust import SPA, SSAPO
from prefopt.objectives.segments import DDPO, CHiP
from prefopt.objectives.self_play import XPO, NashMD
from prefopt.objectives.semi_online import SoPo
from prefopt.objectives.ties import Davidson, RaoKupper
from prefopt.objectives.triple import TPO

OBJECTIVES: dict[str, type[Objective]] = {
    "alpha_po": AlphaPO,
    "aot": AOT,
    "aot_unpaired": AOTUnpaired,
    "apo_down": APODown,
    "apo_zero": APOZero,
    "apo_zero_unpaired": APOZeroUnpaired,
    "bco": BCO,
    "bco_pair": BCOPair,
    "beta_dpo": BetaDPO,
    "bpo": BPO,
    "cdpo": CDPO,
    "chip": CHiP,
    "condition_po": ConditionPO,
    "contrastive_po": ContrastivePO,
    "controlnet_pp": ControlNetPP,
    "ddpo": DDPO,
    "diffusion_dpo": DiffusionDPO,
    "diffusion_kto": DiffusionKTO,
    "discopop": DiscoPOP,
    "dpo": DPO,
    "dpo_d": Davidson,
    "dpo_rk": RaoKupper,
    "dpop": DPOP,
    "exo": EXO,
    "f_dpo": FDPO,
    "f_po": FPO,
    "ha_dpo": HADPO,
    "hinge": Hinge,
    "ipo": IPO,
    "kto": KTO,
    "ld_dpo": LDDPO,
    "longvpo": LongVPO,
    "lrm": LRM,
    "mapo": MaPO,
    "mdpo": MDPO,
    "mpo": MPO,
    "nash_md": NashMD,
    "nca": NCA,
    "opa_dpo": OPADPO,
    "orpo": ORPO,
    "povid": POVID,
    "r_dpo": RDPO,
    "robust": RobustDPO,
    "sft": SFT,
    "simpo": SimPO,
    "slic": SLiC,
    "sopo": SoPo,
    "spa": SPA,
    "sppo": SPPO,
    "ssapo": SSAPO,
    "step_dpo": StepDPO,
    "svco": SVCO,
    "symmpo": SymMPO,
    "tpo": TPO,
    "vdpo": VDPO,
    "wpo": WPO,
    "xpo": XPO,
}

# other names (TRL's, the papers'), each an objective and what it fixes
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "alphapo": ("alpha_po", {}),
    "davidson": ("dpo_d", {}),
    "exo_pair": ("exo", {}),
    "nca_pair": ("nca", {}),
    "rao_kupper": ("dpo_rk", {}),
    "sigmoid": ("dpo", {}),
    "sigmoid_norm": ("dpo", {"margin": "average"}),
    "sppo_hard": ("sppo", {}),
}

# methods that share an objective and differ in its settings, which are theirs unless given otherwise
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "compo": ("dpo", {}),
    "d3po": ("step_dpo", {"beta": 0.1}),
    "gradspo": ("step_dpo", {"beta": 10.0}),
    "lpo": ("step_dpo", {"beta": 500.0}),
    "mfpo": ("mdpo", {}),
    "online_dpo": ("dpo", {}),
    "spo": ("step_dpo", {"beta": 10.0}),
    "tr_dpo": ("dpo", {}),
}


def names() -> list[str]:
    """All objectives, by their first names.

    >>> "dpo_rk" in names()
    True
    """
    return list(OBJECTIVES)


def aliases() -> dict[str, str]:
    """Other names and the objective each stands for.

    >>> aliases()["sigmoid"]
    'dpo'
    """
    return {alias: name for alias, (name, _) in (ALIASES | PRESETS).items()}


def canonical_name(name: str) -> str:
    """The first name of an objective given by any name; unknown names and sums come back with dashes replaced.

    >>> canonical_name("dpo-rk"), canonical_name("exo_pair"), canonical_name("lpo")
    ('dpo_rk', 'exo', 'step_dpo')
    """
    plain = name.strip().lower().replace("-", "_")
    return aliases().get(plain, plain)


class Hyperparameter(NamedTuple):
    """What `hyperparameters` tells of one field."""

    type: str
    """As annotated, e.g. "float" or "Literal['sba', 'lr']"."""
    default: Any
    """The value in use when none is given."""
    doc: str
    """One line from the class's docstring, empty if it has none."""


def hyperparameters(name: str) -> dict[str, Hyperparameter]:
    """The hyper-parameters of an objective or a sum of them, by field name.

    >>> hyperparameters("dpo_rk")["nu"].default
    3.0
    """
    out: dict[str, Hyperparameter] = {}
    for _, term in parse(name):
        cls, fixed, preset = _lookup(term)
        default = cls(**fixed, **preset)
        docs = _field_docs(cls)
        for field, parameter in _parameters(cls).items():
            annotation = re.sub(r"InitVar\[(.*)\]$", r"\1", str(parameter.annotation))
            out.setdefault(field, Hyperparameter(annotation, getattr(default, field), docs.get(field, "")))
    return out


def hyperparameter_names(name: str) -> list[str]:
    """Names accepted by `get` for an objective or a sum of them; `lambda_` counts twice, as `lambda` too.

    Raises:
        KeyError: unknown or ambiguous name.
    """
    found = hyperparameters(name)
    combined = list(combining(name))
    if "rpo_alpha" in combined and "average" not in found:
        combined.append("average")
    return [*found, *(["lambda"] if "lambda_" in found else []), *combined]


def combining(name: str) -> dict[str, str]:
    """What an objective or a sum takes beside its own hyper-parameters, by name, with the meaning.

    >>> list(combining("aot"))
    ['ld_alpha', 'rpo_alpha']
    """
    return {key: doc for key, doc in COMBINED.items() if refused(name, key) is None}


def refused(name: str, key: str) -> str | None:
    """Why an objective or a sum of them does not take one of `combining.COMBINED`; None where it does.

    >>> refused("kto", "ld_alpha")
    'kto takes single labelled samples, and these belong to pairs'
    """
    alone = True
    for _, term in parse(name):
        cls, fixed, preset = _lookup(term)
        built = cls(**fixed, **preset)
        if (reason := why_not(key, built)) is not None:
            return f"{term} {reason}"
        alone &= built.winner_alone
    return f"{name} reads no loser to compare with" if alone else None


# editors complete hyper-parameters through the class; these say which class a name is
@overload
def get(name: Literal["dpo", "sigmoid", "sigmoid_norm"], **hyper: Any) -> DPO: ...
@overload
def get(name: Literal["dpo_rk", "dpo-rk", "rao_kupper"], **hyper: Any) -> RaoKupper: ...
@overload
def get(name: Literal["dpo_d", "dpo-d", "davidson"], **hyper: Any) -> Davidson: ...
@overload
def get(name: Literal["bpo"], **hyper: Any) -> BPO: ...
@overload
def get(name: Literal["kto"], **hyper: Any) -> KTO: ...
@overload
def get(name: Literal["bco"], **hyper: Any) -> BCO: ...
@overload
def get(name: str | Sequence[str], *, weights: Sequence[float] | None = None, **hyper: Any) -> Objective: ...
def get(name: str | Sequence[str], *, weights: Sequence[float] | None = None, **hyper: Any) -> Objective:
    """An objective by name, with hyper-parameters.

    Args:
        name: one of `names()` or `aliases()`, dashes or underscores; a sum such as "dpo+0.2*bco_pair+sft"; or a list.
        weights: one positive number a term, for a list; default 1 each.
        hyper: hyper-parameters. In a sum each goes to every term that has it. Losses of pairs also take `ld_alpha` and
            `use_weighting` (see `Mixture`), and `rpo_alpha`, which adds `rpo_alpha` times `sft`: the winner's negative
            log-likelihood as a mean over its tokens, or with `average="batch"` over all of the batch's, as TRL has it.

    Returns:
        A frozen objective; a `Mixture` for sums, and where one of the latter three is given.

    Raises:
        KeyError: unknown or ambiguous name; the nearest is named.
        TypeError: a hyper-parameter that no term has; the nearest is named.
        ValueError: a hyper-parameter's value does not fit.

    >>> get("dpo-rk", beta=0.3).nu
    3.0
    >>> get("lpo")
    StepDPO(beta=500.0, margin=ClippedMargin(clip_eps=0.1), label_smoothing=0.0, clip_eps=0.1)
    >>> get(["dpo", "bco_pair", "sft"], weights=[0.8, 0.2, 1.0], beta=0.1).terms[1]
    (0.2, BCOPair(beta=0.1))
    """
    if "lambda" in hyper:
        if "lambda_" in hyper:
            raise TypeError("lambda and lambda_ are one hyper-parameter; give one of them")
        hyper["lambda_"] = hyper.pop("lambda")
    asked = {key: hyper.pop(key, None) for key in COMBINED}
    combined = {key: value for key, value in asked.items() if value is not None and value is not False}
    likelihood = combined.pop("rpo_alpha", None)
    if isinstance(name, str):
        terms = parse(name)
        if weights is not None:
            raise TypeError(
                "weights go with a list of names; in a sum write them inline, as in 'dpo+0.2*bco_pair'"
            )
        if len(terms) == 1 and terms[0][0] == 1.0 and not combined and likelihood is None:
            return _build(terms[0][1], hyper)
    else:
        given = [1.0] * len(name) if weights is None else list(weights)
        if len(given) != len(name):
            raise ValueError(f"{len(name)} objectives and {len(given)} weights; one weight a term is needed")
        terms = list(zip(given, name, strict=True))
    if likelihood is not None:
        for _, term in terms:
            if (reason := refused(term, "rpo_alpha")) is not None:
                raise ValueError(f"rpo_alpha: {reason}. Leave it out")
        likelihood = checked("rpo_alpha", likelihood, float)
        if likelihood <= 0:
            raise ValueError(f"rpo_alpha must be positive; given {likelihood:g}")
        terms.append((likelihood, "sft"))
    fields = [set(_parameters(_lookup(term)[0])) for _, term in terms]
    known = set().union(*fields)
    for key in hyper:
        if key not in known:
            raise _unknown_hyperparameter(key, known, "none of " + ", ".join(term for _, term in terms))
    built = [
        (weight, _build(term, {k: v for k, v in hyper.items() if k in own}))
        for (weight, term), own in zip(terms, fields, strict=True)
    ]
    return Mixture(terms=tuple(built), **combined)


def parse(name: str) -> list[tuple[float, str]]:
    """(weight, name) of every term of a sum.

    Raises:
        ValueError: a term is empty, or its weight is no number.

    Example:
        >>> parse("dpo+0.2*bco_pair")
        [(1.0, 'dpo'), (0.2, 'bco_pair')]
    """
    terms = []
    for part in name.split("+"):
        weight, star, term = part.rpartition("*")
        try:
            terms.append((float(weight) if star else 1.0, term.strip()))
        except ValueError:
            raise ValueError(f"{part.strip()!r} in {name!r} is not of the form weight*objective") from None
        if not terms[-1][1]:
            raise ValueError(f"{name!r} has an empty term; write for example 'dpo+0.2*bco_pair'")
    return terms


def _lookup(name: str) -> tuple[type[Objective], Mapping[str, Any], Mapping[str, Any]]:
    """An objective's class, what its name fixes, and what its name sets unless told otherwise."""
    plain = name.strip().lower().replace("-", "_")
    if plain == "cpo":
        raise KeyError(
            "'cpo' names two papers: write contrastive_po for contrastive preference optimization (arXiv 2401.08417); "
            "condition preference optimization (for control conditions of image models) would be condition_po"
        )
    if plain in ALIASES:
        target, fixed = ALIASES[plain]
        return OBJECTIVES[target], fixed, {}
    if plain in PRESETS:
        target, preset = PRESETS[plain]
        return OBJECTIVES[target], {}, preset
    if plain not in OBJECTIVES:
        raise KeyError(
            f"unknown objective {name!r}{_nearest(plain, [*OBJECTIVES, *aliases()])}; there are: {', '.join(names())}"
        )
    return OBJECTIVES[plain], {}, {}


def _build(name: str, hyper: Mapping[str, Any]) -> Objective:
    cls, fixed, preset = _lookup(name)
    known = _parameters(cls)
    for key in hyper:
        if key not in known:
            raise _unknown_hyperparameter(key, known, name)
        if key in fixed:
            raise TypeError(
                f"{name} means {key}={fixed[key]!r}, so {key} cannot be given; use {canonical_name(name)}"
            )
    return cls(**fixed, **{**preset, **hyper})


def _unknown_hyperparameter(key: str, known: Iterable[str], where: str) -> TypeError:
    takes = ", ".join(sorted(known)) or "no hyper-parameters"
    if key == "average":
        return TypeError(
            f"average is how sft takes its mean, of which {where} has none: give rpo_alpha, or a sum with sft"
        )
    return TypeError(f"{where} has no hyper-parameter {key!r}{_nearest(key, known)}; takes: {takes}")


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _parameters(cls: type[Objective]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def _field_docs(cls: type[Objective]) -> dict[str, str]:
    """First sentences of the `Attributes:` sections of a class and its bases."""
    docs: dict[str, str] = {}
    for base in cls.__mro__:
        text = inspect.cleandoc(base.__doc__ or "") if dataclasses.is_dataclass(base) else ""
        section = re.search(r"^Attributes:\n((?:(?: {4}.*)?(?:\n|$))+)", text, re.M)
        if section:
            entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1], re.M)
            for field, doc in entries:
                docs.setdefault(field, re.sub(r"\s+", " ", doc).strip())
    return docs


__all__ = [
    "ALIASES",
    "OBJECTIVES",
    "PRESETS",
    "Hyperparameter",
    "aliases",
    "canonical_name",
    "combining",
    "get",
    "hyperparameter_names",
    "hyperparameters",
    "names",
    "refused",
]
