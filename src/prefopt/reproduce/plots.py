"""Figures of the reproductions: one style, Okabe-Ito colours (safe for colour-blind readers), a marker a method."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from prefopt.reproduce.core import t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, GRID = "#222222", "#6b6b6b", "#e8e8e8"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
SEQUENCE = [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK]

STYLE: dict[str, Any] = {
    "font.size": 10.5,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 2.0,
    "figure.facecolor": "white",
    # the same numbers give the same file
    "svg.hashsalt": "prefopt",
    "svg.fonttype": "none",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function in the house style; matplotlib's global settings are left alone."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


def panels(columns: int = 1, width: float = 5.2, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    """An empty figure with `columns` axes side by side, sizes in inches; use inside a `styled` function."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def centre(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % t-interval (0 for a single value)."""
    mean = sum(values) / len(values)
    return mean, (t_interval(values)[1] - mean if len(values) > 1 else 0.0)


def curve(
    ax: Axes,
    x: Sequence[float],
    columns: Sequence[Sequence[float]],
    *,
    label: str,
    colour: str,
    marker: str = "o",
    line: str = "-",
) -> None:
    """Means over seeds with a band of 95 % intervals; `columns` holds, per x, one value a seed."""
    centres = [centre(values) for values in columns]
    mean = [m for m, _ in centres]
    ax.plot(x, mean, line, marker=marker, color=colour, label=label, markersize=6.5, markeredgecolor="white")
    low, high = [m - h for m, h in centres], [m + h for m, h in centres]
    ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def frontier(
    ax: Axes,
    by_beta: Mapping[float, tuple[Sequence[float], Sequence[float]]],
    *,
    label: str,
    colour: str,
    marker: str,
    betas: int = 0,
) -> None:
    """One method's scores against KL: a point a beta, bars = 95 % intervals over seeds.

    Args:
        ax: where to draw.
        by_beta: beta -> (KL of each seed, score of each seed).
        label: for the legend.
        colour: of line and points.
        marker: of the points.
        betas: write each point's beta above (1) or below (-1) the line; 0 writes none.
    """
    centres = sorted((*centre(kls), *centre(scores), beta) for beta, (kls, scores) in by_beta.items())
    x, dx, y, dy, names = zip(*centres, strict=True)
    ax.plot(x, y, "-", color=colour, zorder=2)
    ax.errorbar(
        x, y, xerr=dx, yerr=dy, fmt="none", zorder=2, elinewidth=1.1, capsize=0, ecolor=colour, alpha=0.55
    )
    ax.plot(
        x,
        y,
        marker,
        color=colour,
        markersize=9,
        markeredgecolor="white",
        markeredgewidth=1.1,
        label=label,
        zorder=3,
    )
    if betas:
        for xi, yi, beta in zip(x, y, names, strict=True):
            steep = xi < 0.55 * max(x)  # there the line itself is above and below: step aside
            ax.annotate(
                f"β = {beta:g}",
                (xi, yi),
                xytext=(-9 * betas, 9 * betas) if steep else (0, 14 * betas),
                textcoords="offset points",
                fontsize=8.5,
                color=colour,
                ha=("right" if betas > 0 else "left") if steep else "center",
                va="center",
            )
