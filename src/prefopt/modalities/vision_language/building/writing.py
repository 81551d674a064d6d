"""What a build leaves behind: rows.jsonl, dropped.jsonl and build.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.files import write_lines, write_whole
from prefopt.sources.report import Dropped, write_dropped


def write_build(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    dropped: Sequence[Dropped],
    told: Mapping[str, Any],
    total: int,
) -> tuple[Path, Counter[str]]:
    """Write all three; returns the path of the rows, and what is not among them by reason.

    Args:
        folder: to write to.
        rows: of the result.
        dropped: what is left out.
        told: what was asked for and counted.
        total: of rows, or of whatever rows were to be made of.

    Raises:
        ValueError: there are no rows.
        OSError: something cannot be written; what is there stays.
    """
    dropped = sorted(dropped, key=lambda drop: drop.row)
    counts = Counter(drop.reason for drop in dropped)
    write_dropped(dropped, folder / "dropped.jsonl")
    write_whole(
        folder / "build.json", json.dumps({**told, "dropped": dict(counts)}, indent=1, default=str) + "\n"
    )
    path = folder / "rows.jsonl"
    if not rows:
        path.unlink(missing_ok=True)  # of other settings
        raise ValueError(
            f"no row is left of {total}: {dict(counts)}; see {folder / 'dropped.jsonl'}. "
            f"{dropped[-1].detail if dropped else ''}"
        )
    write_lines(path, rows)
    return path, counts
