"""Load a language model, of text alone or with images, the way a user's checkpoint is loaded, adapters included.

Safetensors only, remote code off, and no weight may be missing. A folder that holds a peft adapter loads its base model
too; continuing from an adapter keeps a second, frozen copy of it as the reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.models.adapters import add_adapters, kept_flags, load_adapter
from prefopt.models.dropout import disable_dropout
from prefopt.models.left_out import left_out
from prefopt.models.loading_report import load_whole
from prefopt.models.peft_settings import LoraSettings, mutates, why_not_off, why_one_copy
from prefopt.models.quantized import Quantization, dequantized, ready_for_adapters
from prefopt.models.sources import CAUSAL, adapter_base, check_causal, check_source
from prefopt.models.tokenizers import load_tokenizer

__all__ = [
    "REFERENCE_ADAPTER",
    "LoadedModel",
    "LoraSettings",
    "adapter_base",
    "add_adapters",
    "check_source",
    "disable_dropout",
    "load_model",
    "load_tokenizer",
    "resolve_dtype",
    "trainable_parameters",
]

REFERENCE_ADAPTER = "reference"


@dataclass
class LoadedModel:
    """A model ready to train.

    Attributes:
        model: the policy; a `PeftModel` where adapters are trained.
        source: what it was loaded from, folder or hub id.
        adapter: the policy's adapter name, None under full fine-tuning.
        reference_adapter: the frozen starting adapter when continuing from one.
        left_out: names of weights in the files that belong to parts which this class does not have (a vision tower,
            heads that predict several tokens).
        own_embeddings: whether the adapter was saved with embeddings, which then belong to it.
        not_off: why switching the adapters off, or the frozen starting adapter on, would not give back what training began
            from; None where it does.
        began: the adapter's tensors before training, on the CPU, where they hold a part of the base weights.
    """

    model: nn.Module
    source: str
    adapter: str | None = None
    reference_adapter: str | None = None
    left_out: Sequence[str] = ()
    own_embeddings: bool = False
    not_off: str | None = None
    began: Mapping[str, Tensor] | None = None

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[None]:
        """While open, the model scores as before training: adapters off, or the frozen starting adapter on."""
        adapters: Any = self.model
        if self.adapter is None:
            raise ValueError(
                f"{self.source} is trained without adapters: load a frozen copy as the reference"
            )
        if self.not_off is not None:
            raise ValueError(f"{self.not_off}: load a frozen copy as the reference")
        if self.reference_adapter is None:
            with kept_flags(self.model), adapters.disable_adapter():
                yield
            return
        adapters.set_adapter(self.reference_adapter, inference_mode=True)
        try:
            yield
        finally:
            adapters.set_adapter(self.adapter)


def resolve_dtype(name: str) -> torch.dtype | str:
    """A dtype by its configuration name ("auto" keeps the checkpoint's)."""
    if name == "auto":
        return "auto"
    try:
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
            "float64": torch.float64,
        }[name]
    except KeyError:
        raise ValueError(f"dtype {name!r} is not one of: auto, float32, bfloat16, float16, float64") from None


def load_model(
    source: str,
    *,
    dtype: str = "auto",
    lora: LoraSettings | None = None,
    quantization: Quantization | None = None,
    dequantize: bool = False,
    attn_implementation: str | None = None,
    trainable: bool = True,
    loader: str = CAUSAL,
) -> LoadedModel:
    """Load a model from a folder or hub id.

    Args:
        source: folder saved by `save_pretrained` (of a model or of a peft adapter), or a hub id.
        dtype: "auto" for the checkpoint's, or a dtype's name.
        lora: train new adapters instead of the weights.
        quantization: of the base weights (QLoRA; needs the `qlora` extra).
        dequantize: write quantized base weights out as the numbers that they stand for.
        attn_implementation: passed on to transformers.
        trainable: False freezes everything (references).
        loader: auto class of transformers, one of `sources.LOADERS`.

    Raises:
        FileNotFoundError: no model there.
        ValueError: weights are missing, or have no place in the model; adapters that cannot be trained so.
        OSError: weights that are not safetensors.
    """
    import transformers
    from transformers import logging as transformers_logging

    check_causal(source, trained=trainable, adapters=lora is not None, loader=loader)
    transformers_logging.disable_progress_bar()  # "Loading weights" bars; ours cover what takes long
    base = adapter_base(source)
    if base is not None and lora is not None:
        raise ValueError(
            f"{source} is already an adapter: it will be trained further as it is. Leave out use_peft/lora_* "
            "or merge the adapter into its base first"
        )
    options: dict[str, Any] = {"dtype": resolve_dtype(dtype), "trust_remote_code": False}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if quantization is not None:
        options["quantization_config"] = quantization.for_transformers()
    try:
        model = load_whole(getattr(transformers, loader), base or source, **options)
    except OSError as error:
        if base is None or "safetensors" in str(error):
            raise
        raise OSError(
            f"the adapter {source} belongs to the model {base}, which could not be loaded: "
            f"{' '.join(str(error).split())[:200]}. Its place is base_model_name_or_path in adapter_config.json"
        ) from error
    if dequantize and getattr(model, "hf_quantizer", None) is not None:
        kind = resolve_dtype(dtype)
        model = dequantized(model, kind if isinstance(kind, torch.dtype) else model.dtype)
    disable_dropout(model)  # before adapters are added: their own dropout is the user's choice
    plain_outputs(model)
    ready_for_adapters(model)
    loaded = LoadedModel(model=model, source=source, left_out=left_out(base or source, model))
    if base is not None:
        loaded.model, loaded.own_embeddings = load_adapter(model, source, trainable)
        loaded.adapter = "default"
        adapters: Any = loaded.model
        if trainable and (why := why_one_copy(adapters.peft_config["default"])) is not None:
            loaded.not_off = f"{why}, so that no frozen starting adapter can be held beside the trained one"
        elif trainable:
            adapters.load_adapter(source, adapter_name=REFERENCE_ADAPTER, is_trainable=False)
            adapters.set_adapter("default")
            loaded.reference_adapter = REFERENCE_ADAPTER
        disable_dropout(loaded.model)  # also of the reference adapter: both must agree at the start
    elif lora is not None:
        loaded.model, loaded.adapter = add_adapters(model, lora), "default"
        adapted: Any = loaded.model
        config = adapted.peft_config["default"]
        loaded.not_off = why_not_off(config)
        if mutates(config):
            loaded.began = adapter_tensors(adapted)
    if not trainable:
        loaded.model.requires_grad_(False)
    loaded.model.eval()
    return loaded


def adapter_tensors(model: Any) -> dict[str, Tensor]:
    """Tensors of the adapter called default, by the names that they are saved under; copies on the CPU."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def plain_outputs(model: Any) -> None:
    """Have the model return what is asked for in a call, whatever its configuration adds; the saved one is not touched."""
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        for name, value in (
            ("output_attentions", False),
            ("output_hidden_states", False),
            ("return_dict", True),
        ):
            if getattr(config, name, value) is not value:
                setattr(config, name, value)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that an optimizer should see."""
    return [p for p in model.parameters() if p.requires_grad]
