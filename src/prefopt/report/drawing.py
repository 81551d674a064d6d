"""Marks of one chart as SVG: what `charts.py` is made of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from prefopt.report.format import number, percent
from prefopt.report.scales import Scale, nice_ticks, tick_text

WIDTH, HEIGHT = 460.0, 230.0
TOP, RIGHT, BOTTOM = 12.0, 14.0, 36.0
MOST_DOTS = 60  # on a line; more would hide it
LETTER = 6.0  # width of a letter of the small text

Style = Literal["line", "dots", "faint", "dashed", "points"]
Format = Callable[[float], str]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One named set of points.

    Attributes:
        label: shown in the legend.
        x, y: coordinates, same length; NaN in y breaks the line.
        xerr, yerr: half-widths of error bars in the units of x and y (`scatter_lines` only).
        spans: (low, high) around each y, for example an interval (`line_chart` only).
        names: a word for each point, for example its beta (`scatter_lines` only).
        colour: a colour name of style.css.
        style: "line"; "dots" (line with a dot at each point, for values measured now and then); "faint" (raw values
            behind a smoothed line); "dashed"; "points" (no line).
        legend: False leaves it out of legend and read-out.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    xerr: Sequence[float] | None = None
    yerr: Sequence[float] | None = None
    spans: Sequence[tuple[float, float]] | None = None
    names: Sequence[str] | None = None
    colour: str = "a"
    style: Style = "line"
    legend: bool = True


@dataclass(frozen=True, kw_only=True)
class Bins:
    """A histogram: `counts[i]` values lie between `edges[i]` and `edges[i + 1]`."""

    label: str
    edges: Sequence[float]
    counts: Sequence[float]
    colour: str = "a"


def both_finite(point: tuple[float, float]) -> bool:
    """True where neither coordinate is NaN or infinite."""
    return all(map(math.isfinite, point))


def legend_list(series: Sequence[Series], show: Format | None) -> Markup:
    """The key of a chart, with each series' last value where `show` can write it."""
    if len(series) < 2 and show is None and not any(":" in s.label for s in series):
        return Markup("")
    items = Markup("")
    for s in series:
        # the last value as it is: a line that ended in NaN says so
        value = Markup(" <b>{}</b>").format(show(s.y[-1])) if show and len(s.y) else ""
        items += Markup('<li><span class="key {}" style="--s:var(--c-{})"></span>{}{}</li>').format(
            s.style, s.colour, s.label, value
        )
    return Markup('<ul class="legend{}">{}</ul>').format(" pairs" if _come_in_pairs(series) else "", items)


def _come_in_pairs(series: Sequence[Series]) -> bool:
    """Whether labels are "chosen, before", "rejected, before", "chosen, after", ...: one pair fits a row of the legend."""
    when = [s.label.partition(", ")[2] for s in series]
    return len(when) > 2 and all(when) and when[::2] == when[1::2]


