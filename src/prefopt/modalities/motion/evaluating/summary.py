"""Repetitions as means with their intervals, what changed against a baseline, and the table of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from prefopt.metrics.retrieval import mean_interval, relative_change

Best = Literal["higher", "lower", "real", "none"]

MEASURES: dict[str, tuple[str, Best]] = {
    "r_precision_1": ("R-precision@1", "higher"),
    "r_precision_2": ("R-precision@2", "higher"),
    "r_precision_3": ("R-precision@3", "higher"),
    "mm_dist": ("MM-Dist", "lower"),
    "fid": ("FID", "lower"),
    "diversity": ("Diversity", "real"),
    "expected_diversity": ("Diversity (exact)", "real"),
    "multimodality": ("MultiModality", "none"),
    "side_accuracy": ("right side", "higher"),
    "foot_skating": ("foot skating", "lower"),
    "jerk": ("jerk, m/s^3", "real"),
    "floor_penetration": ("below the floor, m", "lower"),
}
"""What each is called in the table, and where it is best: "real" is as near to that of true motions as can be."""
RULE = "rule_"
ARROWS: dict[Best, str] = {"higher": "↑", "lower": "↓", "real": "→", "none": ""}
LEGEND = "↑ higher is better, ↓ lower, → as near to real motions as can be; change: positive is better"


def best_of(name: str) -> Best:
    """Where a measure is best."""
    return "higher" if name.startswith(RULE) else MEASURES[name][1]


def title_of(name: str) -> str:
    """What it is called."""
    return f"rules: {name.removeprefix(RULE)}" if name.startswith(RULE) else MEASURES[name][0]


def means(repetitions: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean, half of the 95 % interval, and the values of each measure that all repetitions have."""
    names = [name for name in repetitions[0] if all(name in one for one in repetitions)]
    known = [name for name in MEASURES if name in names]
    found = {}
    for name in [*known, *(name for name in names if name.startswith(RULE))]:
        values = [one[name] for one in repetitions]
        mean, half = mean_interval(values)
        found[name] = {"mean": mean, "interval": half, "values": values}
    return found


def change(
    baseline: Mapping[str, Mapping[str, Any]],
    model: Mapping[str, Mapping[str, Any]],
    real: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, float | None]]:
    """Of each measure of both: relative change in percent, positive is better; difference and its interval over repetitions.

    What is best near the true motions' is compared by its distance to it; relative is None where the baseline is 0, or
    no value is better than another.
    """
    found: dict[str, dict[str, float | None]] = {}
    for name in model:
        if name not in baseline:
            continue
        before, after = baseline[name]["mean"], model[name]["mean"]
        apart = [a - b for a, b in zip(model[name]["values"], baseline[name]["values"], strict=True)]
        mean, half = mean_interval(apart)
        best = best_of(name)
        if best == "real" and name in real:
            before, after = (abs(x - real[name]["mean"]) for x in (before, after))
        comparable = before != 0 and (best in ("higher", "lower") or (best == "real" and name in real))
        relative = relative_change(before, after, higher_is_better=best == "higher") if comparable else None
        found[name] = {"relative": relative, "difference": mean, "interval": half}
    return found


def table(told: Mapping[str, Any]) -> Any:
    """A `rich` table of 80 columns: a measure a row; real motions, model, baseline, and the change."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    sides = [side for side in ("real", "model", "baseline") if side in told]
    changed = told.get("change", {})
    made = Table(
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 0),
        pad_edge=False,
        caption=LEGEND,
        caption_justify="left",
    )
    made.add_column("", no_wrap=True)
    for column in (*sides, *(["change %"] if changed else [])):
        made.add_column(column, no_wrap=True, justify="right")
    made.title = (
        f"{told['samples']} motions of {told['data']} ({told['split']}), {told['repetitions']} repetitions with 95 % intervals, judged "
        f"by {told['judge']}"
    )
    names = list(dict.fromkeys(name for side in ("model", "real") for name in told[side]))
    for name in names:
        best = best_of(name)
        cells = [f"{title_of(name)} {ARROWS[best]}".rstrip()]
        cells += [spelled(told[side][name]) if name in told[side] else "" for side in sides]
        if changed:
            relative = changed.get(name, {}).get("relative")
            cells.append("" if relative is None else f"{relative:+.1f}")
        made.add_row(*cells)
    return made


def spelled(found: Mapping[str, Any]) -> str:
    """A mean and its interval, to four digits or the thousandth."""
    digits = max(0, min(3, 3 - math.floor(math.log10(max(abs(found["mean"]), 1e-9)))))
    return f"{found['mean']:.{digits}f} ± {found['interval']:.{digits}f}"
