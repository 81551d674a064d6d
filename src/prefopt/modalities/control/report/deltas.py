"""Delta by noise level: how much better the chosen side explains its image, before and after, pair by pair.

Delta = error of the chosen side - error of the rejected side, of one pair under one noise at one timestep. Below 0 the true
condition explains the image better. (`record/timesteps.json`, written by the image modality's probe, holds the errors.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from prefopt.modalities.control.report.first import compares_conditions
from prefopt.report.charts import Series, line_chart
from prefopt.report.facts import wilson
from prefopt.report.format import finite, items
from prefopt.report.load import Run
from prefopt.report.page import figure, render

NAN = math.nan
LARGEST = 1e100  # sums of larger ones overflow
WHENS = ("before", "after")


@dataclass(frozen=True)
class At:
    """Deltas of all pairs at one timestep: their mean, standard deviation, share below 0, and mean error of the chosen side."""

    mean: float = NAN
    std: float = NAN
    right: float = NAN
    chosen: float = NAN
    pairs: int = 0

    @property
    def snr(self) -> float:
        """|mean| / std; NaN where all are alike."""
        return abs(self.mean) / self.std if self.std > 0 else NAN

    @property
    def relative(self) -> float:
        """Mean as a share of the chosen side's error."""
        return self.mean / self.chosen if self.chosen > 0 else NAN


def at(chosen: Sequence[Any], rejected: Sequence[Any]) -> At:
    """What the errors of both sides of some pairs say.

    Args:
        chosen, rejected: one number a pair; others than finite ones are left out with their pair. Delta = 0 counts one half.

    Example:
        >>> at([0.1, 0.2, 0.2], [0.2, 0.4, 0.2]).right
        0.8333333333333334
    """
    ends = [(finite(c), finite(r)) for c, r in zip(chosen, rejected, strict=False)]
    pairs = [(c, r) for c, r in ends if c is not None and r is not None and max(abs(c), abs(r)) < LARGEST]
    if not pairs:
        return At()
    deltas = [c - r for c, r in pairs]
    n = len(deltas)
    mean = math.fsum(deltas) / n
    std = math.sqrt(math.fsum((d - mean) ** 2 for d in deltas) / (n - 1)) if n > 1 else NAN
    right = sum(1.0 if d < 0 else 0.5 if d == 0 else 0.0 for d in deltas) / n
    return At(mean, std, right, math.fsum(c for c, _ in pairs) / n, n)


def deltas(run: Run, when: str) -> list[At]:
    """By timestep, of the policy before or after training."""
    both = (items(run.of("timesteps", when, side)) for side in ("chosen", "rejected"))
    return [at(items(chosen), items(rejected)) for chosen, rejected in zip(*both, strict=False)]


def timesteps(run: Run) -> list[float]:
    """Those that were probed; NaN for what is no number."""
    return [NAN if (t := finite(raw)) is None else t for raw in items(run.of("timesteps", "timesteps"))]


def delta_figures(run: Run) -> Markup:
    """Four charts over the probed timesteps; empty for single images, and until the policy was measured after training."""
    if run.of("timesteps", "paired") is False:
        return Markup("")
    x = timesteps(run)
    found = {when: (deltas(run, when) + [At()] * len(x))[: len(x)] for when in WHENS}
    if not x or not all(map(math.isfinite, x)) or not any(math.isfinite(a.mean) for a in found["after"]):
        return Markup("")
    of_conditions = compares_conditions(run)
    side = "the true condition" if of_conditions else "the chosen image"
    wrong = (
        "the losing condition explains the image better"
        if of_conditions
        else "the rejected image is denoised better"
    )
    parts = [
        _chart("Delta by timestep", x, found, "mean", spread=True, unit="mean of Delta; thin: ± one standard deviation of the pairs", zero=True,
               look_for="Below zero, and lower after training than before.",
               trouble=f"Above zero: {wrong} at that noise level. Thin lines that part faster than the mean falls: a few pairs are pushed far, the rest stays."),
        _chart("Delta relative to the error", x, found, "relative", unit="mean of Delta / mean error of the chosen side", shares=True, zero=True,
               look_for="Below zero at every t: errors shrink towards large t, so that only a share can be compared along the axis.",
               trouble="Back to zero at large t: nothing is learned where layout is decided. Far larger at one t than elsewhere: the "
               "losing side is pushed away there; look at its error below, and at the samples."),
        _chart("Sign accuracy of Delta", x, found, "right", unit=f"share of pairs in which {side} has the smaller error", shares=True,
               look_for="Well above one half, and no lower after training. No reference is subtracted here, unlike in accuracy below.",
               trouble="Falling while the mean grows: the mean is made of a few pairs."),
        _chart("Signal to noise of Delta", x, found, "snr", unit="|mean| / standard deviation over pairs", floor=True,
               look_for="No lower after training than before, at every t.",
               trouble="Near 0 at some t: comparisons there are mostly noise. Falling everywhere: Delta grows by its spread, and a "
               "lower beta or learning_rate is needed."),
    ]  # fmt: skip
    return render(
        "deltas",
        __package__,
        figures=[part for part in parts if part],
        pairs=max(a.pairs for when in WHENS for a in found[when]),
        split="training" if "train" in str(run.of("timesteps", "split")) else "held-out",
        of_conditions=of_conditions,
    )


def _chart(
    title: str,
    x: Sequence[float],
    found: dict[str, list[At]],
    what: str,
    *,
    unit: str,
    look_for: str,
    trouble: str,
    spread: bool = False,
    shares: bool = False,
    zero: bool = False,
    floor: bool = False,
) -> Markup:
    series = []
    for when in WHENS:
        y = [float(getattr(a, what)) for a in found[when]]
        if not any(map(math.isfinite, y)):
            continue
        for sign in (-1, 1) if spread else ():  # bars of both moments would lie on each other
            edge = [a.mean + sign * a.std for a in found[when]]
            name = f"{when}, {'−' if sign < 0 else '+'} one standard deviation"
            series.append(Series(label=name, x=x, y=edge, colour=when, style="faint", legend=False))
        spans = None
        if what == "right":
            spans = [wilson(a.right, a.pairs) if a.pairs else (NAN, NAN) for a in found[when]]
        series.append(Series(label=when, x=x, y=y, spans=spans, colour=when, style="dots"))
    if not series:
        return Markup("")
    chart = line_chart(
        series,
        title=title,
        x_label="timestep",
        y_label=unit,
        shares=shares,
        y_range=(0.0, 0.0) if zero or floor else None,
        levels=[(0.0, "no preference")] if zero else [(0.5, "coin flip")] if what == "right" else (),
        last_values=False,
    )
    return figure(title, chart, look_for, trouble)
