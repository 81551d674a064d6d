"""A text encoder that is made on the spot, for captions of few words: one token a word, one layer of CLIP's text model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

SPECIAL = ("<pad>", "<unknown>", "<start>", "<end>")
"""In this order: transformers takes a CLIP whose end token is number 2 for an old one, and then looks for the largest number."""


def small_text_encoder(captions: Sequence[str], width: int, heads: int, max_tokens: int) -> tuple[Any, Any]:
    """An untrained `CLIPTextModel` of one layer and a tokenizer of the captions' words, in lower case.

    Args:
        captions: whose words are known; others are all the same to it.
        width, heads: of the model.
        max_tokens: most tokens of a text, start and end counted.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    normalizer = normalizers.Lowercase()
    splitter = pre_tokenizers.Whitespace()
    words = sorted(
        {
            word
            for text in set(captions)
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
        }
    )
    vocabulary = {word: n for n, word in enumerate((*SPECIAL, *words))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    made.normalizer, made.pre_tokenizer = normalizer, splitter
    made.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[(name, vocabulary[name]) for name in ("<start>", "<end>")],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=max_tokens,
        **dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), SPECIAL, strict=True)),
    )
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=1,
            num_attention_heads=heads,
            max_position_embeddings=max_tokens,
            projection_dim=width,
            bos_token_id=vocabulary["<start>"],
            eos_token_id=vocabulary["<end>"],
            pad_token_id=vocabulary["<pad>"],
        )
    )
    # CLIP's .02 drowns in what attention adds to it: captions would take far longer to be understood
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=1.0)
    return model, tokenizer