class Plot:
    """Frame, axes and marks of one chart, collected as SVG."""

    def __init__(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        y_format: Callable[[Sequence[float]], list[str]],
        x_label: str,
        y_label: str,
        *,
        exact_x: bool,
        size: tuple[float, float] = (WIDTH, HEIGHT),
        x_format: Callable[[Sequence[float]], list[str]] = tick_text,
    ) -> None:
        self.width, self.height = size
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        y_ticks = nice_ticks(min(ys), max(ys), 4)
        y_names = y_format(y_ticks)
        left = 14 + 6.4 * max(map(len, y_names))
        x_ticks = nice_ticks(min(xs), max(xs), 5)
        x_low, x_high = x_ticks[0], x_ticks[-1]
        if exact_x and max(xs) > min(xs):  # training steps end where they end; no empty margin
            x_low, x_high = min(xs), max(xs)
            x_ticks = [t for t in x_ticks if x_low <= t <= x_high]
            if all(float(x).is_integer() for x in xs):  # there is no half step
                x_ticks = [t for t in x_ticks if t.is_integer()]
        self.x = Scale(x_low, x_high, left, right, x_ticks)
        self.y = Scale(y_ticks[0], y_ticks[-1], bottom, TOP, y_ticks)
        self.y_label, self.x_label = y_label, x_label
        self.marks: list[Markup] = []
        self.inked: list[tuple[float, float]] = []
        """Pixels that names should not cover."""
        self.names: list[tuple[str, str, list[tuple[float, float]]]] = []
        """(class, text, places to try) of words inside the plot."""
        for tick, name in zip(y_ticks, y_names, strict=True):
            y = self.y(tick)
            self._add('<line class="gridline" x1="{}" x2="{}" y1="{}" y2="{}"/>', left, right, y, y)
            self._add('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>', left - 7, y + 3.8, name)
        for tick, name in zip(x_ticks, x_format(x_ticks) if x_ticks else [], strict=True):
            x = self.x(tick)
            anchor = "end" if x > right - 8 else "middle"
            self._add(
                '<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>', x, x, self.y.start, self.y.start + 4
            )
            self._add(
                '<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>',
                x,
                self.y.start + 16,
                anchor,
                name,
            )
        self._add('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>', left, right, bottom, bottom)
        self._add(
            '<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>',
            (left + right) / 2, self.height - 4, x_label,
        )  # fmt: skip

    def _add(self, template: str, *values: object) -> None:
        rounded = (f"{v:.1f}".removesuffix(".0") if isinstance(v, float) else v for v in values)
        self.marks.append(Markup(template).format(*rounded))

    def level(self, value: float, name: str) -> None:
        """A horizontal line; its name goes where the data leave room."""
        if not math.isfinite(value):
            return
        y = self.y(value)
        self._add('<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"/>', self.x.start, self.x.end, y, y)
        if name:
            right = self.x.end - 2 - LETTER * len(name)
            self.names.append(
                ("level-name", name, [(x, y + dy) for x in (right, self.x.start + 4) for dy in (-5, 13)])
            )

    def _place_names(self) -> None:
        """Put every name where it covers the fewest points of the lines and of the names before it."""
        for css, name, places in self.names:
            width = LETTER * len(name)

            def hits(place: tuple[float, float], width: float = width) -> tuple[bool, int]:
                x, y = place
                outside = not (
                    self.x.start <= x and x + width <= self.x.end + RIGHT and TOP <= y <= self.y.start
                )
                return outside, sum(
                    x - 4 <= px <= x + width + 4 and y - 11 <= py <= y + 3 for px, py in self.inked
                )

            x, y = min(places, key=hits)
            self.inked += [(x + LETTER * k, y - dy) for k in range(len(name) + 1) for dy in (0.0, 8.0)]
            self._add('<text class="{}" x="{}" y="{}">{}</text>', css, x, y, name)

    def vertical(self, value: float, name: str, colour: str) -> None:
        """A vertical line; `colour` "axis" draws a level, any other the spike of equal values."""
        x = self.x(value)
        self._add(
            '<line class="{}" style="--s:var(--c-{})" x1="{}" x2="{}" y1="{}" y2="{}"/>',
            "level" if colour == "axis" else "spike", colour, x, x, TOP, self.y.start,
        )  # fmt: skip
        if name:
            self._add('<text class="level-name" x="{}" y="{}">{}</text>', x + 5, TOP + 9, name)

    def mark(self, x: float, name: str) -> None:
        """A vertical line where something begins; its name goes to its foot or its head, where the data leave room."""
        if not self.x.low < x < self.x.high:
            return
        px = self.x(x)
        self._add('<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"/>', px, px, TOP, self.y.start)
        self.names.append(("level-name", name, [(px + 4, self.y.start - 5), (px + 4, TOP + 9)]))

    def line(self, s: Series) -> None:
        """The points of a series, joined unless its style says otherwise; broken where a value is not finite."""
        path: list[str] = []
        dots: list[tuple[float, float]] = []
        pen_down = False
        for x, y in zip(s.x, s.y, strict=True):
            if not both_finite((x, y)):
                pen_down = False
                continue
            px, py = self.x(x), self.y(y)
            path.append(f"{'L' if pen_down else 'M'}{px:.1f} {py:.1f}")
            if pen_down:
                x0, y0 = dots[-1]
                self.inked += [(x0 + (px - x0) * k / 8, y0 + (py - y0) * k / 8) for k in range(8)]
            dots.append((px, py))
            pen_down = True
        if s.style != "points":
            self._add(
                '<path class="line {}" style="--s:var(--c-{})" d="{}"/>', s.style, s.colour, "".join(path)
            )
        isolated = len(dots) == 1
        if s.style == "points" or isolated or (s.style == "dots" and len(dots) <= MOST_DOTS):
            for px, py in dots:
                self._add(
                    '<circle class="dot" style="--s:var(--c-{})" cx="{}" cy="{}" r="3"/>', s.colour, px, py
                )

    def bad(self, x: float) -> None:
        """A mark on the bottom axis where a value was not finite."""
        px, py = self.x(x), self.y.start
        self._add(
            '<path class="bad" d="M{0} {1}l4 -8h-8z"><title>not a finite number at {2}</title></path>',
            px,
            py,
            number(x),
        )

    def error_bars(self, s: Series) -> None:
        """Bars of `xerr` and `yerr` on both sides of each point."""
        for i, point in enumerate(zip(s.x, s.y, strict=True)):
            if not both_finite(point):
                continue
            x, y = point
            for errors, (dx, dy) in ((s.xerr, (1, 0)), (s.yerr, (0, 1))):
                if errors and math.isfinite(errors[i]):
                    e = errors[i]
                    self._add(
                        '<line class="error" style="--s:var(--c-{})" x1="{}" x2="{}" y1="{}" y2="{}"/>', s.colour,
                        self.x(x - dx * e), self.x(x + dx * e), self.y(y - dy * e), self.y(y + dy * e),
                    )  # fmt: skip

    def spans(self, s: Series) -> None:
        """A vertical bar over the span of each point."""
        for x, y, (low, high) in zip(s.x, s.y, s.spans or [(math.nan, math.nan)] * len(s.x), strict=True):
            if all(map(math.isfinite, (x, y, low, high))):
                self._add(
                    '<line class="error" style="--s:var(--c-{})" x1="{}" x2="{}" y1="{}" y2="{}"/>', s.colour,
                    self.x(x), self.x(x), self.y(low), self.y(high),
                )  # fmt: skip

    def point_name(self, x: float, y: float, name: str) -> None:
        """A word beside a point; placed at the end."""
        px, py, width = self.x(x), self.y(y), LETTER * len(name)
        places = [(px + 6, py - 7), (px - 6 - width, py - 7), (px + 6, py + 15), (px - 6 - width, py + 15)]
        self.names.append(("point-name", name, places))

    def steps(self, s: Bins) -> None:
        """The outline of a histogram, as shares, from its first to its last filled bin."""
        total, base = sum(s.counts), self.y.start
        filled = [i for i, count in enumerate(s.counts) if count]
        first, last = filled[0], filled[-1]
        path = f"M{self.x(s.edges[first]):.1f} {base:.1f}"
        for i, count in enumerate(s.counts[first : last + 1], first):
            y = self.y(count / total)
            path += f"L{self.x(s.edges[i]):.1f} {y:.1f}L{self.x(s.edges[i + 1]):.1f} {y:.1f}"
        self._add(
            '<path class="area" style="--s:var(--c-{})" d="{}Z"/>',
            s.colour,
            path + f"L{self.x(s.edges[last + 1]):.1f} {base:.1f}",
        )

    def finish(
        self,
        title: str,
        series: Sequence[Series],
        y_show: Format,
        x_show: Format,
        *,
        ordered: bool,
        last_values: bool = True,
    ) -> Markup:
        """Wrap with legend, spoken summary, and the numbers for the hover read-out."""
        spoken = []
        for s in series:
            points = [p for p in zip(s.x, s.y, strict=True) if both_finite(p)]
            if points and ordered:
                (x0, y0), (x1, y1) = points[0], points[-1]
                spoken.append(
                    f"{s.label}: from {y_show(y0)} at {self.x_label} {x_show(x0)} to {y_show(y1)} at {x_show(x1)}"
                )
            elif points:
                names = s.names or [""] * len(s.x)
                places = (
                    f"{n} ({x_show(x)}, {y_show(y)})".strip()
                    for n, x, y in zip(names, s.x, s.y, strict=True)
                    if both_finite((x, y))
                )
                spoken.append(f"{s.label}: {', '.join(places)}")
        data = {
            "x": [self.x.low, self.x.high, round(self.x.start, 1), round(self.x.end, 1)],
            "y": [self.y.low, self.y.high, round(self.y.start, 1), round(self.y.end, 1)],
            "xLabel": self.x_label,
            "percent": y_show is percent,
            "xPercent": x_show is percent,
            "series": [
                {
                    "label": s.label,
                    "colour": s.colour,
                    # 5 digits are what the read-out shows; NaN has no JSON
                    "points": [
                        [float(f"{x:.7g}"), float(f"{y:.5g}")]
                        for x, y in zip(s.x, s.y, strict=True)
                        if both_finite((x, y))
                    ],
                }
                for s in series
            ],
        }
        return self.wrap(
            f"{title}. {'; '.join(spoken)}.",
            legend_list(series, y_show if ordered and last_values else None),
            data,
        )

    def wrap(self, spoken: str, legend: Markup, data: object | None) -> Markup:
        """The finished `<div>`."""
        self._place_names()
        attribute = (
            Markup("")
            if data is None
            else Markup(' data-chart="{}"').format(json.dumps(data, separators=(",", ":")))
        )
        unit = Markup('<span class="unit">{}</span>').format(self.y_label) if self.y_label else Markup("")
        return Markup(
            '<div class="chart"{}><div class="chart-head">{}{}</div>'
            '<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg></div>'
        ).format(attribute, unit, legend, self.width, self.height, spoken, Markup("").join(self.marks))
