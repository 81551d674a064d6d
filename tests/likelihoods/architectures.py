"""Tiny random models of transformers' real classes, one way of attending each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from torch.overrides import TorchFunctionMode

VOCABULARY = 97
SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NAMES_OF_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
RANDOM = {"vocab_size": VOCABULARY, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2}
PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ALTERNATING = ["sliding_attention", "full_attention"]
EXPERTS = {"num_experts_per_tok": 2}


@dataclass(frozen=True)
class Architecture:
    """A configuration, and what the model is known to allow.

    Attributes:
        config: makes the configuration.
        sharing: densest layout that gives right scores.
        own_head: whether the head can be applied apart.
    """

    config: Callable[[], Any]
    sharing: str = "shared"
    own_head: bool = True


def of(name: str, sharing: str = "shared", own_head: bool = True, /, **options: Any) -> Architecture:
    """The configuration class of a name, with small sizes."""
    return Architecture(
        lambda: getattr(transformers, f"{name}Config")(**{**SMALL, **options}), sharing, own_head
    )


def other(name: str, sharing: str = "shared", own_head: bool = True, /, **options: Any) -> Architecture:
    """A configuration class with names of its own for its sizes."""
    return Architecture(
        lambda: getattr(transformers, f"{name}Config")(**{**RANDOM, **options}), sharing, own_head
    )


ARCHITECTURES = {
    "llama": of("Llama"),
    "qwen2": of("Qwen2"),
    "qwen3": of("Qwen3", head_dim=8),
    "mistral, window 8": of("Mistral", sliding_window=8),
    "gemma2, caps and windows": of(
        "Gemma2", head_dim=8, sliding_window=8, final_logit_softcapping=5.0, attn_logit_softcapping=5.0
    ),
    "gemma3, windows": of("Gemma3Text", head_dim=8, sliding_window=8, layer_types=ALTERNATING),
    "phi3": of("Phi3"),
    "gpt2, learned positions": other("GPT2", **NAMES_OF_GPT, n_positions=128),
    "gpt-neo, windows of places": other(
        "GPTNeo", "packed", hidden_size=32, num_layers=2, num_heads=4, window_size=8, max_position_embeddings=128,
        attention_types=[[["global", "local"], 1]],
    ),
    "gpt-neox": of("GPTNeoX"),
    "opt, learned positions": of("OPT", ffn_dim=48, init_std=0.3, word_embed_proj_dim=32),
    "olmo2": of("Olmo2"),
    "falcon, alibi": other("Falcon", "packed", **PLAIN, alibi=True),
    "bloom, alibi": other("Bloom", "packed", hidden_size=32, n_layer=2, n_head=4),
    "mixtral": of("Mixtral", num_local_experts=4, **EXPERTS),
    "qwen3 moe": of("Qwen3Moe", head_dim=8, num_experts=4, moe_intermediate_size=24, **EXPERTS),
    "gpt-oss, sinks and windows": of(
        "GptOss", head_dim=8, num_local_experts=4, sliding_window=8, layer_types=ALTERNATING, **EXPERTS
    ),
    "llama4, chunks": of(
        "Llama4Text", attention_chunk_size=8, head_dim=8, num_local_experts=2, intermediate_size_mlp=48,
        num_hidden_layers=4,
    ),
    "deepseek v3, latent attention": of(
        "DeepseekV3", n_routed_experts=4, n_group=1, topk_group=1, moe_intermediate_size=24, kv_lora_rank=8,
        q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8, first_k_dense_replace=1,
        num_key_value_heads=4, **EXPERTS,
    ),
    "cohere, scaled logits": of("Cohere", logit_scale=0.25),
    "granite, scaled logits": of("Granite", logits_scaling=4.0),
    "mamba": other("Mamba", "plain", hidden_size=32, num_hidden_layers=2, state_size=8),
    "recurrent gemma": other(
        "RecurrentGemma", "plain", **{**PLAIN, "num_hidden_layers": 3}, intermediate_size=48, attention_window_size=16,
        lru_width=32,
    ),
    "jamba": of(
        "Jamba", "plain", num_experts=2, mamba_d_state=8, mamba_expand=2, mamba_dt_rank=4, attn_layer_period=2,
        attn_layer_offset=1,
    ),
}  # fmt: skip


def build(name: str, dtype: torch.dtype = torch.float64, attention: str | None = None) -> nn.Module:
    """The model, in evaluation mode. Experts one by one: grouped products know no float64."""
    torch.manual_seed(0)
    config = ARCHITECTURES[name].config()
    options = {"experts_implementation": "eager"} if name in MIXTURES else {}
    if attention is not None:
        options["attn_implementation"] = attention
    model = transformers.AutoModelForCausalLM.from_config(config, **options)
    return model.to(dtype).eval()


# feed-forward parts under other names, or that give more than hidden states
WHOLE_MLP = {
    "opt, learned positions", "bloom, alibi", "mixtral", "qwen3 moe", "gpt-oss, sinks and windows", "llama4, chunks",
    "mamba", "recurrent gemma", "jamba",
}  # fmt: skip
WHOLE_QUERIES = {"opt, learned positions", "mamba", "recurrent gemma"}  # attention not where it is looked for
MIXTURES = {"mixtral", "qwen3 moe", "gpt-oss, sinks and windows", "jamba", "deepseek v3, latent attention"}


class NoDowncast(TorchFunctionMode):
    """Leaves float64 alone where a model asks for float32 (norms, soft maxima), so that equality can be exact."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        double = args and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64
        if double and function is torch.Tensor.float:
            return args[0]
        if double and function is torch.Tensor.type and torch.float32 in args:
            return args[0]
        if double and function is torch.Tensor.to:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            if kwargs.get("dtype") is torch.float32:
                kwargs = {**kwargs, "dtype": torch.float64}
        if (
            double and function is torch.Tensor.matmul
        ):  # frequencies times positions, which are integers made float32
            args = tuple(a.double() for a in args)
        if kwargs.get("dtype") is torch.float32 and double:  # softmax(..., dtype=float32)
            kwargs = {**kwargs, "dtype": torch.float64}
        return function(*args, **kwargs)
