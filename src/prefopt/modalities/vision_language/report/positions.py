"""The section on videos: accuracy by the position of the clip that holds the answer, before and after training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prefopt.report.charts import Series, line_chart
from prefopt.report.facts import wilson
from prefopt.report.format import finite, items
from prefopt.report.load import Run
from prefopt.report.page import Section, figure, render


def position_sections(run: Run) -> list[Section]:
    """One section; none where nothing was measured."""
    x = values(run, "positions")
    before, after = values(run, "before"), values(run, "after")
    if not x or not any(map(math.isfinite, (*before, *after))):
        return []
    count = finite(run.of("positions", "examples")) or 0
    spans = [wilson(p, int(count)) if math.isfinite(p) else (math.nan, math.nan) for p in after]
    series = [
        Series(label="before", x=x, y=fitted(before, x), colour="before"),
        Series(label="after", x=x, y=fitted(after, x), spans=spans, colour="after", style="dots"),
    ]
    chart = line_chart(
        [one for one in series if any(map(math.isfinite, one.y))],
        title="Accuracy by position", x_label="position of the clip that holds the answer (0: first, 1: last)",
        last_values=False, shares=True, levels=[(0.5, "coin flip")],
    )  # fmt: skip
    body = figure(
        "Accuracy by position of the evidence",
        chart,
        "A line that is level, and higher than before.",
        "Low in the middle: the model still loses what stands there. High at one end only: slots were not drawn evenly.",
    )
    told = render(
        "positions", __package__, figure=body, examples=int(count), split=run.of("positions", "split")
    )
    return [Section("positions", "Does it matter where the answer stands?", told)]


def values(run: Run, name: str) -> list[float]:
    """Numbers of a record, NaN for what is none."""
    found = (finite(value) for value in items(run.of("positions", name)))
    return [math.nan if value is None else value for value in found]


def fitted(numbers: Sequence[float], x: Sequence[float]) -> list[float]:
    """One number for each position, whatever the file holds."""
    return [*numbers, *[math.nan] * len(x)][: len(x)]
