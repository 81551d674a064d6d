"""Rows of motions, as `prefopt check` looks at them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rich.console import Console

from prefopt.modalities.checking import Asked, Examined
from prefopt.modalities.motion.models import facts_of
from prefopt.modalities.motion.rows import guess_codec, looks_like_motions, to_motion_comparisons
from prefopt.motion.codec import find_codec
from prefopt.sources.files import Rows


def takes(columns: Collection[str]) -> bool:
    """Whether rows with these columns hold motions."""
    return looks_like_motions(columns)


def examine(rows: Rows, asked: Asked) -> Examined:
    """Read the rows and every motion.

    Raises:
        ValueError: no row can be used.
    """
    known = None if asked.model is None else facts_of(asked.model)
    codec = find_codec(guess_codec(rows) if known is None else known["codec"])
    comparisons = to_motion_comparisons(rows, (), codec, None if known is None else known["max_frames"])
    motions = comparisons.report.own["motions"]
    return Examined(
        comparisons=comparisons,
        report=comparisons.report,
        dropped=comparisons.dropped,
        form="motions",
        sides={"prompt": "caption"},
        tables=lambda console: print_motions(console, motions),
    )


def print_motions(console: Console, motions: Mapping[str, Any]) -> None:
    """Numbers and lengths."""
    from rich.table import Table

    table = Table(title="motions", title_justify="left", show_header=False)
    frames, fps = motions["frames"], motions["fps"]
    table.add_row("motions", f"{motions['count']:,}, of which {motions['distinct']:,} distinct")
    table.add_row("captions", f"{motions['captions']:,}")
    table.add_row("features", f"{motions['codec']}, {fps:g} frames a second")
    table.add_row(
        "length",
        f"{frames['min']:,} to {frames['max']:,} frames, median {frames['median']:,.0f} ({frames['median'] / fps:.1f} s)",
    )
    console.print(table)
