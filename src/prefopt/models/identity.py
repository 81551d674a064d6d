"""What a model *is*, as a short digest: the part of a cache key that stands for the model.

It covers what decides a forward pass of the evaluated model: every tensor's name, dtype, shape and bytes; the class and
the version of the library that defines it; configuration values, quantization among them; and of adapters that act, their
kind, settings and the factor of each layer. Dropout is left out, since it is off wherever scores are kept.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

VERSION = 2
"""Of the digest itself; another one makes every cache be filled anew."""

# of a configuration, these never change a score
IRRELEVANT = {
    "_name_or_path", "name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "use_cache",
    "return_dict", "output_hidden_states", "output_attentions", "output_router_logits", "router_aux_loss_coef", "id2label",
    "label2id", "problem_type", "initializer_range", "_diffusers_version", "_use_default_values", "_class_name",
}  # fmt: skip
# of an adapter, neither do these: what it was made for and from, and where it lies, which the tensors' names say
OF_ADAPTERS = {
    "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version", "auto_mapping",
    "init_lora_weights", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "ensure_weight_tying", "runtime_config", "eva_config", "loftq_config", "corda_config", "lora_ga_config",
}  # fmt: skip
DROPOUT = ("dropout", "pdrop", "layerdrop", "drop_path")


def fingerprint(model: nn.Module) -> str:
    """Hex digest of a model as it would score now; about a second per gigabyte.

    A peft model is identified by its base model alone or with its adapters, whichever is active.
    """
    digest = hashlib.blake2b(digest_size=16)
    known = {
        "version": VERSION,
        "model": [class_of(model), plain(getattr(model, "config", None))],
        "adapters": acting(model),
    }
    digest.update(json.dumps(known, sort_keys=True).encode())
    add_tensors(digest, active_tensors(model))
    return digest.hexdigest()


def add_tensors(digest: hashlib.blake2b, tensors: Mapping[str, torch.Tensor]) -> None:
    """Take tensors into a digest: their names, dtypes, shapes and bytes."""
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)


def saved_fingerprint(folder: Path) -> str:
    """Hex digest of a saved model or adapter that is not loaded; not that of `fingerprint`.

    Covers weights, tokenizer, templates, configurations, and the base model of an adapter.
    """
    digest = hashlib.blake2b(f"{VERSION}".encode(), digest_size=16)
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".jinja", ".txt")
    ):
        digest.update(f"{path.name}|".encode())
        if path.name in ("config.json", "adapter_config.json"):
            values = plain(json.loads(path.read_text("utf-8")), IRRELEVANT - {"torch_dtype", "dtype"})
            digest.update(json.dumps(values, sort_keys=True).encode())
        else:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
    config = folder / "adapter_config.json"
    if config.exists():
        base = Path(json.loads(config.read_text("utf-8")).get("base_model_name_or_path") or "")
        if base.is_dir() and base.resolve() != folder.resolve():
            digest.update(saved_fingerprint(base).encode())
    return digest.hexdigest()


def plain(value: Any, leave_out: set[str] = IRRELEVANT) -> Any:
    """Configuration values as JSON knows them, in one order, without what never changes a score, at any depth.

    Args:
        value: a mapping, an object with `to_dict`, a dataclass, or what they hold.
        leave_out: keys; whatever is named after dropout is left out too.

    Example:
        >>> plain({"b": {2, 1}, "attention_dropout": 0.1, "text": {"use_cache": True, "a": (1, 2)}})
        {'b': [1, 2], 'text': {'a': [1, 2]}}
    """
    if isinstance(value, Enum):
        return plain(value.value, leave_out)
    if isinstance(value, Mapping):
        kept = ((str(k), v) for k, v in value.items())
        return {
            k: plain(v, leave_out)
            for k, v in kept
            if k not in leave_out and not any(word in k for word in DROPOUT)
        }
    if isinstance(value, set | frozenset):
        return sorted((plain(v, leave_out) for v in value), key=str)
    if isinstance(value, list | tuple):
        return [plain(v, leave_out) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "to_dict"):
        return plain(value.to_dict(), leave_out)
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value), leave_out)
    return str(value)


def active_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that take part in the forward pass now, by names without the adapters' own.

    Adapters that are disabled or inactive are left out.
    """
    tensors = dict(model.state_dict())
    adapters: Any = model
    if not hasattr(model, "peft_config"):
        return tensors
    active = active_adapters(model)
    holders = _holders(model)
    kept = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        owner = next(
            (i for i, (a, b) in enumerate(itertools.pairwise(parts))
             if a in holders and b in adapters.peft_config),
            None,
        )  # fmt: skip
        if owner is not None:
            if parts[owner + 1] not in active:
                continue
            parts[owner + 1] = str(active.index(parts[owner + 1]))
        short = ".".join(parts).removeprefix("base_model.model.")
        for inner in (".base_layer.", ".original_module.", ".token_adapter."):
            short = short.replace(inner, ".")
        kept[short] = tensor
    return kept


def active_adapters(model: nn.Module) -> list[str]:
    """Names of the adapters of peft that act now, in order; none where they are switched off."""
    adapters: Any = model
    if not hasattr(model, "peft_config"):
        return []
    if getattr(model, "_adapters_disabled", False) is True:
        return []
    if any(getattr(m, "disable_adapters", False) is True for m in model.modules()):
        return []
    names = adapters.active_adapters
    names = names() if callable(names) else names  # peft: a list; the mixin of diffusers: a method
    return [names] if isinstance(names, str) else list(names)


def _holders(model: nn.Module) -> set[str]:
    """Names of the attributes under which peft keeps an adapter's own modules and parameters."""
    found = {"prompt_encoder"}
    for module in model.modules():
        for attribute in ("adapter_layer_names", "other_param_names"):
            names = getattr(module, attribute, ())
            found.update(names if isinstance(names, tuple | list) else ())
    return {name.rpartition(".")[-1] for name in found}


def acting(model: nn.Module) -> list[Any]:
    """Of every adapter that acts: its kind and settings, and the factor by which each layer adds it."""
    found: list[Any] = []
    layers = [(n.removeprefix("base_model.model."), m) for n, m in model.named_modules()]
    for name in active_adapters(model):
        adapters: Any = model
        config = adapters.peft_config[name]
        scaling = {
            place: [type(layer).__name__, plain(layer.scaling[name])]
            for place, layer in layers
            if isinstance(getattr(layer, "scaling", None), Mapping) and name in layer.scaling
        }
        found.append(
            [type(config).__name__, _version("peft"), plain(config, IRRELEVANT | OF_ADAPTERS), scaling]
        )
    return found


def class_of(model: nn.Module) -> list[str]:
    """Class of the model below adapters, and the version of the library that defines it."""
    inner: Any = model
    if hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    library = type(inner).__module__.partition(".")[0]
    return [type(inner).__name__, _version(library) if library in ("transformers", "diffusers") else ""]


@cache
def _version(library: str) -> str:
    from importlib.metadata import version

    return version(library)
