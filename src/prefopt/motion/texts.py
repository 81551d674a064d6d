"""Texts as one embedding each, by CLIP or any other encoder of transformers.

Legend: B texts, S tokens, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def embed_texts(encoder: Any, tokenizer: Any, texts: Sequence[str], max_tokens: int) -> Tensor:
    """(B, E) float32 embeddings, on the encoder's device; one does not depend on the others.

    CLIP with a projection gives its projected embedding (what OpenAI's own code calls a text's features), CLIP without one
    the state of its last token; of other encoders the mean over tokens is taken, as sentence encoders do.

    Args:
        encoder: a text encoder of transformers, in eval mode.
        tokenizer: its own.
        texts: to embed; an empty one is a text like any other.
        max_tokens: longer texts are cut, start and end tokens counted; also where the tokenizer knows of fewer.
    """
    found = tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=min(max_tokens, tokenizer.model_max_length),
        return_tensors="pt",
    ).to(encoder.device)
    return pooled(encoder, encoder(**found), found["attention_mask"])


def pooled(encoder: Any, output: Any, mask_BS: Tensor) -> Tensor:
    """(B, E) float32 embeddings of an encoder's output."""
    if type(encoder).__name__ == "CLIPTextModelWithProjection":
        projected: Tensor = output.text_embeds
        return projected.float()
    if type(encoder).__name__ == "CLIPTextModel":
        last: Tensor = output.pooler_output
        return last.float()
    state_BSE = output.last_hidden_state.float()
    weight_BS1 = mask_BS[:, :, None].to(state_BSE.dtype)
    mean_BE: Tensor = (state_BSE * weight_BS1).sum(1) / weight_BS1.sum(1)
    return mean_BE


def text_width(encoder: Any) -> int:
    """E of `embed_texts`."""
    config = encoder.config
    projects = type(encoder).__name__ == "CLIPTextModelWithProjection"
    return int(config.projection_dim if projects else config.hidden_size)
