"""Values as they are written in a file or on a command line, and as errors show them."""

from __future__ import annotations

from typing import Any

TRAINING_ROWS = "train_rows"
"""Split, and prefix of metrics, of evaluations in a run that holds nothing out; "eval" where something is held out."""


def names(given: Any) -> Any:
    """A list of names, also of "a, b"; anything else as it is, for the schema to judge."""
    return [name for part in given.split(",") if (name := part.strip())] if isinstance(given, str) else given


def name_pairs(given: Any) -> Any:
    """Names by names, also of "old:new, old:new"; anything else as it is, for the schema to judge.

    Example:
        >>> name_pairs("query:prompt, better: chosen")
        {'query': 'prompt', 'better': 'chosen'}
    """
    if not isinstance(given, str):
        return given
    pairs = [tuple(name.strip() for name in part.split(":")) for part in names(given)]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ValueError(f"needed old:new pairs such as query:prompt; given {given!r}")
    return dict(pairs)


def briefly(value: Any) -> str:
    """A value as written in Python, cut where it is long: errors may be about all rows of a data set."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}... ({type(value).__name__}, {len(text):,} characters)"
