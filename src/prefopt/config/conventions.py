"""What configurations of other libraries write for "off", "all" or "by itself", in the words used here.

A configuration that transformers or TRL dumped holds every key, most of them at such a value. Each becomes what it
means there, or stays what it is and is refused by the schema; none may quietly mean something else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

STRATEGIES = ("logging_strategy", "eval_strategy", "save_strategy")
SWITCHED_OFF = frozenset({*STRATEGIES, "report_to"})
"""Keys that are no switches, and may be off."""


def conventional(values: Mapping[str, Any], flags: Collection[str]) -> dict[str, Any]:
    """Training keys with such values replaced.

    Args:
        values: by the names used here.
        flags: keys that may be true or false.

    Raises:
        ValueError: a switch's value for a key that is none: `--max_steps` alone would otherwise mean one step.

    Example:
        >>> conventional({"max_steps": -1, "report_to": "tensorboard", "resume": None}, {"resume"})
        {'max_steps': None, 'report_to': ['tensorboard'], 'resume': False}
    """
    out = dict(values)
    for key, value in values.items():
        if isinstance(value, bool) and key not in flags and not (key in SWITCHED_OFF and not value):
            raise ValueError(f"{key} is no switch (given {str(value).lower()}): write {key}=VALUE")
    if out.get("max_steps") in (-1, "-1"):
        out["max_steps"] = None
    for key in STRATEGIES:
        if out.get(key) is False:  # YAML reads a bare `no` so
            out[key] = "no"
    if "resume" in out and out["resume"] is None:
        out["resume"] = False
    if "report_to" in out:
        out["report_to"] = tracker_names(out["report_to"])
    return out


def tracker_names(value: Any) -> Any:
    """A list of names, from one name, several joined by commas, `none` or null."""
    if value is None or value is False:
        return []
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, list | tuple):
        value = [name for name in value if name != "none"]
        return list(dict.fromkeys(value)) if all(isinstance(name, str) for name in value) else value
    return value
