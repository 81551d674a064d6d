"""Models that a program has in memory, as folders: whoever trains, resumes or loads an adapter's base again needs a source.

An object that is still what its `name_or_path` names is that folder or hub id. Any other is written to the cache, once for
each content, in a folder that is named by its class and a digest of all of it; weights that are those of the source are
linked there.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.cache import built_once, cache_dir
from prefopt.files import link_or_copy
from prefopt.models.identity import acting, active_tensors, add_tensors, fingerprint, plain
from prefopt.models.quantized import quantization_keys
from prefopt.models.saving import plain_generation
from prefopt.models.sources import WEIGHTS_OF, adapter_base, config_values, file_of, weights_of
from prefopt.models.unchanged import (
    described,
    equal,
    loaded_processor,
    same_generation,
    same_model_weights,
    same_pipeline,
    same_processor,
    same_settings,
    settings,
    weight_files,
)

FOLDER = "given"
"""In the cache: folders of models that were objects."""
UNNAMED = {"_name_or_path", "name_or_path", "transformers_version"}
"""Of configurations: where from, and by whom, which makes no other model."""


@dataclass(frozen=True)
class Given:
    """Where a model that was an object is now.

    Attributes:
        source: folder or hub id.
        dtype: of its weights, by its configuration name; None for pipelines.
        adapter: whether it is an adapter with its base model.
        quantization: keys of a configuration that load it with as few bits as the object has.
    """

    source: str
    dtype: str | None
    adapter: bool = False
    quantization: Mapping[str, Any] = field(default_factory=dict)


def is_model(given: Any) -> bool:
    """Whether something is a model or a pipeline in memory: it can write itself into a folder."""
    return callable(getattr(given, "save_pretrained", None)) and not isinstance(given, str | Path)


def source_of(model: Any, processor: Any = None) -> Given:
    """The folder or hub id of a model in memory.

    Args:
        model: `PreTrainedModel`, `PeftModel`, or a pipeline.
        processor: its tokenizer or processor; None: that of the model's `name_or_path`.

    Raises:
        ValueError: no tokenizer is known; several adapters, of which one would have to be chosen; adapters in a pipeline;
            quantized weights that are not those of the source; an adapter that no folder can hold.
    """
    if not isinstance(model, nn.Module):
        return Given(pipeline_source(model), dtype=None)
    inner: Any = model
    if not hasattr(model, "peft_config"):
        source, keys = whole_source(model, model.state_dict(), processor)
        return Given(source, dtype_of(model), quantization=keys)
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
    base = inner.get_base_model()
    with inner.disable_adapter():
        tensors = active_tensors(model)
    source, keys = whole_source(base, tensors, processor)
    return Given(adapter_folder(inner, source, processor), dtype_of(base), adapter=True, quantization=keys)


def dtype_of(model: Any) -> str:
    """The dtype of a model's weights by its configuration name; of quantized ones, the dtype of the rest."""
    quantized = getattr(model.config, "quantization_config", None) is not None
    dtype = getattr(model.config, "dtype", None) if quantized else None
    return str(dtype or next(model.parameters()).dtype).removeprefix("torch.")


def whole_source(model: Any, tensors: Mapping[str, Tensor], processor: Any) -> tuple[str, Mapping[str, Any]]:
    """The source of a model without adapters, and the keys that load it with as few bits as it has.

    Args:
        model: its class and configuration.
        tensors: its weights by the names that it is saved with.
        processor: see `source_of`.
    """
    named = str(getattr(model, "name_or_path", "") or "")
    keys: Mapping[str, Any] = {}
    quantized = getattr(model.config, "quantization_config", None) is not None
    if quantized:
        keys = quantization_keys(model, named)
    files = weight_files(named) if named and same_model_weights(model, tensors, named) else []
    if quantized and not files:
        raise ValueError(
            f"the {type(model).__name__} has quantized weights that are not those of {named or 'a source'}, loaded anew: give the "
            "model that is not quantized, with use_peft=true and load_in_4bit=true (or load_in_8bit)"
        )
    alike = bool(files) and same_settings(model, named)
    if alike and same_generation(model, named) and same_processor(processor, named):
        return named, keys
    if processor is None:
        with contextlib.suppress(OSError, ValueError):
            processor = loaded_processor(named)
    if processor is None:
        raise ValueError(
            f"the {type(model).__name__} comes without a tokenizer: give tokenizer=... (or processor=... for models that see "
            "images)"
        )

    def build(folder: Path) -> None:
        if files:
            linked(model, named, files, folder)
        else:
            with plain_generation(model):
                model.save_pretrained(folder, state_dict=dict(tensors))
        if getattr(model, "generation_config", None) is not None:
            # save_pretrained refuses what many checkpoints have, such as a temperature without sampling
            model.generation_config.to_json_file(folder / "generation_config.json")
        processor.save_pretrained(folder)
        if alike:  # the base of an adapter is then the source
            (folder / WEIGHTS_OF).write_text(json.dumps({"weights_of": spelled_out(named)}), "utf-8")

    name = digest(model, tensors, [described(processor), named if files else ""])
    return str(built_once(cache_dir() / FOLDER / f"{type(model).__name__}-{name}", build)), keys


def spelled_out(source: str) -> str:
    """A folder by its whole path; a hub id as it is."""
    place = Path(source).expanduser()
    return str(place.resolve()) if place.is_dir() else source


