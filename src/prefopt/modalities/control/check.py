"""Rows of control comparisons, as `prefopt check` looks at them."""

from __future__ import annotations

from collections.abc import Collection

from prefopt.modalities.checking import Asked, Examined
from prefopt.modalities.control.rows import takes_columns, to_control_comparisons
from prefopt.modalities.image.check import print_images
from prefopt.sources.files import Rows


def takes(columns: Collection[str]) -> bool:
    """Whether rows with these columns compare under control images."""
    return takes_columns(columns)


def examine(rows: Rows, asked: Asked) -> Examined:
    """Read the rows, and every picture to its end where asked to be thorough.

    Raises:
        ValueError: a model is given, or no row can be used.
    """
    if asked.model is not None:
        raise ValueError(f"{asked.source} holds images: --model counts the tokens of texts; leave it out")
    comparisons = to_control_comparisons(rows, thorough=asked.thorough)
    images = comparisons.report.own["images"]
    return Examined(
        comparisons=comparisons,
        report=comparisons.report,
        dropped=comparisons.dropped,
        form="control images",
        sides={"prompt": "caption"},
        tables=lambda console: print_images(console, images),
    )
