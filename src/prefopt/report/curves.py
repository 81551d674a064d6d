"""Metrics over training: what a curve is, the curves that all modalities share, and drawing them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prefopt.report.charts import Series, line_chart, smooth
from prefopt.report.format import finite
from prefopt.report.load import Points, Run
from prefopt.report.page import figure
from prefopt.report.stages import stage_starts

SMOOTHED_FROM = 60  # points from which the raw line is too busy to read
MOST_DIAGNOSTICS = 30  # charts; further names are listed


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One chart over training."""

    title: str
    metrics: Sequence[tuple[str, str, str]]
    """(metric, label, colour); an empty colour uses those of training and held-out data."""
    unit: str = ""
    look_for: str = ""
    trouble: str = ""
    shares: bool = False
    y_range: tuple[float, float] | None = None
    levels: Sequence[tuple[float, str]] = ()
    noisy: bool = True
    """False for what must not be smoothed, such as a schedule."""
    steady: bool = False
    """Leave out training values, if there are held-out ones: their noise is larger than what is to be seen."""


def one(metric: str) -> list[tuple[str, str, str]]:
    """A single metric in the colours of its splits."""
    return [(metric, "", "")]


def both(metric: str) -> list[tuple[str, str, str]]:
    """A metric of the chosen and of the rejected side."""
    return [(f"{metric}/{side}", side, side) for side in ("chosen", "rejected")]


Groups = list[tuple[str, str, list[Curve]]]
"""(heading, note, curves) of each part of the section."""

# -- what every modality draws, but for the words that say how to read it -----------------------------------

LOSS = Curve(title="Loss", metrics=one("loss"))
ACCURACY = Curve(
    title="Accuracy", metrics=one("rewards/accuracies"), shares=True, levels=[(0.5, "coin flip")],
    look_for="A steady rise above one half; held-out close to training. Equal margins count as one half.",
)  # fmt: skip
MARGIN = Curve(
    title="Reward margin", metrics=one("rewards/margins"), levels=[(0.0, "")],
    look_for="Growth that slows down as pairs are learned.",
    trouble="Growth without end while accuracy stands still: the easy pairs are pushed further and further.",
)  # fmt: skip
REWARDS = Curve(
    title="Rewards of both sides", metrics=both("rewards"), levels=[(0.0, "equal to the reference")],
    look_for="Rejected falls; chosen stays near zero or rises.",
)  # fmt: skip
DISPLACEMENT = Curve(
    title="Displacement", metrics=one("displacement"), shares=True, y_range=(0.0, 1.0),
    levels=[(0.5, "half of the pairs")],
)  # fmt: skip
TIES = Curve(
    title="Margin of ties", metrics=one("ties/margin_abs"),
    trouble="Growing as fast as the margin of wins: ties are being told apart by something irrelevant.",
)  # fmt: skip
SMOOTHNESS = [
    Curve(
        title="Gradient norm", metrics=one("grad_norm"), y_range=(0.0, 0.0),
        look_for="Even, within a factor of a few; a slow decline is normal.",
        trouble="Single spikes: an odd row. A constant zero: nothing is trained.",
    ),
    Curve(
        title="Learning rate", metrics=one("learning_rate"), noisy=False, y_range=(0.0, 0.0),
        look_for="The schedule you meant, down to its end.",
    ),
]  # fmt: skip

LEARNING = "Is it learning?"
STILL_GOOD = "Is it still a good model?"


def with_smoothness(*parts: tuple[str, str, list[Curve]]) -> Groups:
    """The parts of a modality, and behind them the one that all have: whether training ran smoothly."""
    return [*parts, ("Did training run smoothly?", "", SMOOTHNESS)]


# -- drawing -------------------------------------------------------------------------------------------------

