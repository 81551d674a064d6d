"""Adapters beyond low-rank ones on linear layers, and base weights of few bits below them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import ADAPTERS, TEXT, Keys, Needs


class AdapterKeys(Keys):
    """Keys of adapters; of models that take them."""

    where: ClassVar[tuple[Needs, ...]] = (ADAPTERS,)

    lora_target_parameters: list[str] | None = Field(
        None, description="parameters without a module of their own to put adapters on, such as fused experts"
    )
    lora_modules_to_save: list[str] | None = Field(
        None, description="modules that are trained and saved whole beside the adapters, such as lm_head"
    )
    use_rslora: bool = Field(False, description="scale the adapters by alpha / sqrt(r) instead of alpha / r")
    use_dora: bool = Field(
        False, description="DoRA: train the length of each row of weights apart from its direction"
    )
    peft: dict[str, Any] | None = Field(
        None,
        description="any further fields of peft's configuration; peft_type names another kind of adapter than LORA",
    )


class QuantizationKeys(Keys):
    """Keys of quantized base weights; of text models."""

    where: ClassVar[tuple[Needs, ...]] = (TEXT,)

    load_in_8bit: bool = Field(
        False, description="base weights of 8 bits under adapters (needs the qlora extra)"
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field("nf4", description="numbers of 4 bits")
    bnb_4bit_use_double_quant: bool = Field(
        True, description="quantize the scales of 4-bit weights, too, as QLoRA's authors do"
    )
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None,
        description="dtype of products with 4-bit weights; None: bfloat16 on a GPU that has it, else float32",
    )
