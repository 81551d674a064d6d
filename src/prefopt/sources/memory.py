"""Rows that a program has in memory, under a name that a configuration can hold.

A configuration is text, so that it can be saved with its run; `prefopt.train(data=rows)` puts a name into it and keeps
the rows here while it works. The name says what was given: `memory:data/list of 12 rows`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PREFIX = "memory:"

_held: dict[str, Any] = {}


KINDS = (
    "a list of rows (dicts) or anything else that gives rows when it is looped over, a datasets.Dataset, DatasetDict or "
    "IterableDataset, a pandas or polars frame"
)
"""What may be given, for errors and documentation."""


def is_object(data: Any) -> bool:
    """Whether something is rows in memory, and not the name of a source."""
    return library_of(data) in ("datasets", "pandas", "polars") or is_loose(data)


def library_of(data: Any) -> str:
    """The library of an object's class; asking its name avoids importing one to find out that it is not meant."""
    return type(data).__module__.partition(".")[0]


def is_loose(data: Any) -> bool:
    """Whether rows come one by one out of an object of no library that is read otherwise: generators, a torch Dataset."""
    if isinstance(data, str | bytes | Path | Mapping) or library_of(data) in ("datasets", "pandas", "polars"):
        return False
    return isinstance(data, Iterable) or (hasattr(data, "__getitem__") and hasattr(data, "__len__"))


def describe(data: Any) -> str:
    """What was given, in a few words.

    Example:
        >>> describe([{"prompt": "a"}, {"prompt": "b"}])
        'list of 2 rows'
    """
    if isinstance(data, dict):
        parts = [f"{len(part)} {name}" if hasattr(part, "__len__") else name for name, part in data.items()]
        return f"{type(data).__name__} of {', '.join(parts)} rows"
    size = f" of {len(data)} rows" if hasattr(data, "__len__") else ""
    library = "polars " if library_of(data) == "polars" else ""
    return f"{library}{type(data).__name__}{size}"


@contextlib.contextmanager
def held(role: str, data: Any) -> Iterator[str]:
    """While open, `find` gives the data under the name that is lent.

    Args:
        role: key of the configuration, such as "data"; part of the name.
        data: rows, see `KINDS`; those that come one by one are read now, all of them.
    """
    kind = type(data).__name__
    if is_loose(data) and not isinstance(data, list):
        data = [data[n] for n in range(len(data))] if not isinstance(data, Iterable) else list(data)
    name = f"{PREFIX}{role}/{describe(data)}".replace("/list ", f"/{kind} ")
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