SAMPLED = {  # of what the policy itself writes or draws
    "reward", "kl", "sample_length", "sample_repetition", "sample_change", "sample_saturation",
    "sample_diversity", "sample_agreement", "sample_jerk", "fidelity_miou", "fidelity_edge_f1", "fidelity_ssim", "fidelity_rmse",
    "fidelity_keypoint_ap",
}  # fmt: skip
QUIET = {"ties/share", "num_tokens"}  # constants of the data and counters: in the diagnostics, without a word


def series_of(run: Run, curve: Curve) -> list[Series]:
    """Training values behind, smoothed where many; held-out values with a dot each, in front."""
    train: list[Series] = []
    held_out: list[Series] = []
    for metric, label, colour in curve.metrics:
        points, measured = run.metrics.points(metric, "train"), run.metrics.points(metric, "eval")
        if curve.steady and len(measured.steps) > 1:
            points = Points([], [])
        name, hue = label or "training", colour or "train"
        if points.steps and label and measured.steps:  # four lines: the held-out ones carry the legend
            train.append(
                Series(label=name, x=points.steps, y=points.values, colour=hue, style="faint", legend=False)
            )
        elif len(points.steps) >= SMOOTHED_FROM and curve.noisy:
            train.append(
                Series(label=name, x=points.steps, y=points.values, colour=hue, style="faint", legend=False)
            )
            train.append(
                Series(label=f"{name} (moving average)", x=points.steps, y=smooth(points.values), colour=hue)
            )
        elif points.steps:
            train.append(Series(label=name, x=points.steps, y=points.values, colour=hue))
        if measured.steps:
            judged = "held-out" if run.not_held_out is None else "fixed training rows"
            name = f"{label}, {judged}" if label else "sampled" if metric in SAMPLED else judged
            held_out.append(
                Series(label=name, x=measured.steps, y=measured.values, colour=colour or "eval", style="dots")
            )
    return [*train, *held_out]


def draw(run: Run, curve: Curve) -> Markup:
    """The figure of a curve; empty where nothing of it was logged."""
    levels = list(curve.levels)
    zero = finite(run.of("manifest", "zero_margin_loss"))
    if curve.title == "Loss" and zero is not None:
        levels.append((zero, "zero margin"))
    series = series_of(run, curve)
    unit = curve.unit
    if (
        len(curve.metrics) > 1
        and any(not s.legend for s in series)
        and any(s.style == "dots" for s in series)
    ):
        unit = f"{unit}; thin: training" if unit else "thin: training"
    chart = line_chart(
        series, title=curve.title, y_label=unit, shares=curve.shares, y_range=curve.y_range, levels=levels,
        marks=[(step, f"stage {name}") for step, name in stage_starts(run)],
    )  # fmt: skip
    look_for, trouble = (told_of(run, text) for text in (curve.look_for, curve.trouble))
    return figure(curve.title, chart, look_for, trouble) if chart else chart


def told_of(run: Run, text: str) -> str:
    """A text without the sentences and clauses about held-out values, where the run has none."""
    if run.not_held_out is None:
        return text
    parts = [part for part in re.split(r"(?<=[.;]) ", text) if "held-out" not in part.lower()]
    return re.sub(r";(?= [A-Z]|$)", ".", " ".join(parts))


def curve_groups(run: Run, groups: Groups) -> list[tuple[str, str, list[Markup]]]:
    """(heading, note, figures) for each group that has any figure."""
    drawn = [
        (heading, told_of(run, note), [f for f in (draw(run, curve) for curve in curves) if f])
        for heading, note, curves in groups
    ]
    return [group for group in drawn if group[2]]


def diagnostics(run: Run, groups: Groups) -> tuple[list[Markup], list[str]]:
    """Figures of every metric that is in none of the groups, and the names of those beyond the limit."""
    known = {metric for _, _, curves in groups for curve in curves for metric, _, _ in curve.metrics}
    names = sorted(set(run.metrics.names()) - known, key=lambda name: (name in QUIET, name))
    shown, rest = names[:MOST_DIAGNOSTICS], names[MOST_DIAGNOSTICS:]
    return [f for f in (draw(run, Curve(title=name, metrics=one(name))) for name in shown) if f], rest
