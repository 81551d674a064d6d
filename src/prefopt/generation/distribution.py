"""Sampling from what a model computes, and nothing else.

`generate` of transformers fills every setting that a call leaves open from the checkpoint's generation configuration:
penalties, cuts, banned and forced tokens, watermarks, and whatever the next version adds. A KL of such samples is that
of another distribution, so calls here replace that configuration instead of overriding what they know of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import GenerationConfig


@contextlib.contextmanager
def own_distribution(
    model: nn.Module,
    *,
    pad_token_id: int,
    eos_token_id: int | None,
    max_new_tokens: int,
    temperature: float = 0.0,
    num_beams: int = 1,
) -> Iterator[GenerationConfig]:
    """Within it, `generate` draws from the whole softmax, or takes the likeliest token, whatever the checkpoint asks for.

    Of the checkpoint's generation configuration only its end-of-sequence tokens are used. It is back, untouched,
    afterwards.

    Args:
        model: a model of transformers, adapted or wrapped.
        pad_token_id: fills rows that have ended.
        eos_token_id: ends a row, as do those that the checkpoint names.
        max_new_tokens: rows are cut there.
        temperature: divides the logits; 0 is greedy.
        num_beams: of a beam search for the likeliest answer; 1 for none.

    Yields:
        The configuration to pass to `generate`; its `eos_token_id` is a list, or None where nothing ends a row.

    Example:
        >>> with own_distribution(model, pad_token_id=0, eos_token_id=2, max_new_tokens=8) as own:  # doctest: +SKIP
        ...     model.generate(input_ids=ids, generation_config=own)
    """
    own = GenerationConfig(
        pad_token_id=pad_token_id,
        eos_token_id=sorted(end_tokens(model, eos_token_id)) or None,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        num_beams=num_beams,
        # top_k is 50 where nothing is said
        **(
            {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
            if temperature > 0
            else {"do_sample": False}
        ),
    )
    # a wrapper may carry one of its own and hand it down
    holders: list[Any] = [m for m in model.modules() if "generation_config" in vars(m)]
    before = [holder.generation_config for holder in holders]
    try:
        for holder in holders:
            holder.generation_config = own
        yield own
    finally:
        for holder, config in zip(holders, before, strict=True):
            holder.generation_config = config


def end_tokens(model: nn.Module, eos_token_id: int | None) -> set[int]:
    """Tokens that end an answer: the tokenizer's, and those of the checkpoint's generation configuration."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return {eos_token_id, *(configured if isinstance(configured, list) else [configured])} - {None}
