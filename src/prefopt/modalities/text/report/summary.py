"""Key figures of runs on text."""

from __future__ import annotations

from prefopt.modalities.text.report.findings import LONGER
from prefopt.report.facts import DISPLACED, Figure, history, last
from prefopt.report.format import number, percent
from prefopt.report.load import Run


def figures(run: Run) -> list[Figure]:
    """KL, displacement and length, those that the run has."""
    found: list[Figure] = []
    metrics, split = run.metrics, run.split
    kl, length = last(metrics, "kl", "eval"), last(metrics, "sample_length", "eval")
    if kl is not None:
        per_token = f", {number(kl / length, 2)} a token" if length else ""
        found.append(
            Figure(
                "KL to the reference", number(kl, 3), "", f"nats a sequence{per_token}",
                history=history(run, "kl"),
            )
        )  # fmt: skip
    if (moved := last(metrics, "displacement", split)) is not None:
        found.append(
            Figure(
                "Displacement", percent(moved), "", "chosen answers below the reference",
                "warn" if moved >= DISPLACED else "", history(run, "displacement", split),
            )
        )  # fmt: skip
    before, after = metrics.ends("sample_length", "eval")
    if after is not None:
        grown = before is not None and before > 0 and after / before >= LONGER
        found.append(
            Figure(
                "Sampled length", number(after, 3), "" if before is None else number(before, 3), "tokens an answer",
                "warn" if grown else "", history(run, "sample_length"),
            )
        )  # fmt: skip
    return found
