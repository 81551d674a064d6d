"""Whether a model, tokenizer or pipeline in memory is still what its `name_or_path` holds, in all that is taken from there.

What a run sets for itself is not taken: caches, the form of outputs, and padding, which is neither seen nor scored.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.models.identity import plain
from prefopt.models.loading_report import header_of
from prefopt.models.sources import config_values, file_of

NOT_TAKEN = {
    "_name_or_path", "name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype", "pad_token_id", "use_cache",
    "return_dict", "output_hidden_states", "output_attentions", "quantization_config", "_from_model_config", "_attn_implementation",
    "_attn_implementation_internal",
}  # fmt: skip
"""Of configurations of a model and of its generation."""
WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")


def settings(config: Any, leave_out: set[str] = NOT_TAKEN) -> Any:
    """A configuration of transformers as plain values, at any depth without some keys."""

    def kept(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(k): kept(v) for k, v in value.items() if k not in leave_out}
        return [kept(v) for v in value] if isinstance(value, list | tuple) else value

    return json.loads(json.dumps(kept(config.to_dict()), sort_keys=True, default=str))


def same_settings(model: Any, source: str) -> bool:
    """Whether a source holds this configuration."""
    from transformers import AutoConfig

    return bool(config_values(source)) and settings(AutoConfig.from_pretrained(source)) == settings(
        model.config
    )


def same_generation(model: Any, source: str) -> bool:
    """Whether a source generates as this model does: the tokens that end an answer are taken from there."""
    from transformers import GenerationConfig

    mine = getattr(model, "generation_config", None)
    if mine is None:
        return True
    if file_of(source, "generation_config.json") is not None:
        own = GenerationConfig.from_pretrained(source)
    else:
        from transformers import AutoConfig

        own = GenerationConfig.from_model_config(AutoConfig.from_pretrained(source))
    return bool(settings(own) == settings(mine))


def weight_files(source: str, part: str = "") -> list[Path]:
    """The files with a source's weights; empty where it has none, or some are missing.

    Args:
        source: folder or hub id.
        part: folder of a pipeline's component within it, with a slash behind.
    """
    for name in WEIGHTS:
        index = file_of(source, f"{part}{name}.index.json")
        names = {name} if index is None else set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        files = [file_of(source, f"{part}{each}") for each in sorted(names)]
        if None not in files:
            return [file for file in files if file is not None]
    return []


def same_model_weights(model: Any, tensors: Mapping[str, Tensor], source: str) -> bool:
    """Whether a source has the weights of a model.

    Args:
        model: its class, configuration and device.
        tensors: its weights by the names that it is saved with.
        source: folder or hub id.
    """
    files = weight_files(source)
    if not files or not config_values(source):
        return False
    as_named = all(header_of(file).keys() <= tensors.keys() for file in files)
    if as_named and getattr(model.config, "quantization_config", None) is None:
        return same_weights(tensors, files)
    return same_loaded(model, tensors, source)


def same_loaded(model: Any, tensors: Mapping[str, Tensor], source: str) -> bool:
    """The same where files do not hold a model's weights as it has them: quantized, or experts as one tensor."""
    quantized = getattr(model.config, "quantization_config", None)
    options: dict[str, Any] = {"dtype": model.dtype if quantized is None else model.config.dtype}
    if quantized is not None:  # which rounds as its device does
        options["device_map"] = {"": model.device}
        if not config_values(source).get("quantization_config"):
            options["quantization_config"] = copy.deepcopy(quantized)
    again = type(model).from_pretrained(source, trust_remote_code=False, use_safetensors=True, **options)
    held = again.state_dict()
    return bool(held.keys() == tensors.keys() and all(equal(tensors[name], held[name]) for name in held))


def same_weights(tensors: Mapping[str, Tensor], files: list[Path]) -> bool:
    """Whether files hold these weights, in whatever dtype; reads them tensor by tensor."""
    from safetensors import safe_open

    rest = dict(tensors)
    for file in files:
        with safe_open(file, framework="pt") as held:
            for key in held.keys():  # noqa: SIM118 (no mapping)
                if not equal(rest.pop(key, None), held.get_tensor(key)):
                    return False
    known = {tensor.data_ptr() for name, tensor in tensors.items() if name not in rest}
    # tied weights are saved once
    return bool(files) and all(tensor.data_ptr() in known for tensor in rest.values())


