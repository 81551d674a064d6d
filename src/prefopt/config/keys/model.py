"""The model: how it is loaded and computed, and which of its weights are trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from prefopt.config.keys.base import ADAPTERS, TEXT, Keys
from prefopt.config.values import settings


class ModelKeys(Keys):
    """Keys of the model; of every run."""

    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = Field(
        "auto", description="weights; auto: float32 for full fine-tuning, the checkpoint's under adapters"
    )
    model_revision: str | None = Field(
        None, description="branch, tag or commit of a hub id; None: its newest"
    )
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="dtype that the trained model is saved in; auto: the one that it was trained in"
    )
    bf16: bool | None = Field(None, description="bf16 autocast; None: on where the GPU supports it")
    fp16: bool = Field(
        False, description="fp16 autocast with scaled gradients, for GPUs without bf16 (V100, T4)"
    )
    attn_implementation: Annotated[str | None, TEXT] = Field(
        None, description="attention of transformers: sdpa, eager, flash_attention_2"
    )
    gradient_checkpointing: bool | Literal["auto"] = Field(
        False,
        description="recompute activations in the backward pass: less memory; auto: if it would not fit",
    )
    gradient_checkpointing_kwargs: Annotated[dict[str, Any], TEXT, BeforeValidator(settings)] = Field(
        {}, description="as transformers takes them: {use_reentrant: true}; reentrant only if that is said"
    )
    torch_compile: Annotated[bool, TEXT] = Field(
        False, description="compile norms and feed-forward parts: faster steps after a slow first one"
    )
    batch_layout: Annotated[Literal["auto", "shared", "packed", "plain"], TEXT] = Field(
        "auto",
        description="prompts shared by several completions and short rows packed, only packed, or one padded row "
        "an item; auto: the densest that the model is found to score rightly",
    )
    router_aux_loss_coef: Annotated[float | None, TEXT] = Field(
        None,
        ge=0,
        description="weight of the loss that keeps a mixture of experts in balance, logged as aux_loss; 0: none; None: what the "
        "model's config.json says",
    )
    use_peft: Annotated[bool, ADAPTERS] = Field(
        False, description="train LoRA adapters instead of the weights"
    )
    lora_r: Annotated[int, ADAPTERS] = Field(16, ge=1)
    lora_alpha: Annotated[int, ADAPTERS] = Field(32, ge=1)
    lora_dropout: Annotated[float, ADAPTERS] = Field(
        0.0, ge=0, lt=1, description="only 0 keeps policy and reference equal at the start"
    )
    lora_target_modules: Annotated[list[str] | str | None, TEXT] = Field(
        None, description="None: peft's default for the architecture"
    )
    load_in_4bit: Annotated[bool, TEXT] = Field(
        False, description="QLoRA: quantized base weights under adapters (needs the qlora extra)"
    )
