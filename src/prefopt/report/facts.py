"""What every account of a run is made of: findings, key figures, accuracy with its interval, and a few words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prefopt.report.format import finite, number
from prefopt.report.load import Metrics, Run

DISPLACED = 0.5
"""Share of chosen sides that fell below the reference, from which it is worth a warning."""

Level = Literal["fail", "warn", "note"]


@dataclass(frozen=True)
class Finding:
    """Something a reader should know before trusting the run, and what to do about it."""

    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Figure:
    """One key number: its value now, before, and a word on how to read it."""

    label: str
    value: str
    before: str = ""
    note: str = ""
    level: Literal["", "warn"] = ""
    history: Sequence[float] = ()


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on decided comparisons, with the Wilson 95% interval where their number is known."""

    before: float | None
    after: float
    count: int | None
    low: float | None
    high: float | None
    held_out: bool

    @property
    def clear(self) -> bool | None:
        """Whether the change is larger than the interval; None where either is unknown."""
        if self.low is None or self.high is None or self.before is None:
            return None
        return not self.low <= self.before <= self.high

    @property
    def place(self) -> str:
        """Where it was measured: held-out or training."""
        return "held-out" if self.held_out else "training"


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a share observed on `count` independent comparisons (Wilson 1927).

    Example:
        >>> [round(x, 3) for x in wilson(0.8, 100)]
        [0.711, 0.867]
    """
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = ((centre + sign * half) / (1 + z * z / count) for sign in (-1, 1))
    return low, high


def accuracy(run: Run) -> Accuracy | None:
    """Accuracy before and after, held out where there is held-out data; None where it was not logged."""
    split = run.split
    before, after = run.metrics.ends("rewards/accuracies", split)
    if after is None:
        return None
    count = None
    held_out = split == "eval" and run.not_held_out is None
    if held_out:
        # a tie has no right answer, so the decided comparisons are what accuracy counts
        wins = run.of("margins", "after", "wins")
        if isinstance(wins, list) and wins:
            count = len(wins)
        elif (examples := finite(run.of("manifest", "data", "eval_examples"))) and not run.of(
            "data", "comparisons", "ties"
        ):
            count = int(examples)
    low, high = wilson(after, count) if count and 0 <= after <= 1 else (None, None)
    return Accuracy(before, after, count, low, high, held_out)


def last(metrics: Metrics, name: str, split: str) -> float | None:
    """The newest finite value."""
    return metrics.ends(name, split)[1]


def history(run: Run, name: str, split: str = "eval") -> list[float]:
    """Every finite value of a metric, oldest first."""
    return run.metrics.points(name, split).finite().values


def steps_done(run: Run) -> float | None:
    """Optimizer steps taken: the manifest's for a finished run, else the newest that was logged."""
    early = run.of("manifest", "stopped_early")
    planned = finite(early.get("step") if isinstance(early, dict) else run.of("manifest", "steps"))
    return planned if planned and run.of("manifest", "status") == "finished" else run.metrics.last_step()


def machine(run: Run) -> str:
    """The machine in a few words."""
    if gpu := run.of("manifest", "machine", "gpu"):
        return str(gpu)
    device, cores = run.of("manifest", "machine", "device"), run.of("manifest", "machine", "cores")
    return f"{number(cores)} {str(device).upper()} cores" if device and cores else ""


def at_start(run: Run, name: str, split: str) -> str:
    """When the first value of a metric was measured, in words."""
    steps = run.metrics.points(name, split).finite().steps
    return "at the start" if not steps or steps[0] <= 0 else f"at step {number(steps[0])}"
