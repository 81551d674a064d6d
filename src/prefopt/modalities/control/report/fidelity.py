"""How closely images follow their conditions, before and after: the measures, and whether a change is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from prefopt.report.format import finite, items, number
from prefopt.report.load import Run

AGREEMENT = "sample_agreement"
FEWEST = 3  # images whose agreement is known before and after; of fewer no interval is worth its name


class Measure(NamedTuple):
    """What a metric `fidelity_NAME` is called, and which way is better."""

    name: str
    higher_is_better: bool


MEASURES = {
    "miou": Measure("mean IoU", True),
    "edge_f1": Measure("edge F1", True),
    "ssim": Measure("SSIM", True),
    "rmse": Measure("RMSE of depth", False),
    "keypoint_ap": Measure("keypoint AP", True),
}
"""By NAME, the headlines of the detectors' metrics."""

Verdict = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Follows:
    """How far the images of a run follow their conditions.

    Attributes:
        metric: as logged, `fidelity_NAME`.
        measure: its name and direction.
        before, after: its first and its newest value; `before` is None where there is one only.
        change: mean change of the images' agreement; None where it is not known image by image.
        low, high: its 95% interval over images (Student's t); None for too few images.
        images: how many.
    """

    metric: str
    measure: Measure
    before: float | None
    after: float
    change: float | None = None
    low: float | None = None
    high: float | None = None
    images: int = 0

    @property
    def turned(self) -> bool:
        """Whether the measure went the other way than the images' agreement."""
        if self.before is None or self.change is None:
            return False
        gain = (self.after - self.before) * (1 if self.measure.higher_is_better else -1)
        return gain * self.change < 0

    @property
    def verdict(self) -> Verdict | None:
        """Whether images follow better or worse; None before there is a before and an after."""
        if self.before is None or self.change is None:
            return None
        if self.low is None or self.high is None or self.turned or self.low <= 0 <= self.high:
            return "unclear"
        return "better" if self.change > 0 else "worse"

    @property
    def told(self) -> str:
        """The numbers of the change, in words."""
        text = f"{self.measure.name} {number(self.before, 3)} → {number(self.after, 3)}"
        if not self.measure.higher_is_better:
            text += ", lower is better"
        if self.change is None:
            return text
        text += f"; agreement of an image {signed(self.change)}"
        if self.low is not None:
            text += f", 95% interval {signed(self.low)} to {signed(self.high)}"
        return f"{text}, {self.images} images"


def follows(run: Run) -> Follows | None:
    """What the run found; None where no detector looked."""
    for name, measure in MEASURES.items():
        before, after = run.metrics.ends(f"fidelity_{name}", "eval")
        if after is not None:
            return Follows(f"fidelity_{name}", measure, before, after, *_change(run))
    return None


def _change(run: Run) -> tuple[float | None, float | None, float | None, int]:
    """Mean change of agreement between the first and the last step, its interval, the number of images."""
    by_step: dict[float, list[float | None]] = {}
    for entry in items(run.of("fidelity", "steps")):
        if isinstance(entry, Mapping) and (step := finite(entry.get("step"))) is not None:
            by_step[step] = [finite(x) for x in items(entry.get("agreement"))]
    if len(by_step) < 2:
        return None, None, None, 0
    # a resumed run may draw fewer or more: the first ones are the same
    ends = zip(by_step[min(by_step)], by_step[max(by_step)], strict=False)
    gains = [after - before for before, after in ends if before is not None and after is not None]
    if not gains:
        return None, None, None, 0
    mean = math.fsum(gains) / len(gains)
    return mean, *interval(gains), len(gains)


def interval(gains: list[float]) -> tuple[float | None, float | None]:
    """95% interval of the mean of these gains (Student's t); None for fewer than `FEWEST`."""
    n = len(gains)
    if n < FEWEST:
        return None, None
    from scipy.stats import t

    mean = math.fsum(gains) / n
    error = math.sqrt(math.fsum((x - mean) ** 2 for x in gains) / (n - 1) / n)
    half = float(t.ppf(0.975, n - 1)) * error
    return mean - half, mean + half


def signed(value: float | None) -> str:
    """A change with its sign, three decimals."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def scored_by_agreement(run: Run) -> bool:
    """Whether the recorded reward of samples is nothing but the detector's agreement."""
    rewards, agreements = (run.metrics.points(name, "eval").finite() for name in ("reward", AGREEMENT))
    return (
        bool(rewards.values)
        and rewards.steps == agreements.steps
        and all(
            math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)
            for a, b in zip(rewards.values, agreements.values, strict=True)
        )
    )
