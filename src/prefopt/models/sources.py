"""What a model's folder or hub id is: found out from its configuration alone, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def check_source(source: str) -> None:
    """Fail early, and plainly, where a folder was meant but is not there.

    Raises:
        FileNotFoundError: `source` looks like a path and does not exist, or is a folder without a model.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        if not any((path / name).exists() for name in ("config.json", "adapter_config.json")):
            present = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
            raise FileNotFoundError(
                f"{path} holds no model: needed config.json (or adapter_config.json); found {present}. "
                "A finished run keeps its model in the folder `model/` inside."
            )
    elif looks_like_path(source):
        raise FileNotFoundError(
            f"no model folder at {source}; give a folder saved by save_pretrained, or a hub id"
        )


def looks_like_path(source: str) -> bool:
    """Whether a folder was meant, rather than a hub id."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1


def whole_model(source: str) -> str:
    """The whole model of a source: an adapter's base model, or the source itself."""
    return adapter_base(source) or source


def adapter_base(source: str) -> str | None:
    """The base model of a peft adapter, by folder or hub id; None for anything else.

    A relative path is looked for in the current folder, then beside the adapter and in the folders above it.

    Raises:
        FileNotFoundError: the adapter names a folder that is in none of these places.
        ValueError: the adapter names no base model.
    """
    file = file_of(source, "adapter_config.json")
    if file is None:
        return None
    given = read_json(file).get("base_model_name_or_path")
    if not given:
        raise ValueError(
            f"the adapter {source} does not say which model it belongs to: write the model's folder or hub id into "
            "base_model_name_or_path of its adapter_config.json"
        )
    path = Path(given).expanduser()
    folder = file.resolve().parent
    places = [path] if path.is_absolute() else [path, *(place / path for place in (folder, *folder.parents))]
    for place in places:
        if (place / "config.json").is_file():
            return str(place)
    if looks_like_path(given):
        where = "there" if path.is_absolute() else f"in {Path.cwd()} or in {folder} or above it"
        raise FileNotFoundError(
            f"the adapter {source} belongs to the model {given}, and no model is {where}: write the model's place into "
            f"base_model_name_or_path of {folder / 'adapter_config.json'}"
        )
    return str(given)


WEIGHTS_OF = "weights_of.json"
"""In a folder whose weights are those of another source, and linked: what that is, where scores are the same, too."""


def weights_of(source: str) -> str | None:
    """The source whose weights a folder has, with another tokenizer or settings that change no score; None: its own."""
    place = Path(source).expanduser() / WEIGHTS_OF
    return str(read_json(place)["weights_of"]) if place.is_file() else None


def file_of(source: str, name: str) -> Path | None:
    """A file of a folder or of a hub repository; None where there is none (or no network, and it is not in the cache)."""
    folder = Path(source).expanduser()
    if folder.is_dir() or looks_like_path(source):
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, name))
    except (OSError, ValueError):
        return None


