"""What a model *is*, as a short digest: the part of a cache key that stands for the weights.

Two models with the same digest give the same scores: it covers every tensor's name, dtype, shape and bytes, and the
configuration values that change the forward pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

# of the configuration, these never change a score
IRRELEVANT = {
    "_name_or_path", "name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "use_cache",
    "return_dict", "output_hidden_states", "output_attentions", "id2label", "label2id", "problem_type",
    "_diffusers_version", "_use_default_values", "attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout", "dropout",
}  # fmt: skip


def fingerprint(model: nn.Module) -> str:
    """Hex digest of weights and configuration; about a second per gigabyte.

    A peft model is identified by its base weights alone or with an adapter, whichever is active.
    """
    digest = hashlib.blake2b(digest_size=16)
    config = getattr(model, "config", None)
    if config is not None:
        # a mapping (diffusers), an object with `to_dict` (transformers), or a dataclass (judges)
        known = (
            config if isinstance(config, Mapping) else getattr(config, "to_dict", lambda: asdict(config))()
        )
        values = {k: v for k, v in known.items() if k not in IRRELEVANT}
        digest.update(json.dumps(values, sort_keys=True, default=str).encode())
    for name, tensor in sorted(active_tensors(model).items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        data = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
        digest.update(data.numpy().data)
    return digest.hexdigest()


def saved_fingerprint(folder: Path) -> str:
    """Hex digest of the weights saved in a folder, which are not loaded; not that of `fingerprint`."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def active_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that take part in the forward pass now; peft's disabled or inactive adapters are left out."""
    tensors = dict(model.state_dict())
    adapters: Any = model
    if not hasattr(model, "peft_config"):
        return tensors
    off = any(getattr(m, "disable_adapters", False) is True for m in model.modules())
    names = adapters.active_adapters
    names = names() if callable(names) else names  # peft: a list; the mixin of diffusers: a method
    active = set() if off else {names} if isinstance(names, str) else set(names)
    others = [name for name in adapters.peft_config if name not in active]
    kept = {}
    for name, tensor in tensors.items():
        if any(f".{adapter}." in f"{name}." for adapter in others):
            continue
        kept[name.removeprefix("base_model.model.").replace(".base_layer.", ".")] = tensor
    return kept
