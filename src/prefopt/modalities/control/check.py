"""Rows of control comparisons, as `prefopt check` looks at them."""

from __future__ import annotations

from collections.abc import Collection

from prefopt.modalities.checking import Asked, Examined
from prefopt.modalities.control.rows import takes_columns, to_control_comparisons
from prefopt.modalities.image.check import examine_pictures
from prefopt.sources.files import Rows


def takes(columns: Collection[str]) -> bool:
    """Whether rows with these columns compare under control images."""
    return takes_columns(columns)


def examine(rows: Rows, asked: Asked) -> Examined:
    """Read the rows, and every picture to its end where asked to be thorough.

    Raises:
        ValueError: a model is given, or no row can be used.
    """
    return examine_pictures(rows, asked, to_control_comparisons, "control images")
