"""Models that a program has in memory, as folders: whoever trains, resumes or loads an adapter's base again needs a source.

An object that is still what its `name_or_path` names is that folder or hub id. Any other is written to the cache, once for
each content, in a folder that is named by its class and its fingerprint.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.cache import built_once, cache_dir
from prefopt.models.identity import active_tensors, fingerprint, plain
from prefopt.models.sources import config_values, file_of

FOLDER = "given"
"""In the cache: folders of models that were objects."""


@dataclass(frozen=True)
class Given:
    """Where a model that was an object is now.

    Attributes:
        source: folder or hub id.
        kept: whether it was written to the cache for this, so that an adapter on it needs that folder.
        dtype: of its weights, by its configuration name; None for pipelines.
        adapter: whether it is an adapter with its base model.
    """

    source: str
    kept: bool
    dtype: str | None
    adapter: bool = False


def is_model(given: Any) -> bool:
    """Whether something is a model or a pipeline in memory: it can write itself into a folder."""
    return callable(getattr(given, "save_pretrained", None)) and not isinstance(given, str | Path)


def source_of(model: Any, processor: Any = None) -> Given:
    """The folder or hub id of a model in memory.

    Args:
        model: `PreTrainedModel`, `PeftModel`, or a pipeline.
        processor: its tokenizer or processor; None: that of the model's `name_or_path`.

    Raises:
        ValueError: no tokenizer is known; several adapters, of which one would have to be chosen; adapters in a pipeline.
    """
    if not isinstance(model, nn.Module):
        return Given(str(kept_pipeline(model)), kept=True, dtype=None)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    if not hasattr(model, "peft_config"):
        source, kept = whole_source(model, model.state_dict(), processor)
        return Given(source, kept, dtype)
    inner: Any = model
    if not hasattr(model, "get_base_model"):
        raise ValueError(
            f"the {type(model).__name__} has adapters in it (load_adapter): give the PeftModel that PeftModel.from_pretrained or "
            "get_peft_model makes, or the model without them and peft_config"
        )
    if list(inner.peft_config) != ["default"]:
        raise ValueError(
            f"the PeftModel has the adapters {', '.join(inner.peft_config)}; needed one, called default: save the one to train "
            "with save_pretrained, and give its folder"
        )
    with inner.disable_adapter():
        tensors = active_tensors(model)
    source, kept = whole_source(inner.get_base_model(), tensors, processor)
    name = hashlib.blake2b(f"{source}|{fingerprint(model)}".encode(), digest_size=16).hexdigest()

    def build(folder: Path) -> None:
        inner.peft_config["default"].base_model_name_or_path = str(Path(source).resolve()) if kept else source
        inner.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)

    adapter = built_once(cache_dir() / FOLDER / f"{type(model).__name__}-{name}", build)
    return Given(str(adapter), True, dtype, adapter=True)


def whole_source(model: Any, tensors: Mapping[str, Tensor], processor: Any) -> tuple[str, bool]:
    """The source of a model without adapters, and whether it was written for this.

    Args:
        model: its class and configuration.
        tensors: its weights by the names that it is saved with.
        processor: see `source_of`.
    """
    named = str(getattr(model, "name_or_path", "") or "")
    if named and unchanged(model, tensors, named) and same_processor(processor, named):
        return named, False
    if processor is None:
        with contextlib.suppress(OSError, ValueError):
            processor = loaded_processor(named)
    if processor is None:
        raise ValueError(
            f"the {type(model).__name__} comes without a tokenizer: give tokenizer=... (or processor=... for models that see "
            "images)"
        )
    key = hashlib.blake2b(digest_size=16)
    key.update(fingerprint_of(model, tensors).encode())
    key.update(described(processor).encode())

    def build(folder: Path) -> None:
        model.save_pretrained(folder, state_dict=dict(tensors))
        processor.save_pretrained(folder)

    return str(built_once(cache_dir() / FOLDER / f"{type(model).__name__}-{key.hexdigest()}", build)), True


def kept_pipeline(pipeline: Any) -> Path:
    """The folder of a pipeline, written unless it is there.

    Raises:
        ValueError: there are adapters in it, which its folder would not have.
    """
    parts = {name: part for name, part in getattr(pipeline, "components", {}).items() if part is not None}
    networks = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    if adapted := [name for name, part in networks.items() if getattr(part, "peft_config", None)]:
        raise ValueError(
            f"the {type(pipeline).__name__} has adapters in its {', '.join(adapted)}: fuse them (fuse_lora, unload_lora_weights) or "
            "unload them first"
        )
    key = hashlib.blake2b(type(pipeline).__name__.encode(), digest_size=16)
    for name, part in sorted(parts.items()):
        held = fingerprint(part) if isinstance(part, nn.Module) else described(part)
        key.update(f"{name}|{held}|".encode())
    if not networks:
        raise ValueError(f"model is a {type(pipeline).__name__} without a network to train")
    place = cache_dir() / FOLDER / f"{type(pipeline).__name__}-{key.hexdigest()}"
    return built_once(place, lambda folder: pipeline.save_pretrained(folder))


def unchanged(model: Any, tensors: Mapping[str, Tensor], source: str) -> bool:
    """Whether a source holds these weights and this configuration; reads its files tensor by tensor."""
    from safetensors import safe_open
    from transformers import AutoConfig

    values = config_values(source)
    if not values or plain(AutoConfig.from_pretrained(source).to_dict()) != plain(model.config.to_dict()):
        return False
    index = file_of(source, "model.safetensors.index.json")
    names = (
        {"model.safetensors"} if index is None else set(json.loads(index.read_text())["weight_map"].values())
    )
    rest = dict(tensors)
    for name in sorted(names):
        file = file_of(source, name)
        if file is None:
            return False
        with safe_open(file, framework="pt") as held:
            for key in held.keys():  # noqa: SIM118 (no mapping)
                here = rest.pop(key, None)
                there = held.get_tensor(key)
                if here is None or here.shape != there.shape:
                    return False
                if not torch.equal(there.to(here.dtype), here.detach().cpu()):
                    return False
    known = {tensor.data_ptr() for name, tensor in tensors.items() if name not in rest}
    return all(tensor.data_ptr() in known for tensor in rest.values())  # tied weights are saved once


def same_processor(processor: Any, source: str) -> bool:
    """Whether a tokenizer or processor is that of a source; none given: whether that has one."""
    try:
        own = loaded_processor(source)
    except (OSError, ValueError):
        return False
    return processor is None or described(processor) == described(own)


def loaded_processor(source: str) -> Any:
    """Tokenizer or processor of a folder or hub id."""
    from transformers import AutoProcessor, AutoTokenizer

    if file_of(source, "preprocessor_config.json") or file_of(source, "processor_config.json"):
        return AutoProcessor.from_pretrained(source, trust_remote_code=False)
    return AutoTokenizer.from_pretrained(source, trust_remote_code=False)


def fingerprint_of(model: Any, tensors: Mapping[str, Tensor]) -> str:
    """Digest of weights by name, class and configuration."""
    if not hasattr(model, "peft_config") and tensors.keys() == model.state_dict().keys():
        return fingerprint(model)
    digest = hashlib.blake2b(type(model).__name__.encode(), digest_size=16)
    digest.update(json.dumps(plain(model.config), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def described(processor: Any) -> str:
    """A tokenizer, processor or scheduler as text that is equal for equal ones."""
    tokenizer = getattr(processor, "tokenizer", processor)
    parts: list[Any] = [type(processor).__name__]
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        parts.append(backend.to_str())
    parts += [
        getattr(tokenizer, name, None) for name in ("special_tokens_map", "chat_template", "padding_side")
    ]
    for part in (processor, getattr(processor, "image_processor", None)):
        values = getattr(part, "config", None)
        if values is None and part is not None and hasattr(part, "to_dict"):
            values = part.to_dict()
        if values is not None and part is not tokenizer:
            parts.append(plain(values))
    parts.append(getattr(processor, "chat_template", None))
    return json.dumps(parts, sort_keys=True, default=str)
