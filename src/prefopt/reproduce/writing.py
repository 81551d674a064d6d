"""What `prefopt reproduce` leaves: JSON, figures, and a page."""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefopt.files import write_whole, writing
from prefopt.reproduce.core import Reproduction
from prefopt.reproduce.page import html_page
from prefopt.reproduce.plots import STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def machine() -> dict[str, str | int]:
    """Versions and machine class, for the record beside every number."""
    import os
    import platform

    import numpy
    import torch

    import prefopt

    return {
        "prefopt": prefopt.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "machine": platform.machine(),
        "cpu_cores": os.cpu_count() or 1,
    }


def write(result: Reproduction, folder: Path) -> list[Path]:
    """Write JSON, one PNG and one SVG a plot, and a self-contained HTML page; returns the files.

    Args:
        result: what was found.
        folder: made if missing; files of the same name are replaced.
    """
    with writing("figures", folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = []
    for plot in result.plots:
        for kind in ("png", "svg"):
            path = folder / f"{plot.name}.{kind}"
            save_figure(plot.figure, path)
            files.append(path)
    versions = machine()
    record = {
        "name": result.name,
        "title": result.title,
        "paper": result.paper,
        "claims": [finite(asdict(c)) for c in result.claims],
        "tables": [finite(asdict(t)) for t in result.tables],
        "figures": {p.name: p.caption for p in result.plots},
        "settings": result.settings,
        "notes": result.notes,
        "seconds": round(result.seconds, 1),
        "versions": versions,
    }
    data = folder / f"{result.name}.json"
    write_whole(data, json.dumps(record, indent=1, allow_nan=False) + "\n")
    page = folder / f"{result.name}.html"
    write_whole(page, html_page(result, versions))
    return [*files, data, page]


def save_figure(figure: Figure, path: Path) -> None:
    """Save without dates, so that the same numbers give the same file."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=160, metadata=metadata, format=path.suffix[1:])
    write_whole(path, buffer.getvalue())


def finite(value: Any) -> Any:
    """The same nested value with infinities and NaN as None: JSON has no word for them."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
