"""What to watch out for in runs on text: displacement, over-optimization, length, repetition.

Thresholds stand on top of this file, as in `report/findings.py`.
"""

from __future__ import annotations

from prefopt.report.facts import DISPLACED, Finding, last
from prefopt.report.format import finite, number, percent
from prefopt.report.load import Run

LONGER = 1.5  # sampled length, last over first
REPETITIVE = 0.1  # rise of the repeated share of sampled text


def quality(run: Run) -> list[Finding]:
    """Findings about the model rather than about the course of training."""
    out: list[Finding] = []
    metrics = run.metrics
    before, after = metrics.ends("reward", "eval")
    rose = before is not None and after is not None and after > before
    moved = last(metrics, "displacement", run.split)
    if moved is not None and moved >= DISPLACED:
        method = str(run.of("config", "method") or run.of("manifest", "method") or "dpo")
        consolation = (
            "Sampled answers still score higher than before, so it may be harmless here. " if rose else ""
        )
        out.append(
            Finding(
                "warn", f"Chosen answers became less likely than under the reference (displacement {percent(moved)}).",
                f"{consolation}If answers get worse: lower learning_rate, add a supervised term (method={method}+0.2*sft), or try bpo or compo.",
            )
        )  # fmt: skip
    if before is not None and after is not None and after < before:
        out.append(
            Finding("warn", f"Sampled answers score lower than before training: {number(before, 3)} to {number(after, 3)}.",
                    "Ranking given pairs better while writing worse is over-optimization: raise beta, lower learning_rate, stop earlier.")
        )  # fmt: skip
    before, after = metrics.ends("sample_length", "eval")
    if before and after is not None and after / before >= LONGER:
        gap = finite(run.of("data", "length_gap", "mean"))
        cause = (
            f" Chosen answers in the data are {number(gap, 2)} longer on average." if gap and gap > 0 else ""
        )
        out.append(
            Finding("warn", f"Sampled answers grew from {number(before, 3)} to {number(after, 3)} tokens.{cause}",
                    "Balance lengths in the data, or use a length-normalised margin.")
        )  # fmt: skip
    before, after = metrics.ends("sample_repetition", "eval")
    if before is not None and after is not None and after - before >= REPETITIVE:
        out.append(
            Finding("warn", f"Sampled answers repeat themselves more: {percent(before)} to {percent(after)}.",
                    "A sign of drifting too far: raise beta, lower learning_rate, stop earlier.")
        )  # fmt: skip
    return out