def linked(model: Any, source: str, files: list[Path], folder: Path) -> None:
    """Write a model whose weights are those of a source's files: its configuration, and links to them."""
    for file in files:
        link_or_copy(str(file.resolve()), str(folder / file.name))
    if (index := file_of(source, "model.safetensors.index.json")) is not None:
        link_or_copy(str(index.resolve()), str(folder / index.name))
    model.config.save_pretrained(folder)
    path, held = folder / "config.json", config_values(source)
    values = json.loads(path.read_text("utf-8"))
    for name in ("torch_dtype", "dtype", "architectures", "quantization_config"):  # as the files are
        values.pop(name, None)
        values |= {name: held[name]} if name in held else {}
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")


def digest(model: Any, tensors: Mapping[str, Tensor], more: Any) -> str:
    """Of weights by name, of all settings, and of more that makes a folder another."""
    generation = getattr(model, "generation_config", None)
    known = [settings(model.config, UNNAMED), generation and settings(generation, UNNAMED), more]
    found = hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=16)
    add_tensors(found, tensors)
    return found.hexdigest()


def adapter_folder(model: Any, base: str, processor: Any) -> str:
    """The folder of a `PeftModel`'s adapter.

    Args:
        model: with one adapter, called default.
        base: source of what is below it.
        processor: saved beside it, where there is one.

    Raises:
        ValueError: what is loaded from the folder is another model.
    """
    config = model.peft_config["default"]
    values = json.dumps(plain_config(config), sort_keys=True, default=str)
    held = [base, fingerprint(model), values, "" if processor is None else described(processor)]
    name = hashlib.blake2b("|".join(held).encode(), digest_size=16).hexdigest()

    def build(folder: Path) -> None:
        with kept_config(model, as_saved(config, weights_of(base) or spelled_out(base))):
            model.save_pretrained(folder)
        check_adapter(model, base, folder)
        if processor is not None:
            processor.save_pretrained(folder)

    return str(built_once(cache_dir() / FOLDER / f"{type(model).__name__}-{name}", build))


def plain_config(config: Any) -> dict[str, Any]:
    """A configuration of peft without what it was made for."""
    return {
        k: v for k, v in config.to_dict().items() if k not in ("inference_mode", "base_model_name_or_path")
    }


def as_saved(config: Any, base: str) -> Any:
    """The configuration of an adapter whose tensors and base are both as they are now.

    A beginning that takes a part of the base weights (pissa, olora, corda, loftq, lora_ga) would take it again whenever it is
    loaded. mica stays: it also says what is trained, and takes nothing.
    """
    written = copy.deepcopy(config)
    written.base_model_name_or_path, written.revision = base, None
    beginning = getattr(written, "init_lora_weights", True)
    if isinstance(beginning, str) and beginning.lower() != "mica":
        written.init_lora_weights = True
    return written


@contextlib.contextmanager
def kept_config(model: Any, written: Any) -> Iterator[None]:
    """While open, a `PeftModel` has another configuration of its adapter."""
    own = model.peft_config["default"]
    model.peft_config["default"] = written
    try:
        yield
    finally:
        model.peft_config["default"] = own


def check_adapter(model: Any, base: str, folder: Path) -> None:
    """Load a saved adapter again, and compare.

    Raises:
        ValueError: it is another model than the one in memory.
    """
    from peft import PeftModel

    inner = model.get_base_model()
    options: dict[str, Any] = {"dtype": getattr(torch, dtype_of(inner))}
    if getattr(inner.config, "quantization_config", None) is not None:
        options |= {"quantization_config": inner.config.quantization_config, "device_map": {"": inner.device}}
    below = type(inner).from_pretrained(base, trust_remote_code=False, **options)
    again = PeftModel.from_pretrained(below, folder)
    mine, found = active_tensors(model), active_tensors(again)
    wrong = [
        n for n in sorted(mine.keys() | found.keys()) if n not in found or not equal(mine.get(n), found[n])
    ]
    if acting(model) != acting(again):
        wrong.append("the factors by which adapters are added")
    if wrong:
        raise ValueError(
            f"the {type(model).__name__} cannot be kept: saved with peft and loaded again, {len(wrong)} of its parts would be others, "
            f"among them {wrong[0]}. Merge its adapter (merge_and_unload) and give that model, with peft_config for a new one"
        )


def pipeline_source(pipeline: Any) -> str:
    """The folder or hub id of a pipeline, written unless it is there.

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
    if not networks:
        raise ValueError(f"model is a {type(pipeline).__name__} without a network to train")
    named = str(getattr(pipeline, "name_or_path", "") or "")
    if named and same_pipeline(parts, named, type(pipeline).__name__):
        return named
    key = hashlib.blake2b(type(pipeline).__name__.encode(), digest_size=16)
    for name, part in sorted(parts.items()):
        held = fingerprint(part) if isinstance(part, nn.Module) else described(part)
        key.update(f"{name}|{held}|".encode())
    key.update(json.dumps(plain(getattr(pipeline, "config", {})), sort_keys=True, default=str).encode())
    place = cache_dir() / FOLDER / f"{type(pipeline).__name__}-{key.hexdigest()}"
    return str(built_once(place, lambda folder: pipeline.save_pretrained(folder)))


def told_of(source: str) -> str | None:
    """What a user should know of a model that was kept for a run; None of one that is anywhere else."""
    kept = (cache_dir() / FOLDER).resolve()
    place = Path(source).expanduser()
    if place.resolve().parent != kept:
        return None
    if (base := adapter_base(source)) is not None:
        told = f"the adapter in memory is kept in {place}, on {base}"
        return told if Path(base).resolve().parent != kept else f"{told}{NEEDED}"
    if (named := weights_of(source)) is not None:
        return (
            f"the model in memory has the weights of {named} with other settings or another tokenizer: it is kept in {place}, which a "
            "run is resumed with"
        )
    return f"the model in memory is that of no folder or hub id: it is kept in {place}{NEEDED}"


NEEDED = ", which a run is resumed with, and which adapters trained on it name and need: keep it with them"
