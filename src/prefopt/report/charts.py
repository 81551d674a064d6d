"""Charts as inline SVG: lines over steps, two histograms, a frontier with error bars, a stacked bar, a sparkline.

Every function returns markup for `page.page`; colours are CSS variables (`--c-<name>` in style.css), so a chart
follows light, dark and print by itself. `script.js` adds a read-out on hover from the `data-chart` attribute; without
it the chart is complete. Colour names: train, eval, chosen, rejected, tie, before, after, and a to f for anything else.

    >>> from prefopt.report.charts import Series, line_chart
    >>> svg = line_chart([Series(label="loss", x=[0, 10, 20], y=[0.69, 0.5, 0.4])], title="Loss")

A NaN or an infinity breaks the line, and is marked on the bottom axis.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from prefopt.report.drawing import Bins, Format, Plot, Series, both_finite, legend_list
from prefopt.report.format import number, percent
from prefopt.report.scales import percent_ticks, smooth, thin, tick_text


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "step",
    y_label: str = "",
    shares: bool = False,
    y_range: tuple[float, float] | None = None,
    levels: Sequence[tuple[float, str]] = (),
    marks: Sequence[tuple[float, str]] = (),
    last_values: bool = True,
) -> Markup:
    """Lines over a common x axis.

    Args:
        series: what to draw, back to front; `spans` are drawn where given. Long ones are thinned (`thin`).
        title: names the chart for screen readers; draw a visible heading around the chart.
        x_label: under the axis.
        y_label: unit, shown above the axis.
        shares: y is a share in [0, 1] and is written as a percentage.
        y_range: values that the axis must show besides the data.
        levels: horizontal lines, (value, name), for example the loss at zero margin.
        marks: vertical lines, (x, name), where something begins.
        last_values: write each line's last value beside its name: where x is time, that is the result.

    Returns:
        A `<div class="chart">`; a sentence instead of a chart where no value is finite.
    """
    drawn = [_thinned(s) for s in series if len(s.x)]
    values = [v for s in drawn for v in s.y if math.isfinite(v)]
    if not values:
        return Markup('<p class="empty">No finite value was logged.</p>') if drawn else Markup("")
    ends = [v for s in drawn for span in s.spans or () for v in span if math.isfinite(v)]
    extent = [*values, *ends, *(y_range or ()), *(value for value, _ in levels if math.isfinite(value))]
    xs = [v for s in drawn for v in s.x]
    plot = Plot(xs, extent, percent_ticks if shares else tick_text, x_label, y_label, exact_x=True)
    for value, name in levels:
        plot.level(value, name)
    for x, name in marks:
        plot.mark(x, name)
    for s in drawn:
        plot.spans(s)
    for s in drawn:
        plot.line(s)
    for x in sorted({x for s in drawn for x, y in zip(s.x, s.y, strict=True) if not math.isfinite(y)}):
        plot.bad(x)
    show: Format = percent if shares else number
    shown = [s for s in drawn if s.legend]
    return plot.finish(title, shown, show, number, ordered=True, last_values=last_values)


def scatter_lines(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_shares: bool = False,
    y_shares: bool = False,
) -> Markup:
    """Points with error bars, joined in the given order: a frontier such as reward against KL.

    Args:
        series: `xerr`, `yerr` and `names` are drawn where given.
        title: names the chart for screen readers.
        x_label, y_label: axis names with units.
        x_shares, y_shares: the axis is a share in [0, 1].

    Returns:
        A `<div class="chart">`; a sentence instead of a chart where no point is finite.
    """
    drawn = [s for s in series if any(map(both_finite, zip(s.x, s.y, strict=True)))]
    if not drawn:
        return Markup('<p class="empty">No point with two finite coordinates.</p>')
    whole = [
        (s, [i for i, point in enumerate(zip(s.x, s.y, strict=True)) if both_finite(point)]) for s in drawn
    ]
    xs = [v for s, kept in whole for v in _with_errors(s.x, s.xerr, kept)]
    ys = [v for s, kept in whole for v in _with_errors(s.y, s.yerr, kept)]
    plot = Plot(
        xs, ys, percent_ticks if y_shares else tick_text, x_label, y_label,
        exact_x=False, size=(680.0, 340.0), x_format=percent_ticks if x_shares else tick_text,
    )  # fmt: skip
    for s in drawn:
        plot.error_bars(s)
    for s in drawn:
        plot.line(s)
        for i, name in enumerate(s.names or ()):
            if name and both_finite((s.x[i], s.y[i])):
                plot.point_name(s.x[i], s.y[i], name)
    y_show: Format = percent if y_shares else number
    return plot.finish(title, drawn, y_show, percent if x_shares else number, ordered=False)


def histogram(
    series: Sequence[Bins],
    *,
    title: str,
    x_label: str,
    x_range: tuple[float, float] | None = None,
    levels: Sequence[tuple[float, str]] = (),
) -> Markup:
    """One or two histograms over each other, each as shares of its own total.

    Args:
        series: the first is drawn behind. One whose values are all in a bin of width zero (`bin_values` makes it
            for equal values) is drawn as a vertical line: a spike would flatten the other.
        title: names the chart for screen readers.
        x_label: under the axis, with the unit.
        x_range: values that the x axis must show, to make two charts comparable.
        levels: vertical lines, (value, name).

    Returns:
        A `<div class="chart">`; empty where there are no values.
    """
    drawn = [
        s for s in series if len(s.edges) > 1 and len(s.edges) == len(s.counts) + 1 and sum(s.counts) > 0
    ]
    drawn = [s for s in drawn if all(map(math.isfinite, (*s.edges, *s.counts)))]
    if not drawn:
        return Markup("")
    spikes = [s for s in drawn if s.edges[0] == s.edges[-1]]
    shares = [c / sum(s.counts) for s in drawn if s not in spikes for c in s.counts]
    xs = [*(e for s in drawn for e in s.edges), *(x_range or ()), *(value for value, _ in levels)]
    plot = Plot(xs, [0.0, *(shares or [1.0])], percent_ticks, x_label, "share", exact_x=False)
    for value, name in levels:
        plot.vertical(value, name, "axis")
    for s in drawn:
        if s in spikes:
            plot.vertical(s.edges[0], "", s.colour)
        else:
            plot.steps(s)
    swatches = [
        Series(
            label=f"{s.label}: all at {number(s.edges[0])}" if s in spikes else s.label,
            x=[],
            y=[],
            colour=s.colour,
        )
        for s in drawn
    ]
    total = "; ".join(f"{s.label}: {number(sum(s.counts))} values" for s in drawn)
    return plot.wrap(f"{title}. {total}.", legend_list(swatches, None), data=None)


def bin_values(
    groups: Sequence[tuple[str, Sequence[float], str]],
    bins: int = 36,
    x_range: tuple[float, float] | None = None,
) -> list[Bins]:
    """Histograms of several (label, values, colour) groups on the same edges; values that are not finite are left out."""
    kept = [
        (label, [float(v) for v in values if math.isfinite(v)], colour) for label, values, colour in groups
    ]
    everything = [v for _, values, _ in kept for v in values] + list(x_range or ())
    if not everything:
        return []
    low, high = min(everything), max(everything)
    width = (high - low) / bins
    out = []
    for label, values, colour in kept:
        if not values:
            continue
        if max(values) == min(values):
            out.append(Bins(label=label, edges=[values[0]] * 2, counts=[float(len(values))], colour=colour))
            continue
        edges = [low + i * width for i in range(bins)] + [high]
        counts = [0.0] * bins
        for v in values:
            counts[min(bins - 1, max(0, bisect.bisect_right(edges, v) - 1))] += 1
        out.append(Bins(label=label, edges=edges, counts=counts, colour=colour))
    return out


def sparkline(y: Sequence[float], colour: str = "eval") -> Markup:
    """A line without axes, to sit beside a number; decoration only, hidden from screen readers."""
    values = [v for v in y if math.isfinite(v)]
    if len(values) < 3:
        return Markup("")
    _, values = thin(range(len(values)), values, 80)
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = [(2 + 92 * i / (len(values) - 1), 25 - 22 * (v - low) / span) for i, v in enumerate(values)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    x, y_end = points[-1]
    return Markup(
        '<svg class="spark" viewBox="0 0 98 28" aria-hidden="true" focusable="false" style="--s:var(--c-{})">'
        '<path d="{}"/><circle cx="{:.1f}" cy="{:.1f}" r="2.4"/></svg>'
    ).format(colour, path, x, y_end)


def stacked_bar(
    parts: Sequence[tuple[str, float, str]],
    *,
    title: str,
    marker: tuple[float, str] | None = None,
    colours: Sequence[str] = "abcdef",
) -> Markup:
    """A horizontal bar of (label, size, shown size) parts.

    Args:
        parts: those whose size is not positive and finite are left out.
        title: names the bar for screen readers.
        marker: (size, text) of a mark, for example a measured total.
        colours: one a part, repeated as needed.

    Returns:
        A `<div class="stack">`; empty where no part is left.
    """
    kept = [
        (label, size, shown, colours[i % len(colours)])
        for i, (label, size, shown) in enumerate(parts)
        if math.isfinite(size) and size > 0
    ]
    if not kept:
        return Markup("")
    total = sum(size for _, size, _, _ in kept)
    full = max(total, marker[0] if marker and math.isfinite(marker[0]) else 0.0)
    segments, items = Markup(""), Markup("")
    for label, size, shown, colour in kept:
        segments += Markup('<span style="--s:var(--c-{});width:{:.2f}%" title="{}: {}"></span>').format(
            colour, 100 * size / full, label, shown
        )
        items += Markup(
            '<li><span class="key block" style="--s:var(--c-{})"></span>{} <b>{}</b></li>'
        ).format(colour, label, shown)
    mark = Markup("")
    if marker and math.isfinite(marker[0]) and full:
        mark = Markup('<i class="mark" style="left:{:.2f}%" title="{}"></i>').format(
            100 * marker[0] / full, marker[1]
        )
        items += Markup('<li><span class="key mark"></span>{}</li>').format(marker[1])
    spoken = f"{title}. " + ", ".join(f"{label}: {shown}" for label, _, shown, _ in kept)
    return Markup(
        '<div class="stack"><div class="bar" role="img" aria-label="{}">{}{}</div><ul class="legend">{}</ul></div>'
    ).format(spoken, segments, mark, items)


def _thinned(s: Series) -> Series:
    x, y = thin(s.x, s.y)
    return s if len(x) == len(s.x) else replace(s, x=x, y=y, spans=None)


def _with_errors(values: Sequence[float], errors: Sequence[float] | None, kept: Sequence[int]) -> list[float]:
    """Both ends of the error bars of the points in `kept`, for the extent of an axis."""
    widths = [errors[i] if errors and math.isfinite(errors[i]) else 0.0 for i in kept]
    return [values[i] + sign * width for i, width in zip(kept, widths, strict=True) for sign in (-1, 1)]


__all__ = [
    "Bins",
    "Series",
    "bin_values",
    "histogram",
    "line_chart",
    "scatter_lines",
    "smooth",
    "sparkline",
    "stacked_bar",
]