def equal(here: Tensor | None, there: Tensor) -> bool:
    """Whether a tensor has the numbers of another, in its own dtype."""
    if here is None or here.shape != there.shape:
        return False
    return torch.equal(there.detach().cpu().to(here.dtype), here.detach().cpu())


def same_processor(processor: Any, source: str) -> bool:
    """Whether a tokenizer or processor is that of a source; none given: whether that has one."""
    if processor is None and any(
        file_of(source, name) for name in ("tokenizer_config.json", "tokenizer.json")
    ):
        return True
    try:
        own = loaded_processor(source)
    except (OSError, ValueError):
        return False
    return processor is None or described(processor, padding=False) == described(own, padding=False)


def loaded_processor(source: str) -> Any:
    """Tokenizer or processor of a folder or hub id."""
    from transformers import AutoProcessor, AutoTokenizer

    if file_of(source, "preprocessor_config.json") or file_of(source, "processor_config.json"):
        return AutoProcessor.from_pretrained(source, trust_remote_code=False)
    return AutoTokenizer.from_pretrained(source, trust_remote_code=False)


def described(processor: Any, padding: bool = True) -> str:
    """A tokenizer, processor or scheduler as text that is equal for equal ones.

    Args:
        processor: whichever.
        padding: also how it pads and cuts, which is not taken from the tokenizer of a language model.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    templates = [getattr(each, "chat_template", None) for each in (tokenizer, processor)]
    parts: list[Any] = [type(processor).__name__, *templates]
    special = dict(getattr(tokenizer, "special_tokens_map", None) or {})
    if not padding and "pad_token" not in str(templates):
        special.pop("pad_token", None)
    parts.append(special)
    if padding:
        parts += [getattr(tokenizer, name, None) for name in ("padding_side", "model_max_length")]
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        values = json.loads(backend.to_str())
        parts.append(
            {k: v for k, v in values.items() if k not in ("padding", "truncation")}
        )  # of the last call
    elif callable(getattr(tokenizer, "get_vocab", None)):
        parts.append(tokenizer.get_vocab())
    for part in (processor, getattr(processor, "image_processor", None)):
        values = getattr(part, "config", None)
        if values is None and part is not None and hasattr(part, "to_dict"):
            values = part.to_dict()
        if values is not None and part is not tokenizer:
            parts.append(plain(values))
    return json.dumps(parts, sort_keys=True, default=str)


def same_pipeline(parts: Mapping[str, Any], source: str, kind: str) -> bool:
    """Whether the folder or repository of a pipeline holds these components.

    Args:
        parts: those that there are, by name.
        source: folder or hub id.
        kind: the pipeline's class.
    """
    index = file_of(source, "model_index.json")
    values = {} if index is None else json.loads(index.read_text("utf-8"))
    there = {k: str(v[1]) for k, v in values.items() if isinstance(v, list) and v[0]}
    if values.get("_class_name") != kind or there.keys() - set(UNUSED) != parts.keys() - set(UNUSED):
        return False
    return all(
        type(part).__name__.removesuffix("Fast") == there.get(name, "").removesuffix("Fast")
        and same_part(part, source, name)
        for name, part in parts.items()
    )


UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""Components of pipelines that may be absent: training has no use for them."""


def same_part(part: Any, source: str, name: str) -> bool:
    """Whether a component of a pipeline is the one that a source has under its name."""
    try:
        if not isinstance(part, nn.Module):
            return described(part) == described(type(part).from_pretrained(source, subfolder=name))
        own = own_config(part, source, name)
    except (OSError, ValueError, TypeError):
        return False
    return plain(own) == plain(part.config) and same_weights(
        dict(part.state_dict()), weight_files(source, f"{name}/")
    )


def own_config(part: Any, source: str, name: str) -> Any:
    """The configuration of a network that a source has under a name, with its defaults; no weights are made."""
    if hasattr(type(part), "config_class") and type(part).config_class is not None:
        return type(part).config_class.from_pretrained(source, subfolder=name)
    with torch.device("meta"):
        return type(part).from_config(type(part).load_config(source, subfolder=name)).config
