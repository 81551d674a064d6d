"""Quantized weights under adapters (QLoRA) through bitsandbytes, on a GPU or a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from prefopt.models.sources import config_values


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Base weights of few bits; names as bitsandbytes' and transformers' have them.

    Attributes:
        bits: 4 or 8.
        quant_type: numbers of 4 bits: nf4 or fp4.
        double: quantize the scales of 4-bit weights, too.
        compute_dtype: of products with 4-bit weights, by name; None: bfloat16 on a GPU that has it, else float32.
    """

    bits: Literal[4, 8] = 4
    quant_type: Literal["nf4", "fp4"] = "nf4"
    double: bool = True
    compute_dtype: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Quantization | None:
        """As the keys of a configuration ask for it; None where they ask for none."""
        if not (values.get("load_in_4bit") or values.get("load_in_8bit")):
            return None
        return cls(
            bits=4 if values.get("load_in_4bit") else 8,
            quant_type=values.get("bnb_4bit_quant_type", "nf4"),
            double=values.get("bnb_4bit_use_double_quant", True),
            compute_dtype=values.get("bnb_4bit_compute_dtype"),
        )

    @property
    def key(self) -> str:
        """The key of a configuration that asks for it."""
        return f"load_in_{self.bits}bit"

    def for_transformers(self) -> Any:
        """The `BitsAndBytesConfig`."""
        from transformers import BitsAndBytesConfig

        if self.bits == 8:
            return BitsAndBytesConfig(load_in_8bit=True)
        has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double,
            bnb_4bit_compute_dtype=getattr(
                torch, self.compute_dtype or ("bfloat16" if has_bf16 else "float32")
            ),
        )


def check_installed(quantization: Quantization) -> None:
    """Raise ValueError unless bitsandbytes is there."""
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise ValueError(
            f'{quantization.key} needs bitsandbytes, which is not installed: pip install "prefopt[qlora]", or leave it out'
        )


def ready_for_adapters(model: Any) -> None:
    """Make a quantized model fit to train adapters on, and to score alike in training and evaluation; else do nothing.

    Weights are frozen, and what is not quantized becomes float32. On a CPU with AVX512-BF16 a layer of bitsandbytes
    packs its weights anew at the first call without gradient, rounding them, and from then on passes no gradient to its
    input: that is switched off.
    """
    layers = list(four_bit_layers(model))
    if not layers and not getattr(model, "is_loaded_in_8bit", False):
        return
    from peft import prepare_model_for_kbit_training

    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
        if layer.bias is not None and layer.compute_dtype is not None:
            # else the first call does it, and the model is another to whoever looked at it before
            layer.bias.data = layer.bias.data.to(layer.compute_dtype)


def dequantized(model: Any, dtype: torch.dtype) -> Any:
    """The model with the numbers that its quantized weights stand for, in the layers that its class has."""
    from transformers.pytorch_utils import Conv1D

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = model.dequantize(dtype=dtype)
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
    with torch.device("meta"):
        plain = type(model)(model.config)
    for name, layer in plain.named_modules():
        if isinstance(layer, Conv1D):  # quantized, GPT-2's layers became linear ones
            linear = model.get_submodule(name)
            layer.weight = nn.Parameter(linear.weight.data.T.contiguous(), requires_grad=False)
            layer.bias = linear.bias
            model.set_submodule(name, layer)
    return model


def quantization_keys(model: Any, source: str) -> dict[str, Any]:
    """The keys of a configuration that quantize a source as a model in memory is; none where its files are quantized.

    Raises:
        ValueError: no keys say it.
    """
    if config_values(source).get("quantization_config"):
        return {}
    given = model.config.quantization_config
    asked = dict(given if isinstance(given, Mapping) else given.to_dict())
    found: dict[str, Any] = {}
    if asked.get("load_in_4bit"):
        names = ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype")
        found = {"load_in_4bit": True, **{name: asked[name] for name in names}}
    elif asked.get("load_in_8bit"):
        found = {"load_in_8bit": True}
    quantization = Quantization.of(found)
    meant = {} if quantization is None else quantization.for_transformers().to_dict()
    wrong = sorted(k for k in asked.keys() | meant.keys() if asked.get(k) != meant.get(k))
    if wrong:
        raise ValueError(
            f"the {type(model).__name__} is quantized by what no key of a run says ({', '.join(wrong)}): give the model that is not "
            "quantized, with use_peft=true and load_in_4bit=true (or load_in_8bit)"
        )
    return found


def four_bit_layers(model: nn.Module) -> Iterator[Any]:
    """The layers of bitsandbytes with weights of 4 bits."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            yield module
