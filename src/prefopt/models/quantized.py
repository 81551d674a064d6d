"""Quantized weights under adapters (QLoRA) through bitsandbytes, on a GPU or a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def check_installed() -> None:
    """Raise ValueError unless bitsandbytes is there."""
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise ValueError(
            'load_in_4bit needs bitsandbytes, which is not installed: pip install "prefopt[qlora]", or leave it out'
        )


def four_bit_config() -> Any:
    """NF4 with double quantization, as QLoRA's authors use it; products in bf16 on a GPU that has it, else in float32."""
    from transformers import BitsAndBytesConfig

    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if has_bf16 else torch.float32,
    )


def ready_for_adapters(model: Any) -> None:
    """Make a quantized model fit to train adapters on, and to score alike in training and evaluation; else do nothing.

    Weights are frozen, and what is not quantized becomes float32. On a CPU with AVX512-BF16 a layer of bitsandbytes
    packs its weights anew at the first call without gradient, rounding them, and from then on passes no gradient to its
    input: that is switched off.
    """
    layers = list(four_bit_layers(model))
    if not layers:
        return
    from peft import prepare_model_for_kbit_training

    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
        if layer.bias is not None and layer.compute_dtype is not None:
            # else the first call does it, and the model is another to whoever looked at it before
            layer.bias.data = layer.bias.data.to(layer.compute_dtype)


def four_bit_layers(model: nn.Module) -> Iterator[Any]:
    """The layers of bitsandbytes with weights of 4 bits."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            yield module
