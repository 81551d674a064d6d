"""Tokenizers that do what real ones do at the boundary of prompt and completion, from a handful of words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def joining_tokenizer(texts: Iterable[str]) -> Any:
    """A space is joined with the letters behind it, and each digit stands alone, as in Llama 3's tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}| |[^\s\p{L}\p{N}]+|\s"), "isolated")
    pieces = sorted({piece for text in texts for piece, _ in split.pre_tokenize_str(text)})
    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    tokenizer = Tokenizer(models.WordLevel({p: n for n, p in enumerate([*specials, *pieces])}, "<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.Fuse()
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), specials, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


DROPS_THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The thinking of every turn is left out, as templates of reasoning models do with earlier turns."""
OPENS_THINKING = DROPS_THINKING.replace("%}<|assistant|>{%", "%}<|assistant|><think>\n{%")
"""Generation begins within a block of thinking, which the rendering of a finished turn lacks (R1-like)."""
FAITHFUL = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
