"""What peft is asked for: settings of a run as a configuration of peft, and which of them can be trained here.

Policy and reference must agree before the first step, and rows share prompts and are packed. So a kind of adapter can be
trained if it begins as no change of the model and works on each token for itself; `KINDS` lists those that were found to.
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from torch import nn

LORA = "LORA"
KINDS = (
    LORA, "BEFT", "BOFT", "C3A", "DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3", "LILY",
    "LN_TUNING", "LOHA", "LOKR", "MISS", "OFT", "OSF", "PEANUT", "PSOFT", "RANDLORA", "ROAD", "SHIRA", "SUPERTUNING",
    "TINYLORA", "TRAINABLE_TOKENS", "VERA", "WAVEFT",
)  # fmt: skip
"""Kinds of peft that can be trained."""

PROMPTS = (
    "learns virtual tokens in front of every row, and rows here share prompts and are packed, so that one row's would stand "
    "in another's"
)
REFUSED = {
    "ADALORA": "moves ranks after every step by averages of gradients that no checkpoint holds, and needs a penalty in the loss: "
    "take LORA with rank_pattern",
    "ADAMSS": "chooses what it trains after every step by averages of gradients that no checkpoint holds: take LORA",
    "ADAPTION_PROMPT": PROMPTS,
    "CARTRIDGE": PROMPTS,
    "CPT": PROMPTS,
    "MULTITASK_PROMPT_TUNING": PROMPTS,
    "P_TUNING": PROMPTS,
    "PREFIX_TUNING": PROMPTS,
    "PROMPT_TUNING": PROMPTS,
    "POLY": "needs the number of a task with every row: take LORA",
    "PVERA": "draws its weights anew in every forward pass, so that policy and reference would differ by chance: take VERA",
    "SHADOW": "runs a second network beside the model, in a form that only whole sequences have: take LORA",
    "UNILORA": "begins as a change of the model, so that policy and reference would differ before the first step: take VERA",
    "VBLORA": "begins as a change of the model, so that policy and reference would differ before the first step: take VERA",
    "XLORA": "mixes adapters that are trained already: train them one by one with LORA",
}
"""Kinds that cannot, and why."""

DATA_DRIVEN = (
    "needs passes over data before training: make the adapter with peft, save it with save_pretrained, and give its folder as "
    "the model"
)
INITIALISATIONS = {
    "eva": DATA_DRIVEN,
    "corda": DATA_DRIVEN,
    "lora_ga": DATA_DRIVEN,
    "loftq": "rounds the base weights, so that no folder would give the trained model on the plain base: take load_in_4bit with "
    "init_lora_weights=true",
    False: "begins as a random change of the model, so that policy and reference would differ before the first step",
}
MUTATING = ("pissa", "olora")
"""Beginnings of `init_lora_weights` that move a part of the base weights into the adapter."""
BEGINNINGS = (True, "gaussian", "orthogonal", "mica", "olora", "pissa")

FIELDS = {
    "layer_replication": "makes another model, of which there is no reference",
    "arrow_config": "mixes adapters that are trained already",
    "alora_invocation_tokens": "switches the adapter on in the middle of a row, and rows here share prompts and are packed",
    "kasa_config": "cuts the base weights down, so that policy and reference would differ before the first step",
    "monteclora_config": "draws its weights anew in every forward pass, and needs a term of its own in the loss",
    "velora_config": "keeps averages of activations that no checkpoint holds",
    "megatron_config": "is for models of Megatron, which are not loaded here",
    "use_qalora": "is for GPTQ's layers alone, which are not trained here",
    "eva_config": DATA_DRIVEN,
    "corda_config": DATA_DRIVEN,
    "lora_ga_config": DATA_DRIVEN,
    "loftq_config": INITIALISATIONS["loftq"],
}
"""Fields that cannot be given, and why."""
WRITTEN = (
    "peft_version", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "task_type", "megatron_core",
)  # fmt: skip
"""Fields that follow from the run."""
BEGINS_AS_NOTHING = {"FOURIERFT": {"init_weights": True}, "C3A": {"init_weights": True}}
"""What some kinds have to be told for that; peft's defaults begin at random."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """New adapters through peft; names and defaults are peft's and TRL's.

    Attributes:
        r, alpha, dropout: of LoRA; other kinds have theirs in `fields`.
        target_modules: None for peft's default for the architecture, or all linear layers where it has none. A function
            chooses them by looking at the model.
        kind: peft's `peft_type`, one of `KINDS`.
        fields: further fields of that kind's configuration.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: Sequence[str] | str | Callable[[nn.Module], Sequence[str]] | None = None
    kind: str = LORA
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def special(self) -> bool:
        """Whether these are more than low-rank adapters as everyone has them."""
        return self.kind != LORA or bool(self.fields)


