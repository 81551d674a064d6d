"""Columns that tell whether a text came to its end; one that was cut when it was sampled gets no end behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.comparisons import Item
from prefopt.sources import cells

PAIRED = {"chosen": "chosen_ended", "rejected": "rejected_ended"}
UNPAIRED = {"completion": "completion_ended"}
"""By the columns of the texts."""


def is_whole(row: Mapping[str, Any], column: str | None) -> bool:
    """Whether a text came to its end, as a column tells; where none does, it has.

    Raises:
        UnusableItem: neither true nor false.
    """
    told = None if column is None else row.get(column)
    return told is None or column is None or cells.as_flag(told, column)


def told_of(first: Item, second: Item) -> dict[str, bool]:
    """Columns of a pair for its sides that were cut."""
    sides = zip(PAIRED.values(), (first, second), strict=True)
    return {column: False for column, item in sides if not item.ended}


__all__ = ["PAIRED", "UNPAIRED", "is_whole", "told_of"]
