"""Rows that a program has in memory, under a name that a configuration can hold.

A configuration is text, so that it can be saved with its run; `prefopt.train(data=rows)` puts a name into it and keeps
the rows here while it works. The name says what was given: `memory:data/list of 12 rows`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

PREFIX = "memory:"

_held: dict[str, Any] = {}


def is_object(data: Any) -> bool:
    """Whether something is rows in memory, and not the name of a source."""
    return isinstance(data, list) or type(data).__module__.partition(".")[0] in ("datasets", "pandas")


def describe(data: Any) -> str:
    """What was given, in a few words.

    Example:
        >>> describe([{"prompt": "a"}, {"prompt": "b"}])
        'list of 2 rows'
    """
    if isinstance(data, dict):
        return (
            f"{type(data).__name__} of {', '.join(f'{len(part)} {name}' for name, part in data.items())} rows"
        )
    size = f" of {len(data)} rows" if hasattr(data, "__len__") else ""
    return f"{type(data).__name__}{size}"


@contextlib.contextmanager
def held(role: str, data: Any) -> Iterator[str]:
    """While open, `find` gives the data under the name that is lent.

    Args:
        role: key of the configuration, such as "data"; part of the name.
        data: a list of rows, a `datasets` object, a pandas frame.
    """
    name = f"{PREFIX}{role}/{describe(data)}"
    before = _held.get(name)
    _held[name] = data
    try:
        yield name
    finally:
        if before is None:
            del _held[name]
        else:
            _held[name] = before


def find(name: str) -> Any:
    """The data under a name.

    Raises:
        FileNotFoundError: it is not in the memory of this process, or not any more.
    """
    try:
        return _held[name]
    except KeyError:
        raise FileNotFoundError(
            f"{name} was an object in the memory of the program that wrote this configuration: give it to prefopt.train "
            "again, or save the rows to a file and name that"
        ) from None