def kind_of(peft: Mapping[str, Any]) -> str:
    """The kind that a mapping of fields asks for.

    Raises:
        ValueError: there is none of that name, or it cannot be trained here.
    """
    name = str(getattr(peft.get("peft_type", LORA), "value", peft.get("peft_type", LORA))).upper()
    if name in KINDS:
        return name
    if name in REFUSED:
        raise ValueError(f"peft_type={name} cannot be trained here: it {REFUSED[name]}")
    raise ValueError(
        f"peft: there is no peft_type {name!r}{_nearest(name, KINDS)}. There are {', '.join(KINDS)}"
    )


def field_names(kind: str) -> tuple[str, ...]:
    """Fields that a configuration of this kind takes, without those that follow from the run."""
    return tuple(
        f.name
        for f in dataclasses.fields(config_class(kind))
        if f.init and f.name not in (*WRITTEN, "peft_type")
    )


def config_class(kind: str) -> Any:
    """peft's class of configurations of a kind."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils.peft_types import PeftType

    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]


def check_fields(kind: str, fields: Mapping[str, Any]) -> None:
    """Refuse fields that the kind has not, or that cannot be honoured here.

    Raises:
        ValueError: names each of them.
    """
    known = field_names(kind)
    wrong = []
    for name, value in fields.items():
        if name in WRITTEN:
            wrong.append(f"{name} follows from the run")
        elif name not in known:
            wrong.append(f"{kind} has no field {name!r}{_nearest(name, known)}")
        elif name in FIELDS and value not in (None, False, {}, []):
            wrong.append(f"{name} {FIELDS[name]}")
    if kind == LORA and "init_lora_weights" in fields and (why := _wrong_beginning(fields)):
        wrong.append(why)
    if wrong:
        raise ValueError(f"peft: {'; '.join(wrong)}")


def _wrong_beginning(fields: Mapping[str, Any]) -> str | None:
    given = fields["init_lora_weights"]
    name = given if isinstance(given, bool) else str(given).lower()
    if name in INITIALISATIONS:
        return f"init_lora_weights={str(given).lower()} {INITIALISATIONS[name]}"
    steps = str(name).removeprefix("pissa_niter_")
    if name not in BEGINNINGS and not (str(name).startswith("pissa_niter_") and steps.isdigit()):
        return (
            f"there is no init_lora_weights {given!r}{_nearest(str(name), [str(b) for b in BEGINNINGS])}. There are true, "
            "gaussian, orthogonal, mica, olora, pissa and pissa_niter_N"
        )
    for other in ("use_dora", "target_parameters"):
        if str(name).startswith(MUTATING) and fields.get(other):
            return (
                f"init_lora_weights={name} and {other} exclude each other: what it takes from the base weights could not be "
                "given back when the adapter is saved"
            )
    return None


def peft_config(lora: LoraSettings, target_modules: Any, task_type: str | None = None) -> Any:
    """The configuration of peft.

    Args:
        lora: settings.
        target_modules: of the model; None where the kind is to choose.
        task_type: of transformers' models.

    Raises:
        ValueError: a field is unknown, contradicts another, or would do nothing.
    """
    fields = dict(lora.fields)
    check_fields(lora.kind, fields)
    values = BEGINS_AS_NOTHING.get(lora.kind, {}) | fields
    if lora.kind == LORA:
        values |= {"r": lora.r, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    if target_modules is not None:
        values["target_modules"] = target_modules
    if task_type is not None:
        values["task_type"] = task_type
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            config = config_class(lora.kind)(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"peft: {error}") from error
    if told:
        raise ValueError(f"peft: {told[0].message}")
    return config


def peft_settings(config: Any) -> dict[str, Any]:
    """A configuration object of peft as the mapping that the key `peft` takes.

    Fields at their defaults are left out, but for those whose defaults are others here (rank, alpha). Where it was
    meant for inference, or which model it was saved for, is left out, too.

    Args:
        config: a `peft.LoraConfig`, or of another kind that can be trained here.

    Raises:
        TypeError: it is no configuration of peft.
        ValueError: of a kind or for a task that cannot be trained here; a value that no file can hold.

    Example:
        >>> from peft import LoraConfig
        >>> peft_settings(LoraConfig(r=4, target_modules=["v_proj", "q_proj"], use_rslora=True))
        {'peft_type': 'LORA', 'r': 4, 'target_modules': ['q_proj', 'v_proj'], 'lora_alpha': 8, 'lora_dropout': 0.0, 'use_rslora': True}
    """
    from peft import PeftConfig

    if not isinstance(config, PeftConfig):
        raise TypeError(
            f"needed a configuration of peft, such as LoraConfig(r=8); given {type(config).__name__}"
        )
    kind = kind_of({"peft_type": config.peft_type})
    task = getattr(config.task_type, "value", config.task_type)
    if task not in (None, "CAUSAL_LM"):
        raise ValueError(f"task_type={task} is for another kind of model: leave it out, or set CAUSAL_LM")
    always = ("r", "lora_alpha", "lora_dropout") if kind == LORA else ()
    found: dict[str, Any] = {"peft_type": kind}
    for each in dataclasses.fields(config):
        if each.name not in field_names(kind):
            continue
        value, default = getattr(config, each.name), _default(each)
        if each.name not in always and (value == default or _plain(value) == _plain(default)):
            continue
        found[each.name] = _plain(value, each.name)
    check_fields(kind, {k: v for k, v in found.items() if k != "peft_type"})
    return found


def _default(each: Any) -> Any:
    if each.default_factory is not dataclasses.MISSING:
        return each.default_factory()
    return None if each.default is dataclasses.MISSING else each.default


def _plain(value: Any, name: str = "") -> Any:
    """A value as YAML holds it."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), name) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(k): _plain(v, name) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(v, name) for v in value)
    if isinstance(value, list | tuple):
        return [_plain(v, name) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"peft: {name} is a {type(value).__name__}, which no file of a run can hold")


