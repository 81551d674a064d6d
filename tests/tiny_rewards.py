"""Tiny random reward models, with the tokenizer of the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KINDS = ("llama", "gpt2", "bert")


def save_reward_model(
    folder: Path, tokenizer: Any, kind: str = "llama", labels: int = 1, seed: int = 5, pad: Any = "own"
) -> Path:
    """A classifier and its tokenizer, as `save_pretrained` leaves them.

    Args:
        folder: made.
        tokenizer: saved with it.
        kind: llama, gpt2 (learned positions) or bert (reads in both directions).
        labels: outputs.
        seed: of its weights.
        pad: id that its configuration names; "own": the tokenizer's; None: none.
    """
    import torch
    import transformers

    shared = {
        "vocab_size": len(tokenizer), "num_labels": labels, "initializer_range": 0.3, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id if pad == "own" else pad,
    }  # fmt: skip
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any
        if kind == "llama":
            config = transformers.LlamaConfig(**shared, **sizes, max_position_embeddings=128)
            model = transformers.LlamaForSequenceClassification(config)
        elif kind == "gpt2":
            model = transformers.GPT2ForSequenceClassification(
                transformers.GPT2Config(**shared, n_embd=16, n_layer=2, n_head=2, n_positions=128)
            )
        else:
            model = transformers.BertForSequenceClassification(
                transformers.BertConfig(**shared, **sizes, max_position_embeddings=128)
            )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
