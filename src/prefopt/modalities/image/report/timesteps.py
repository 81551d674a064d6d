"""The section on noise levels: accuracy and denoising errors of a run on image comparisons, against the timestep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from prefopt.report.charts import Series, line_chart
from prefopt.report.drawing import Style
from prefopt.report.facts import wilson
from prefopt.report.format import finite, items
from prefopt.report.load import Run
from prefopt.report.page import figure, render

SIDES = ("chosen", "rejected")
LARGEST = 1e100
SAME = 1e-4  # relative difference of two errors that no chart shows

Errors = dict[str, list[float]]
"""Mean error at each timestep, by side; NaN where it is not known."""


def timestep_figures(run: Run) -> Markup:
    """Three charts over the probed timesteps; empty until the policy was measured after training."""
    x = [_or_nan(t) for t in items(run.of("timesteps", "timesteps"))]
    before, after, reference = (_errors(run, when, x) for when in ("before", "after", "reference"))
    if not _known(after) or not all(map(math.isfinite, x)):
        return Markup("")
    lines: list[tuple[str, Errors, Style]] = [("reference", reference, "dashed"), ("before", before, "faint")]
    same = _alike(before, reference)
    if not _known(reference):
        lines = [("before", before, "dashed")]
    elif same:
        lines = lines[:1]
    lines.append(("after", after, "dots"))
    paired = run.of("timesteps", "paired") is not False
    counts = [max(map(len, _rows(run, "after", side)), default=0) for side in SIDES]
    figures = [
        _accuracy(run, x, counts[0] if paired else 0),
        _figure(
            "Denoising error by timestep", x, _series(x, lines),
            "Chosen on its dashed line or below it, rejected on its own or above.",
            "Both above their dashed lines: the model denoises worse than it did.",
            y_label="mean squared error of a latent element", y_range=(0.0, 0.0),
        ),
        _figure(
            "Change of the error by timestep", x, _series(x, lines[1:], lines[0][1]),
            "Chosen at zero or below, rejected above it, where accuracy is above one half.",
            "Both far above zero at large t: errors are small there, so that a mean over t hides it, and it is there that "
            "an image gets its layout.",
            y_label=f"relative to {'before training' if lines[0][0] == 'before' else 'the reference'}", shares=True,
            levels=[(0.0, "")],
        ),
    ]  # fmt: skip
    return render(
        "timesteps",
        __package__,
        figures=[f for f in figures if f],
        counts=counts,
        paired=paired,
        split="training" if "train" in str(run.of("timesteps", "split")) else "held-out",
        same=same,
    )


def _accuracy(run: Run, x: Sequence[float], pairs: int) -> Markup:
    before, after = (
        _fitted((_or_nan(v) for v in items(run.of("timesteps", when, "accuracy"))), x)
        for when in ("before", "after")
    )
    intervals = [wilson(p, pairs) if 0 <= p <= 1 else (math.nan, math.nan) for p in after] if pairs else None
    return _figure(
        "Accuracy by timestep", x,
        [Series(label="before", x=x, y=before, colour="before"),
         Series(label="after", x=x, y=after, spans=intervals, colour="after", style="dots")],
        "Above one half at every t, or where it matters to you: large t decides an image's layout, small t its detail.",
        "Above one half in one stretch and below it in another: the mean over t, which the curves show, hides that the "
        "preference is turned round at some noise levels.",
        shares=True, levels=[(0.5, "coin flip")],
    )  # fmt: skip


def _series(
    x: Sequence[float], lines: Sequence[tuple[str, Errors, Style]], base: Errors | None = None
) -> list[Series]:
    """Both sides of each line; relative to a base where there is one."""
    return [
        Series(
            label=f"{side}, {when}",
            x=x,
            y=errors[side] if base is None else list(map(_change, errors[side], base[side])),
            colour=side,
            style=style,
        )
        for when, errors, style in lines
        for side in SIDES
    ]


def _figure(
    title: str, x: Sequence[float], series: Sequence[Series], look_for: str, trouble: str, **options: Any
) -> Markup:
    known = [s for s in series if any(map(math.isfinite, s.y))]
    if not known:
        return Markup("")
    chart = line_chart(known, title=title, x_label="timestep", last_values=False, **options)
    return figure(title, chart, look_for, trouble)


def _errors(run: Run, when: str, x: Sequence[float]) -> Errors:
    return {side: _fitted(map(_mean, _rows(run, when, side)), x) for side in SIDES}


def _rows(run: Run, when: str, side: str) -> list[list[Any]]:
    """Errors of each comparison, a list for each timestep."""
    return [items(row) for row in items(run.of("timesteps", when, side))]


def _fitted(values: Iterable[float], x: Sequence[float]) -> list[float]:
    """One value for each timestep, whatever the file holds."""
    return [*values, *[math.nan] * len(x)][: len(x)]


def _mean(values: list[Any]) -> float:
    known = [v for v in map(finite, values) if v is not None]
    # a sum near the largest float raises
    return math.fsum(known) / len(known) if known and max(map(abs, known)) < LARGEST else math.nan


def _or_nan(value: Any) -> float:
    number = finite(value)
    return math.nan if number is None else number


def _change(error: float, base: float) -> float:
    return error / base - 1 if base > 0 else math.nan


def _known(errors: Errors) -> bool:
    return any(map(math.isfinite, (v for values in errors.values() for v in values)))


def _alike(a: Errors, b: Errors) -> bool:
    """Whether a chart would show one line for both."""
    pairs = [
        pair for side in SIDES for pair in zip(a[side], b[side], strict=True) if all(map(math.isfinite, pair))
    ]
    return bool(pairs) and all(abs(v - w) <= SAME * abs(w) for v, w in pairs)
