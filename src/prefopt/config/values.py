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


def steps_or_share(given: Any) -> Any:
    """A whole number of optimizer steps, or a share of the run below 1; anything that is no number for the schema to judge.

    Example:
        >>> steps_or_share(500.0), steps_or_share(0.1)
        (500, 0.1)
    """
    if isinstance(given, bool) or not isinstance(given, int | float):
        return given
    if given <= 0 or (given >= 1 and not float(given).is_integer()):
        raise ValueError(f"needed a whole number of steps, or a share of the run below 1; given {given}")
    return int(given) if given >= 1 else given


def settings(given: Any) -> Any:
    """A mapping, also of "name=1, other=true" as transformers writes `optim_args`; anything else as it is.

    Example:
        >>> settings("momentum=0.9, nesterov=true")
        {'momentum': 0.9, 'nesterov': True}
    """
    import yaml

    if given is None:
        return {}
    if not isinstance(given, str):
        return given
    if given.strip().startswith("{"):  # JSON, as TrainingArguments dumps it
        return yaml.safe_load(given)
    pairs = [part.partition("=") for part in names(given)]
    if any(not (name.strip() and equals) for name, equals, _ in pairs):
        raise ValueError(f"needed a mapping such as {{momentum: 0.9}}, or name=value pairs; given {given!r}")
    return {name.strip(): yaml.safe_load(value) for name, _, value in pairs}


def briefly(value: Any) -> str:
    """A value as written in Python, cut where it is long: errors may be about all rows of a data set."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}... ({type(value).__name__}, {len(text):,} characters)"