def mutates(config: Any) -> bool:
    """Whether new adapters of this configuration take a part of the base weights into themselves."""
    beginning = getattr(config, "init_lora_weights", True)
    return isinstance(beginning, str) and beginning.lower().startswith(MUTATING)


def why_not_off(config: Any) -> str | None:
    """Why switching adapters of this configuration off does not give back what was trained from; None where it does."""
    if mutates(config):
        return (
            f"init_lora_weights={config.init_lora_weights} moves a part of the base weights into the adapters, so that the model "
            "with its adapters off is not the one that training began from"
        )
    if getattr(config, "bias", "none") != "none":
        return f"bias={config.bias} trains biases of the base model, which stay as they are when the adapters are off"
    return None


def why_one_copy(config: Any) -> str | None:
    """Why a model cannot hold two adapters of this configuration and switch between them; None where it can."""
    if mutates(config):
        return (
            f"init_lora_weights={config.init_lora_weights} takes a part of the base weights when an adapter is loaded, and a second "
            "one would take another"
        )
    if getattr(config, "bias", "none") != "none":
        return f"bias={config.bias} trains biases of the base model, of which there is one copy"
    held = getattr(config, "modules_to_save", None) or getattr(config, "trainable_token_indices", None)
    if held or getattr(config, "target_parameters", None):
        return "the adapter also trains whole modules, tokens or parameters, of which one copy is held"
    return None


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