def config_values(source: str) -> dict[str, Any]:
    """What a model's config.json says, as it is written; empty where there is none."""
    file = file_of(source, "config.json")
    return {} if file is None else read_json(file)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object out of a model's files.

    Raises:
        ValueError: it holds something else, or is damaged; names the file.
    """
    try:
        values = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{file} is not valid JSON ({error}): download it again, or save the model again"
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f"{file} holds a {type(values).__name__}; needed an object {{...}}: save the model again"
        )
    return values


CAUSAL = "AutoModelForCausalLM"
PICTURED = "AutoModelForImageTextToText"
SEQUENCE = "AutoModelForSequenceClassification"
LOADERS = {
    CAUSAL: (
        "MODEL_FOR_CAUSAL_LM_MAPPING",
        "causal language model: needed one that predicts each token from those before it, which transformers loads with "
        f"{CAUSAL} (Llama, Qwen, Mistral, Gemma, GPT-2, ...)",
    ),
    PICTURED: (
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
        f"model of images and text: needed one that transformers loads with {PICTURED} (LLaVA, Qwen-VL, Gemma 3, ...)",
    ),
    SEQUENCE: (
        "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
        f"classifier of texts: needed one that transformers loads with {SEQUENCE} (Llama, Qwen, BERT, DeBERTa, ...)",
    ),
}
"""By auto class of transformers: its mapping, and what a model must be, behind "which is no"."""


def check_causal(source: str, trained: bool = False, adapters: bool = False, loader: str = CAUSAL) -> None:
    """Fail early where a source is no causal language model that can be loaded here; reads its configuration only.

    Args:
        source: folder or hub id of a model or of an adapter.
        trained: whether it will be trained.
        adapters: whether only adapters on it will be.
        loader: auto class of transformers that is to load it, one of `LOADERS`.

    Raises:
        FileNotFoundError: no model there.
        ValueError: another kind of model, one that needs code of its own, or quantized in a way that does not work here.
    """
    check_source(source)
    base = whole_model(source)
    if base != source:
        check_source(base)
    values = config_values(base)
    if not values and base != source:
        raise FileNotFoundError(
            f"the adapter {source} belongs to the model {base}, which is no folder in {Path.cwd()}, beside the adapter or above "
            "it, and could not be had as a hub id: write the model's place into base_model_name_or_path of its "
            "adapter_config.json"
        )
    if not values:  # a hub id that cannot be reached: loading says why
        return
    if "model_type" not in values:
        raise ValueError(
            f"the config.json of {base} names no model_type, so that it is not known which class the weights belong to: save "
            "the model again with save_pretrained"
        )
    refuse_remote_code(base, values, loader)
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    mapping, needed = LOADERS[loader]
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    if type(config) not in getattr(modeling_auto, mapping):
        named = ", ".join(values.get("architectures") or [values.get("model_type", "unknown")])
        raise ValueError(f"{base} holds a {named}, which is no {needed}")
    if values.get("quantization_config"):
        _check_quantized(base, values["quantization_config"], trained and not adapters and base == source)


def refuse_remote_code(source: str, values: Mapping[str, Any], loader: str = "AutoModel") -> None:
    """Refuse a model of no class that transformers ships.

    Args:
        source: folder or hub id.
        values: of its config.json.
        loader: auto class of transformers that is to load it.

    Raises:
        ValueError: it needs code out of its own files, or a newer transformers.
    """
    from transformers import CONFIG_MAPPING

    kind = values.get("model_type")
    shipped = kind in CONFIG_MAPPING
    if loader in LOADERS and shipped:
        from transformers.models.auto import modeling_auto

        shipped = kind in getattr(modeling_auto, f"{LOADERS[loader][0]}_NAMES")
    if shipped:
        return
    if {loader, "AutoConfig"} & set(values.get("auto_map") or {}):
        raise ValueError(remote_code_message(source, kind))
    if kind is not None and kind not in CONFIG_MAPPING:
        from transformers import __version__

        raise ValueError(
            f"{source} holds a model of type {kind!r}, which transformers {__version__} does not know: upgrade "
            "transformers, or give a model of a class that it ships"
        )


def remote_code_message(source: str, kind: Any = None) -> str:
    """Why code out of a model's own files is not run, and what to do instead."""
    what = f"of type {kind!r} " if kind else ""
    return (
        f"{source} {what}needs Python code out of its own files, and prefopt never runs such code (there is no "
        "trust_remote_code): upgrade transformers, which has taken many such classes in; or take, or convert it to, a "
        "class that transformers ships, as many Llama-like models can be; or load and save it in a script of your own"
    )


def _check_quantized(source: str, settings: Mapping[str, Any], all_weights: bool) -> None:
    """Whether a quantized checkpoint can be loaded here, and trained as asked."""
    from transformers.quantizers import AutoHfQuantizer

    method = settings.get("quant_method") or ("bitsandbytes" if settings.get("load_in_4bit") else "unknown")
    try:
        quantizer = AutoHfQuantizer.from_config(dict(settings), pre_quantized=True)
        quantizer.validate_environment(device_map=None, weights_only=True)
    except (ImportError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"{source} is quantized with {method}, which cannot be used here: {why.rstrip('.')}. Or give the checkpoint "
            "that is not quantized; with use_peft=true and load_in_4bit=true it is quantized when loaded"
        ) from None
    if all_weights and not getattr(quantizer.quantization_config, "dequantize", False):
        raise ValueError(
            f"{source} is quantized with {method}, and quantized weights cannot be trained: set use_peft=true, which "
            "trains adapters on them, or give the checkpoint that is not quantized"
        )
