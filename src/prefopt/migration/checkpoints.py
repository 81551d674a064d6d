"""What a model's config.json says of its weights, where it is on this machine: in a folder, or in the hub's cache. Nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Keys of mixtures of experts."""


def configuration(model: str, revision: str | None = None) -> dict[str, Any] | None:
    """A model's config.json; that of the base, for adapters. None: it is not here, or cannot be read.

    Example:
        >>> configuration("no/where") is None
        True
    """
    found = _read(model, "config.json", revision)
    if found is None and (adapter := _read(model, "adapter_config.json", revision)):
        found = _read(str(adapter.get("base_model_name_or_path", "")), "config.json", None)
    return found


def weights_type(config: Mapping[str, Any]) -> str | None:
    """The dtype that `auto` stands for; None where it is not written down.

    Example:
        >>> weights_type({"torch_dtype": "bfloat16"}), weights_type({"text_config": {"dtype": "float16"}}), weights_type({})
        ('bfloat16', 'float16', None)
    """
    for where in (config, _text(config)):
        name = str(where.get("dtype") or where.get("torch_dtype")).rpartition(".")[-1]
        if name in ("float32", "bfloat16", "float16", "float64"):
            return name
    return None


def has_experts(config: Mapping[str, Any]) -> bool:
    """Whether it is a mixture of experts."""
    return any(_text(config).get(key) for key in EXPERTS)


def balance(config: Mapping[str, Any]) -> float | None:
    """The coefficient of the loss that keeps experts in balance; None where it is not written down."""
    found = _text(config).get("router_aux_loss_coef")
    return found if isinstance(found, int | float) else None


def returns_balance(config: Mapping[str, Any]) -> bool:
    """Whether the model itself adds that loss up when it is trained."""
    return bool(config.get("output_router_logits") or _text(config).get("output_router_logits"))


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def _read(model: str, name: str, revision: str | None) -> dict[str, Any] | None:
    path: Path | None = Path(model) / name
    if not (Path(model).is_dir() and (Path(model) / name).is_file()):
        path = _cached(model, name, revision)
    if path is None:
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _cached(model: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, name, revision=revision)
    except HFValidationError:  # no id of the hub
        return None
    return Path(found) if isinstance(found, str) else None
