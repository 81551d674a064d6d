"""What to watch out for in runs on motions: errors that grow, rewards that fall, figures that tremble or stand still.

Thresholds stand on top of this file, as in `findings.py` of the kit.
"""

from __future__ import annotations

from prefopt.report import semi_online
from prefopt.report.facts import DISPLACED, Finding, last
from prefopt.report.format import number, percent
from prefopt.report.load import Run

TREMBLING, STIFF = 1.5, 0.5  # jerk of samples, last over first
UNSEEN = 0.005  # metres, root mean square distance of joints


def quality(run: Run) -> list[Finding]:
    """Findings about the model rather than about the course of training."""
    return [*semi_online.findings(run), *_displaced(run), *_reward(run), *_jerk(run), *_change(run)]


def _displaced(run: Run) -> list[Finding]:
    moved = last(run.metrics, "displacement", run.split)
    if moved is None or moved < DISPLACED:
        return []
    before, after = run.metrics.ends("reward", "eval")
    rose = before is not None and after is not None and after > before
    consolation = "Samples score higher than before, so it may be harmless here. " if rose else ""
    return [
        Finding("warn", f"Chosen motions have a larger error than under the reference in {percent(moved)} of comparisons (displacement).",
                f"{consolation}Look at the samples. If they get worse: lower learning_rate or raise beta, and compare with sft on the same rows.")
    ]  # fmt: skip


def _reward(run: Run) -> list[Finding]:
    before, after = run.metrics.ends("reward", "eval")
    if after is None:
        if not run.metrics.points("sample_change", "eval").values:
            return []
        return [
            Finding("note", "Samples were not scored: only the eye can tell whether they got better.",
                    "Give a scorer, for example reward=retrieval:DIR, to measure what the model draws and not only how it ranks.")
        ]  # fmt: skip
    if before is None or after >= before:
        return []
    first, now = semi_online.ends(run.metrics, "collect/reward")
    fooled = first is not None and now is not None and now > first
    cause = (
        "The judge that trains it likes its samples more, so that the two disagree: look at what the judge is after."
        if fooled
        else "Lower learning_rate, raise beta, or stop earlier: forgetting is easier than learning."
    )
    return [
        Finding("warn", f"Samples score lower than before training: {number(before, 3)} to {number(after, 3)}.", cause)
    ]  # fmt: skip


def _jerk(run: Run) -> list[Finding]:
    before, after = run.metrics.ends("sample_jerk", "eval")
    if not before or after is None:
        return []
    told = f"mean jerk {number(before, 3)} to {number(after, 3)} m/s³"
    if after > TREMBLING * before:
        return [
            Finding("warn", f"Samples tremble more than before training: {told}.", "Lower learning_rate, or stop earlier.")
        ]  # fmt: skip
    if after < STIFF * before:
        return [
            Finding("warn", f"Samples move far less sharply than before training: {told}.",
                    "Watch them: figures that stand still please some judges.")
        ]  # fmt: skip
    return []


def _change(run: Run) -> list[Finding]:
    before, after = run.metrics.ends("sample_change", "eval")
    if before is None or after is None or after >= UNSEEN:
        return []
    return [
        Finding("note", f"Samples changed by less than the eye can see (root mean square distance of joints {number(1000 * after, 2)} mm).",
                "Train longer, or raise learning_rate.")
    ]  # fmt: skip
