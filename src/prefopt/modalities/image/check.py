"""Rows of images, as `prefopt check` looks at them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from rich.console import Console

from prefopt.modalities.checking import Asked, Examined
from prefopt.modalities.image.rows import looks_like_images, to_image_comparisons
from prefopt.sources.collecting import Comparisons
from prefopt.sources.files import Rows


def takes(columns: Collection[str]) -> bool:
    """Whether rows with these columns hold images."""
    return looks_like_images(columns)


def examine(rows: Rows, asked: Asked) -> Examined:
    """Read the rows, and every image to its end where asked to be thorough.

    Raises:
        ValueError: a model is given, or no row can be used.
    """
    return examine_pictures(rows, asked, to_image_comparisons, "images")


def examine_pictures(rows: Rows, asked: Asked, read: Callable[..., Comparisons], form: str) -> Examined:
    """Read rows of pictures with a modality's reader; see `examine`."""
    if asked.model is not None:
        raise ValueError(f"{asked.source} holds images: --model counts the tokens of texts; leave it out")
    comparisons = read(rows, thorough=asked.thorough)
    images = comparisons.report.own["images"]
    return Examined(
        comparisons=comparisons,
        report=comparisons.report,
        dropped=comparisons.dropped,
        form=form,
        sides={"prompt": "caption"},
        tables=lambda console: print_images(console, images),
    )


def print_images(console: Console, images: Mapping[str, Any]) -> None:
    """Numbers, sizes and kinds."""
    from rich.table import Table

    table = Table(title="images", title_justify="left", show_header=False)
    table.add_row("images", f"{images['count']:,}, of which {images['distinct']:,} distinct")
    table.add_row("files", f"{images['megabytes']:,.1f} MB")
    for name in ("sizes", "modes", "formats"):
        table.add_row(name, ", ".join(f"{kind} ({n:,})" for kind, n in images[name].items()))
    for name in ("width", "height"):
        x = images[name]
        table.add_row(name, f"{x['min']:,} to {x['max']:,} pixels, median {x['median']:,.0f}")
    console.print(table)
