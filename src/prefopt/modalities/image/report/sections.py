"""Sections of the page that show images: the samples, the first pair, the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from prefopt.modalities.image.report.sheets import sample_sheet
from prefopt.report.account import DataFacts
from prefopt.report.changes import score_changes
from prefopt.report.format import finite, items
from prefopt.report.load import Run
from prefopt.report.page import Section, render
from prefopt.report.pictures import embed
from prefopt.report.verdict import verdict

FIRST_SIDE = 512  # pixels of an embedded image of the first pair
SHOWN_ROWS = 8  # further ones are folded away
MOST_KINDS = 12  # lines of a table of sizes


def samples(run: Run) -> Markup:
    """The contact sheet."""
    sheet = sample_sheet(run)
    if not sheet.rows:
        return Markup("")
    return render(
        "sheet",
        __package__,
        sheet=sheet,
        shown=SHOWN_ROWS,
        changes=score_changes([row.ends for row in sheet.rows]),
        settings=sampled_by(run),
    )


def sampled_by(run: Run) -> dict[str, Any]:
    """Settings of the samples that a reader is told, by name."""
    settings = run.of("samples", "settings")
    return {k: v for k, v in settings.items() if k != "seeds"} if isinstance(settings, Mapping) else {}


def first_pair(run: Run) -> Section:
    """Both images of the first pair, or the one of a single; without a body where nothing was recorded."""
    single = len(items(run.of("first_pair", "sides"))) == 1
    what = "image" if single else "pair"
    return Section(
        "first-pair",
        f"The first {what}, as the model sees it",
        _first(run, verdict(run, single)),
        f"First {what}",
    )


def _first(run: Run, verdict: str) -> Markup:
    raw = run.of("first_pair", "sides")
    sides = [
        {
            "name": str(side.get("name", "")),
            "prompt": side.get("prompt"),
            "picture": embed(run.folder, side.get("image"), FIRST_SIDE),
        }
        for side in (raw if isinstance(raw, list) else [])
        if isinstance(side, Mapping)
    ]
    if not sides:
        return Markup("")
    prompts = list(dict.fromkeys(str(side["prompt"]) for side in sides if side["prompt"] is not None))
    return render(
        "first_pair",
        __package__,
        id=run.of("first_pair", "id"),
        verdict=verdict,
        sides=sides,
        prompts=prompts,
        single=len(sides) == 1,
    )


def data_facts(run: Run) -> DataFacts:
    """What the data section says about images: totals, and tables of kinds with their shares of the largest."""
    images = run.of("data", "images")
    if not isinstance(images, Mapping):
        return DataFacts()
    tables = []
    for key, label in (("sizes", "Size in pixels"), ("formats", "File format"), ("modes", "Colour mode")):
        counts = images.get(key)
        if not isinstance(counts, Mapping):
            continue
        rows = [
            (str(kind).replace(" x ", " × "), n)
            for kind, raw in counts.items()
            if (n := finite(raw)) is not None
        ]
        rows = sorted(rows, key=lambda row: row[0] == "other")[:MOST_KINDS]  # a stable sort: "other" last
        most = max((n for _, n in rows), default=0.0)
        if most > 0:
            tables.append((label, [(kind, n, n / most) for kind, n in rows]))
    sides = [(side, images.get(side)) for side in ("width", "height")]
    facts = {
        "count": finite(images.get("count")),
        "distinct": finite(images.get("distinct")),
        "bytes": None if (size := finite(images.get("megabytes"))) is None else 1e6 * size,
        "mixed": finite(images.get("mixed_sizes")),
        "tables": tables,
    }
    return DataFacts(
        render("facts", __package__, facts=facts),
        [(f"{side}, pixels", values) for side, values in sides if isinstance(values, Mapping)],
        "Sizes and lengths",
    )
