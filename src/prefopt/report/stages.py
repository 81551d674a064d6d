"""The stages of a method of several runs, as its manifest lists them: the course over rounds, and a way to each run's page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from prefopt.report.charts import line_chart
from prefopt.report.drawing import Series
from prefopt.report.format import finite, number, percent
from prefopt.report.load import Run
from prefopt.report.page import figure, render


def _digits(count: int) -> Callable[[Any], str]:
    return lambda value: number(value, count)


def _percent(value: Any) -> str:
    return percent(value, 0)


COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "steps": ("steps", number),
    "stopped_early": ("ended early", number),
    "pairs": ("pairs", number),
    "label_accuracy": ("labels right", _percent),
    "mean_gap": ("mean gap", _digits(3)),
    "moved_mass": ("mass moved", percent),
    "worst_value": ("worst loss", number),
    "center_value": ("plain loss", number),
    "probability": ("policy preferred", _percent),
    "win_rate": ("wins against the start", _percent),
    "judged_reward": ("reward, held-out prompts", _digits(3)),
    "tokens_per_second": ("tokens a second", _digits(3)),
    "waited_seconds": ("waited for answers, s", _digits(3)),
    "waited_share": ("share of the time", _percent),
    "answer_words": ("words an answer", _digits(2)),
    "reward": ("reward", _digits(3)),
    "rewards/accuracies": ("held-out accuracy", percent),
    "training_accuracies": ("accuracy on training rows", percent),
    "displacement": ("chosen less likely", _percent),
    "kl": ("KL, nats", _digits(3)),
    "sample_length": ("tokens a sample", _digits(2)),
}
"""What a stage's row may hold: how a reader calls it, and how it is written."""


def stage_table(run: Run) -> Markup:
    """Every stage's numbers, with links to the pages of their runs, and charts over rounds; empty for a single run."""
    rows = stage_rows(run)
    if not rows:
        return Markup("")
    shown = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
    methods = len({row.get("method") for row in rows}) > 1
    return render(
        "run/stages",
        told=run.of("manifest", "stages", "told"),
        figures=round_figures(rows),
        heads=[COLUMNS[name][0] for name in shown],
        rows=[_cells(run, row, shown, methods) for row in rows],
    )


def _cells(run: Run, row: Mapping[str, Any], shown: Sequence[str], methods: bool) -> dict[str, Any]:
    """A row of the table."""
    page = f"stages/{row['stage']}/run/report.html"
    status = str(row.get("status") or "not begun")
    return {
        "stage": row["stage"],
        "method": row.get("method") if methods else None,
        "open": status if status != "finished" else None,
        "page": page if (run.folder / page).is_file() else None,
        "cells": [COLUMNS[name][1](row.get(name)) for name in shown],
    }


def stage_rows(run: Run) -> list[dict[str, Any]]:
    """The stages that have begun, each in one level; none of a single run."""
    rows = run.of("manifest", "stages", "runs")
    named = (
        [r for r in rows if isinstance(r, Mapping) and isinstance(r.get("stage"), str)]
        if isinstance(rows, list)
        else []
    )
    return [{**row, **numbers(row.get("worst_case"))} for row in named]


def numbers(found: Any) -> dict[str, Any]:
    """The numbers of a mapping."""
    return {k: v for k, v in found.items() if finite(v) is not None} if isinstance(found, Mapping) else {}


def stage_starts(run: Run) -> list[tuple[float, str]]:
    """(step, name) where each stage but the first begins."""
    starts, step = [], 0.0
    for row in stage_rows(run):
        if step:
            starts.append((step, row["stage"]))
        step += finite(row.get("steps")) or 0.0
    return starts


def same_loss_since(run: Run) -> float:
    """The step from which on losses are those of one method: stages may have losses that cannot be compared."""
    methods = [row.get("method") for row in stage_rows(run)]
    changes = [
        step
        for (step, _), one, other in zip(stage_starts(run), methods, methods[1:], strict=False)
        if one != other
    ]
    return max(changes, default=-math.inf)


def round_figures(rows: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """Reward, and how good the labels were, against the round; nothing where stages are not rounds."""
    if len(rows) < 2 or not all(row["stage"].isdecimal() for row in rows):
        return []
    figures = []
    rewards, labels = (points(rows, name) for name in ("reward", "label_accuracy"))
    start = finite(rows[0].get("start_reward"))
    if rewards:
        figures.append(
            figure(
                "Reward of samples after each round",
                line_chart(
                    [Series(label="reward", colour="after", style="dots", x=[r for r, _ in rewards], y=[v for _, v in rewards])],
                    title="Reward by round", x_label="round", levels=[] if start is None else [(start, "before training")],
                ),
                look_for="A rise after round 0 is what the unlabelled prompts have added.",
                trouble="A fall while the mean gap grows: the policy has grown sure of labels that are wrong.",
            )
        )  # fmt: skip
    if len(labels) > 1:
        figures.append(
            figure(
                "Labels that the true reward agrees with",
                line_chart(
                    [Series(label="labels right", colour="eval", style="dots", x=[r for r, _ in labels], y=[v for _, v in labels])],
                    title="Label accuracy by round", x_label="round", shares=True, levels=[(0.5, "guessing")],
                ),
                look_for="Above one half; ties of the true reward count one half.",
            )
        )  # fmt: skip
    return figures


def points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(round, value) of a column, where there is one."""
    found = ((int(row["stage"]), finite(row.get(name))) for row in rows)
    return [(number, value) for number, value in found if value is not None]
