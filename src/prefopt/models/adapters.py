"""Adapters of peft: new ones on a model, and those of a folder or hub id with every weight in its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from prefopt.models.loading_report import check_report, header_of
from prefopt.models.sources import file_of

WEIGHTS = "adapter_model.safetensors"
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out", "word_embeddings")


ANOTHERS = "Give the adapter with the model that it was trained on, or save it again with save_pretrained"


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters through peft; names and defaults are peft's and TRL's."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: Sequence[str] | str | Callable[[nn.Module], Sequence[str]] | None = None
    """None: peft's default for the architecture, or all linear layers where it has none. A function chooses them by
    looking at the model."""


def add_lora(model: Any, lora: LoraSettings) -> nn.Module:
    """Wrap a model with fresh trainable adapters; at start they change nothing (B is zero).

    Raises:
        ValueError: no such modules, or one whose weights the model uses twice.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULT_TARGETS

    # given by name: peft, left to itself, looks for those of a mixture of experts after it has missed them
    asked = lora.target_modules(model) if callable(lora.target_modules) else lora.target_modules
    targets = asked or DEFAULT_TARGETS.get(model.config.model_type, "all-linear")
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        wrapped: nn.Module = get_peft_model(model, config)
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        linear = sorted(
            {name.rpartition(".")[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        )
        raise ValueError(
            f"lora_target_modules={asked} names no module that adapters can be put on; this model has "
            f"{', '.join(linear) or 'none'}. Leave it out for the usual ones, or say all-linear"
        ) from error
    check_untied(wrapped)
    return wrapped


def load_adapter(model: Any, source: str, trainable: bool) -> tuple[Any, bool]:
    """A model with the adapter of a folder or hub id, and whether that has embeddings of its own.

    Embeddings that were saved with the adapter take the place of the model's, whatever their number.

    Raises:
        ValueError: weights of the adapter are missing, have another shape or no place in the model; or, if it is to be
            trained, it is of a kind that "adapter off" would not undo.
    """
    from peft import PeftModel, get_peft_model_state_dict

    held = adapter_shapes(source)
    if trainable:
        check_kind(source)
    _resize(model, source, held)
    try:
        wrapped = PeftModel.from_pretrained(model, source, is_trainable=trainable)
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        told = re.findall(
            r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)", str(error)
        )
        shapes = [(name, there.split(", "), here.split(", ")) for name, there, here in told]
        check_report(source, model, mismatched=shapes, todo=ANOTHERS)
        raise
    needed = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    mapping = getattr(model, "_checkpoint_conversion_mapping", None) or {}
    there = {_renamed(name, mapping) for name in held}
    own_embeddings = (there - needed) & set(_ends(wrapped.get_base_model()))
    check_report(
        source, model, missing=needed - there, unexpected=there - needed - own_embeddings, todo=ANOTHERS
    )
    if trainable:
        check_only_lora(wrapped)
        check_untied(wrapped)
    return wrapped, bool(own_embeddings)


def adapter_shapes(source: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an adapter's tensors; reads no weights where they are safetensors."""
    file = file_of(source, WEIGHTS)
    if file is not None:
        return shapes_of(file)
    if Path(source).expanduser().is_dir() and file_of(source, "adapter_model.bin") is None:
        raise FileNotFoundError(
            f"the adapter {source} has no weights: needed {WEIGHTS} beside its adapter_config.json"
        )
    from peft.utils import load_peft_weights

    return {name: tuple(tensor.shape) for name, tensor in load_peft_weights(source, device="cpu").items()}


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a safetensors file, from its header."""
    return {name: shape for name, (_, shape) in header_of(file).items()}


def check_kind(source: str) -> None:
    """Raise ValueError for adapters that no one can switch off, or train on: prompts that were learned."""
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(source)
    if config.is_prompt_learning:
        raise ValueError(
            f"the adapter {source} is of the kind {config.peft_type.value}, learned prompts, which cannot be trained further "
            "here: give its base model, with use_peft=true for new adapters, or an adapter of LoRA's kind"
        )


def is_embedding(name: str) -> bool:
    """Whether a tensor of an adapter's file is an embedding or head of the model, whole."""
    *path, last = name.replace(".base_layer.", ".").split(".")
    return last == "weight" and bool(path) and path[-1] in EMBEDDINGS


def _resize(model: Any, source: str, held: Mapping[str, tuple[int, ...]]) -> None:
    """Give the model as many embeddings as the adapter brings."""
    names = _ends(model)
    rows = {held[name][0] for name in names if name in held}
    if not rows or rows == {model.get_input_embeddings().weight.shape[0]}:
        return
    tied = model.get_input_embeddings().weight is getattr(model.get_output_embeddings(), "weight", None)
    if not tied:
        without = {name for name in names if ".base_layer." not in name and name not in held}
        check_report(source, model, missing=without, todo=ANOTHERS)
    model.resize_token_embeddings(rows.pop(), mean_resizing=False)


def _ends(model: Any) -> list[str]:
    """What the weights of embedding and head are called in an adapter's file, under an adapter or not."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    modules = [(name, getattr(module, "original_module", module)) for name, module in model.named_modules()]
    found = [name for name, module in modules if any(module is end for end in ends)]
    found = [name.removesuffix(".original_module") for name in found]
    return [f"base_model.model.{name}{part}.weight" for name in found for part in ("", ".base_layer")]


def _renamed(name: str, mapping: Mapping[str, str]) -> str:
    """As peft renames what older versions of a class were saved with."""
    bare = name.removeprefix("base_model.model.")
    for pattern, new in mapping.items():
        changed, count = re.subn(pattern, re.sub(r"\(.*\)", "", new.lstrip("^")), bare)
        if count:
            return f"base_model.model.{changed}"
    return name


def check_only_lora(model: Any) -> None:
    """Refuse adapters that also train whole modules: with them, "adapter off" is no reference."""
    config = model.peft_config["default"]
    if getattr(config, "modules_to_save", None):
        raise ValueError(
            f"the adapter also replaces whole modules ({', '.join(config.modules_to_save)}); switching it off would "
            "not give back the reference. Merge it into its base model and train from that"
        )


def check_untied(model: Any) -> None:
    """Refuse adapters on weights that embedding and head share: merged, they would change both, and trained they change one.

    Raises:
        ValueError: there are some.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    ends = [base.get_input_embeddings(), base.get_output_embeddings()]
    own = [getattr(end, "base_layer", end) for end in ends]
    if None in own or getattr(own[0], "weight", None) is not getattr(own[1], "weight", None):
        return
    adapted = [end for end in ends if hasattr(end, "base_layer")]
    if not adapted:
        return
    names = [name.removeprefix("base_model.model.") for name, m in model.named_modules() if m in adapted]
    raise ValueError(
        f"adapters on {' and '.join(names)} are not possible: the model's embedding and head share their weights, so that "
        "merging would change both, and the merged model would not be the trained one. Leave "
        f"{' and '.join(name.rpartition('.')[-1] for name in names)} out of lora_target_modules, or save a model whose "
        "head has weights of its own (tie_word_embeddings=false)"
    )
