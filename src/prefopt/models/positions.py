"""Likelihoods whose rows fit the positions of the models that will read them."""

from __future__ import annotations

from typing import Any

from prefopt.likelihoods.positions import positions_in
from prefopt.likelihoods.tokens import TokenLikelihood, TruncationMode
from prefopt.models.loading import adapter_base, check_source, load_tokenizer


def positions_of(source: str) -> int | None:
    """Positions of the model in a folder or of a hub id, an adapter's base included."""
    from transformers import AutoConfig

    check_source(source)
    return positions_in(AutoConfig.from_pretrained(adapter_base(source) or source))


def likelihood_for(
    source: str,
    max_length: int | None,
    *others: str,
    tokenizer: Any = None,
    truncation_mode: TruncationMode = "keep_start",
) -> TokenLikelihood:
    """A likelihood whose rows fit the positions of a model, and of others that will score them.

    Args:
        source: folder or hub id of the model.
        max_length: most tokens of a row otherwise.
        others: further models that read the same rows, such as the reference.
        tokenizer: of the model, if it is loaded.
        truncation_mode: of longer rows.
    """
    known = [n for name in (source, *others) if (n := positions_of(name)) is not None]
    return TokenLikelihood(
        tokenizer or load_tokenizer(source), max_length, min(known, default=None), truncation_mode
    )
