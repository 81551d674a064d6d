"""From numbers to places on an axis: round ticks, their labels, thinning and smoothing of long series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prefopt.report.format import number, percent

MAX_POINTS = 200
LARGEST = 1e300  # beyond, differences overflow float64


@dataclass(frozen=True)
class Scale:
    """Maps data to pixels on one axis, with the ticks to draw."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]

    def __call__(self, value: float) -> float:
        """Pixel of a data value."""
        value = min(max(value, -LARGEST), LARGEST)
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high].

    Example:
        >>> nice_ticks(0.03, 0.97)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    low, high = (min(max(end, -LARGEST), LARGEST) for end in (low, high))
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1 / LARGEST):  # one value, or too little to divide
        half = abs(low) / 2 if abs(low) > 1e-12 else 0.5
        low, high = low - half, low + half
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12 - math.floor(math.log10(step))) for k in range(first, last + 1)]


def tick_text(ticks: Sequence[float]) -> list[str]:
    """Labels with as many decimals as the tick spacing needs, the same on every tick."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    largest = max(map(abs, ticks))
    if largest >= 1e6 or 0 < largest < 1e-3:
        return [number(t, max(2, math.ceil(math.log10(largest / step) - 1e-9) + 1)) for t in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{t + 0.0:,.{decimals}f}".replace("-", "−") for t in ticks]


def percent_ticks(ticks: Sequence[float]) -> list[str]:
    """Labels of an axis of shares."""
    step = 100 * (ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [percent(t, decimals) for t in ticks]


def thin(x: Sequence[float], y: Sequence[float], limit: int = MAX_POINTS) -> tuple[list[float], list[float]]:
    """At most about `limit` points, keeping the lowest and highest of each stretch so that no spike is lost."""
    if len(x) <= limit:
        return list(x), list(y)
    keep: set[int] = {0, len(x) - 1}
    stretches = limit // 2
    for s in range(stretches):
        span = range(s * len(x) // stretches, (s + 1) * len(x) // stretches)
        ok = [i for i in span if math.isfinite(y[i])]
        bad = next((i for i in span if not math.isfinite(y[i])), None)
        keep |= {min(ok, key=y.__getitem__), max(ok, key=y.__getitem__)} if ok else set()
        keep |= {bad} if bad is not None else set()
    kept = sorted(keep)
    return [x[i] for i in kept], [y[i] for i in kept]


def smooth(y: Sequence[float]) -> list[float]:
    """Centred moving average over about a tenth of the points; NaN stays NaN and does not spread."""
    half = max(1, len(y) // 20)
    out = []
    for i in range(len(y)):
        window = [v for v in y[max(0, i - half) : i + half + 1] if math.isfinite(v)]
        out.append(sum(window) / len(window) if window and math.isfinite(y[i]) else math.nan)
    return out
