"""Load a causal language model and its tokenizer the way a user's checkpoint is loaded, adapters included.

Safetensors only, remote code off. A folder that holds a peft adapter loads its base model too; continuing from an
adapter keeps a second, frozen copy of it as the reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFERENCE_ADAPTER = "reference"


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters through peft; names and defaults are peft's and TRL's."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: Sequence[str] | str | None = None
    """None: peft's default for the architecture, or all linear layers where it has none."""


@dataclass
class LoadedModel:
    """A model ready to train.

    Attributes:
        model: the policy; a `PeftModel` where adapters are trained.
        source: what it was loaded from, folder or hub id.
        adapter: the policy's adapter name, None under full fine-tuning.
        reference_adapter: the frozen starting adapter when continuing from one.
    """

    model: nn.Module
    source: str
    adapter: str | None = None
    reference_adapter: str | None = None

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[None]:
        """While open, the model scores as before training: adapters off, or the frozen starting adapter on."""
        adapters: Any = self.model
        if self.adapter is None:
            raise ValueError(
                f"{self.source} is trained without adapters: load a frozen copy as the reference"
            )
        if self.reference_adapter is None:
            with adapters.disable_adapter():
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


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id; falls back to an adapter's base model."""
    from transformers import AutoTokenizer

    check_source(source)
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError):
        base = adapter_base(source)
        if base is None:
            raise
        return AutoTokenizer.from_pretrained(base)


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
    elif source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise FileNotFoundError(
            f"no model folder at {source}; give a folder saved by save_pretrained, or a hub id"
        )


def adapter_base(source: str) -> str | None:
    """The base model of a peft adapter folder, None for anything else."""
    import json

    config = Path(source).expanduser() / "adapter_config.json"
    return json.loads(config.read_text())["base_model_name_or_path"] if config.exists() else None


def load_model(
    source: str,
    *,
    dtype: str = "auto",
    lora: LoraSettings | None = None,
    load_in_4bit: bool = False,
    attn_implementation: str | None = None,
    trainable: bool = True,
) -> LoadedModel:
    """Load a model from a folder or hub id.

    Args:
        source: folder saved by `save_pretrained` (of a model or of a peft adapter), or a hub id.
        dtype: "auto" for the checkpoint's, or a dtype's name.
        lora: train new adapters instead of the weights.
        load_in_4bit: quantize the base weights (QLoRA; needs the `qlora` extra and a GPU).
        attn_implementation: passed on to transformers.
        trainable: False freezes everything (references).
    """
    from transformers import AutoModelForCausalLM
    from transformers import logging as transformers_logging

    check_source(source)
    transformers_logging.disable_progress_bar()  # "Loading weights" bars; ours cover what takes long
    base = adapter_base(source)
    options: dict[str, Any] = {"dtype": resolve_dtype(dtype), "use_safetensors": True}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if load_in_4bit:
        options["quantization_config"] = four_bit_config()
    model = AutoModelForCausalLM.from_pretrained(base or source, **options)
    disable_dropout(model)  # before adapters are added: their own dropout is the user's choice
    loaded = LoadedModel(model=model, source=source)
    if base is not None:
        from peft import PeftModel

        if lora is not None:
            raise ValueError(
                f"{source} is already an adapter: it will be trained further as it is. Leave out use_peft/lora_* "
                "or merge the adapter into its base first"
            )
        model = PeftModel.from_pretrained(model, source, is_trainable=trainable)
        loaded = LoadedModel(model=model, source=source, adapter="default")
        if trainable:
            check_only_lora(model)
            model.load_adapter(source, adapter_name=REFERENCE_ADAPTER, is_trainable=False)
            model.set_adapter("default")
            loaded.reference_adapter = REFERENCE_ADAPTER
        disable_dropout(model)  # also of the reference adapter: both must agree at the start
    elif lora is not None:
        loaded = LoadedModel(
            model=add_lora(model, lora, prepare_4bit=load_in_4bit), source=source, adapter="default"
        )
    if not trainable:
        loaded.model.requires_grad_(False)
    loaded.model.eval()
    return loaded


def four_bit_config() -> Any:
    """NF4 quantization with bf16 compute, as QLoRA's authors use it."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def add_lora(model: Any, lora: LoraSettings, prepare_4bit: bool = False) -> nn.Module:
    """Wrap a model with fresh trainable adapters; at start they change nothing (B is zero)."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULT_TARGETS

    if prepare_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets = lora.target_modules
    if targets is None and model.config.model_type not in DEFAULT_TARGETS:
        targets = "all-linear"
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
        ),
    )


def check_only_lora(model: Any) -> None:
    """Refuse adapters that also train whole modules: with them, "adapter off" is no reference."""
    config = model.peft_config["default"]
    if getattr(config, "modules_to_save", None):
        raise ValueError(
            f"the adapter also replaces whole modules ({', '.join(config.modules_to_save)}); switching it off would "
            "not give back the reference. Merge it into its base model and train from that"
        )


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0: policy and reference must agree at the start, and steps must repeat."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    config = getattr(model, "config", None)
    for name in ("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout", "dropout"):
        if config is not None and isinstance(getattr(config, name, None), float):
            setattr(config, name, 0.0)
    for module in model.modules():  # attention modules read a float, not a Dropout module
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that an optimizer should see."""
    return [p for p in model.parameters() if p.requires_grad]
