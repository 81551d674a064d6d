"""Write a trained language model, or its adapter, with the configuration that it came with.

A run changes a model for itself: dropout is off, attention may be another, caches are off, experts are watched. None of
that belongs to the model. What is saved has the configuration of the checkpoint as it was written, but for what training
did change; see `CHANGED`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from prefopt.models.adapters import WEIGHTS
from prefopt.models.left_out import write_left_out
from prefopt.models.loading import LoadedModel
from prefopt.models.revisions import hub_name
from prefopt.models.sources import config_values, file_of, weights_of, whole_model

CHANGED = (
    "dtype", "torch_dtype", "architectures", "transformers_version", "tie_word_embeddings", "auto_map", "vocab_size",
)  # fmt: skip
"""Keys of config.json that may differ from the checkpoint's: the dtype of the saved weights, the class and the version that
saved them, a head that has weights of its own now, code of the checkpoint's own, which is neither run nor copied, and tokens
that an adapter brought."""


def save_model(folder: Path, policy: LoadedModel, tokenizer: Any, state: dict[str, Tensor] | None) -> None:
    """The trained model (or adapter) with its tokenizer, for `from_pretrained`.

    Args:
        folder: made if need be.
        policy: what was trained.
        tokenizer: saved beside it.
        state: the whole state dict, where parameters are sharded.
    """
    model: Any = policy.model
    options: dict[str, Any] = {} if state is None else {"state_dict": state}
    if policy.adapter:
        options |= {"selected_adapters": [policy.adapter], "save_embedding_layers": policy.own_embeddings}
        _name_base(model.peft_config[policy.adapter], policy.source)
    with plain_generation(model):
        if policy.began is None:
            model.save_pretrained(folder, **options)
        else:
            _save_difference(folder, policy, state)
    if not policy.adapter:
        if state is not None:
            _name_dtype(folder, state)
        source = whole_model(policy.source)
        if policy.left_out:
            write_left_out(folder, source, policy.left_out)
        restore_configuration(folder, source, model)
    tokenizer.save_pretrained(folder)


def _save_difference(folder: Path, policy: LoadedModel, state: dict[str, Tensor] | None) -> None:
    """Adapters that hold a part of the base weights, as LoRA of twice the rank on the base as its files have it.

    With W = R + s B_0 A_0 before training and R + s B A after it, the change is s [B, -B_0] [A; A_0], as peft's own
    conversion writes it.
    """
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    adapters: Any = policy.model
    began, config = policy.began or {}, copy.deepcopy(adapters.peft_config[policy.adapter])
    found = get_peft_model_state_dict(
        adapters, state_dict=state, adapter_name=policy.adapter, save_embedding_layers=False
    )
    tensors = {name: tensor.detach().cpu() for name, tensor in found.items()}
    for name, tensor in tensors.items():  # cat would take the wider of two dtypes
        if ".lora_A." in name:
            tensors[name] = torch.cat([tensor, began[name].to(tensor.dtype)])
        elif ".lora_B." in name:
            tensors[name] = torch.cat([tensor, -began[name].to(tensor.dtype)], dim=1)
    scale = 2**0.5 if config.use_rslora else 2  # so that alpha / sqrt(r), or alpha / r, stays what it was
    config.init_lora_weights, config.inference_mode = True, True
    config.r, config.lora_alpha = 2 * config.r, scale * config.lora_alpha
    config.rank_pattern = {k: 2 * v for k, v in config.rank_pattern.items()}
    config.alpha_pattern = {k: scale * v for k, v in config.alpha_pattern.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(folder)


def _name_dtype(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Have the configuration tell the dtype of what was written, which need not be the model's."""
    path = folder / "config.json"
    values = json.loads(path.read_text("utf-8"))
    sizes: Counter[str] = Counter()
    for value in state.values():
        if value.is_floating_point():
            sizes[str(value.dtype).removeprefix("torch.")] += value.numel()
    path.write_text(json.dumps(values | {"dtype": sizes.most_common(1)[0][0]}, indent=2) + "\n", "utf-8")


def restore_configuration(folder: Path, source: str, model: Any) -> None:
    """Put the checkpoint's own configuration into a folder that `save_pretrained` wrote.

    Args:
        folder: with config.json, and generation_config.json where the model generates.
        source: folder or hub id that the model was loaded from.
        model: as saved.
    """
    given = config_values(source)
    written = json.loads((folder / "config.json").read_text("utf-8"))
    values = {k: v for k, v in given.items() if k != "auto_map"}
    if given.get("model_type") == written.get("model_type"):
        values["architectures"] = written["architectures"]
    # without a quantization the weights are saved as they were trained
    if "quantization_config" not in written:
        values.pop("quantization_config", None)
    for old in ("torch_dtype", "dtype"):
        if old in values or (old == "dtype" and "torch_dtype" not in values):
            values[old] = written["dtype"]
    text = values.get("text_config")
    if isinstance(text, dict):
        inner = {k: written["dtype"] for k in ("torch_dtype", "dtype") if k in text}
        if "vocab_size" in text and "vocab_size" in written.get("text_config", {}):
            inner["vocab_size"] = written["text_config"]["vocab_size"]
        values["text_config"] = text | inner
    if "vocab_size" in written and "vocab_size" in values:
        values["vocab_size"] = written["vocab_size"]  # an adapter may have brought embeddings of more tokens
    if "transformers_version" in written:
        values["transformers_version"] = written["transformers_version"]
    if _untied(source, model):
        values["tie_word_embeddings"] = False
        if isinstance(values.get("text_config"), dict):
            values["text_config"] = values["text_config"] | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
    generation = file_of(source, "generation_config.json")
    if generation is not None:
        shutil.copyfile(generation, folder / "generation_config.json")
    elif getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)


@contextlib.contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Settings of generation that transformers will save, where the checkpoint's will not do: its file is copied later."""
    held = getattr(model, "generation_config", None)
    if held is None:
        yield
        return
    model.generation_config = type(held)()
    try:
        yield
    finally:
        model.generation_config = held


def _untied(source: str, model: Any) -> bool:
    """Whether the head shared the embedding's weights in the checkpoint, and has its own now."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source, trust_remote_code=False).get_text_config()
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    apart = None not in ends and getattr(ends[0], "weight", None) is not getattr(ends[1], "weight", None)
    return bool(getattr(config, "tie_word_embeddings", False)) and apart


def _name_base(config: Any, source: str) -> None:
    """Have the adapter name its base model so that it is found from any folder."""
    base = whole_model(source)
    base = weights_of(base) or base
    place = Path(base).resolve()
    if place.is_dir() and (on_the_hub := hub_name(place)):
        config.base_model_name_or_path, config.revision = on_the_hub
    else:
        config.base_model_name_or_path = str(place) if place.is_dir() else base
