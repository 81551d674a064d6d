from __future__ import annotations

import doctest
import importlib
import itertools
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from prefopt.report.charts import (
    Bins,
    Series,
    bin_values,
    histogram,
    line_chart,
    scatter_lines,
    smooth,
    sparkline,
    stacked_bar,
)
from prefopt.report.format import data_size, duration, number
from prefopt.report.page import Section, figure, page
from prefopt.report.scales import nice_ticks, thin, tick_text
from report.html_page import Page

ANY = st.floats(-1e299, 1e299) | st.floats(-10, 10)


@pytest.mark.parametrize("name", ["format", "scales", "charts", "facts", "page", "papers", "pictures"])
def test_docstring_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"prefopt.report.{name}")).failed == 0


@settings(max_examples=200, deadline=None)
@given(ANY, ANY)
def test_ticks_cover_any_range_with_few_round_numbers(a: float, b: float) -> None:
    ticks = nice_ticks(min(a, b), max(a, b))
    assert 2 <= len(ticks) <= 12
    assert all(x < y for x, y in itertools.pairwise(ticks))
    slack = 1e-6 * max(abs(a), abs(b))
    assert ticks[0] <= min(a, b) + slack
    assert ticks[-1] >= max(a, b) - slack
    assert len(set(tick_text(ticks))) > 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(), max_size=8))
def test_no_value_breaks_a_line_chart(values: list[float]) -> None:
    chart = line_chart([Series(label="x", x=list(range(len(values))), y=values)], title="T")
    Page(chart)
    coordinates = re.findall(r' (?:d|x1|y1|cx|cy)="([^"]*)"', chart)
    assert not any("nan" in c or "inf" in c for c in coordinates)


def test_thinning_keeps_every_spike() -> None:
    y = [0.0] * 10_000
    y[1234], y[7777], y[5000] = 9.0, -9.0, math.nan
    x, kept = thin(list(range(10_000)), y)
    assert len(x) < 700
    assert {1234, 7777, 5000, 0, 9999} <= set(x)
    assert max(v for v in kept if v == v) == 9.0


def test_smoothing_keeps_level_and_holes() -> None:
    y = [2.0] * 100
    y[50] = math.nan
    assert math.isnan(smooth(y)[50])
    assert [v for v in smooth(y) if v == v] == [2.0] * 99


def marks(chart: Markup, css: str) -> list[dict[str, str]]:
    return [attrs for _, attrs in Page(chart).elements if attrs.get("class") == css]


def test_a_frontier_has_error_bars_of_the_right_length_and_names_its_points() -> None:
    chart = scatter_lines(
        [Series(label="dpo", x=[0.0, 10.0], y=[0.0, 1.0], xerr=[3.0, 2.0], yerr=[0.5, 0.25], names=["start", "beta 0.1"])],
        title="Frontier", x_label="KL", y_label="reward",
    )  # fmt: skip
    dots = [(float(d["cx"]), float(d["cy"])) for d in marks(chart, "dot")] or [
        tuple(map(float, xy))
        for xy in re.findall(r"[ML]([\d.]+) ([\d.]+)", marks(chart, "line line")[0]["d"])
    ]
    per_x, per_y = (dots[1][0] - dots[0][0]) / 10, dots[0][1] - dots[1][1]
    horizontal, vertical = marks(chart, "error")[-2:]
    assert float(horizontal["x2"]) - float(horizontal["x1"]) == pytest.approx(4 * per_x, abs=0.3)
    assert abs(float(vertical["y2"]) - float(vertical["y1"])) == pytest.approx(0.5 * per_y, abs=0.3)
    axis = max(float(line["y1"]) for line in marks(chart, "gridline"))
    left = float(marks(chart, "gridline")[0]["x1"])
    for bar in marks(chart, "error"):  # the axes reach the ends of the bars
        assert left <= float(bar["x1"]) <= float(bar["x2"])
        assert max(float(bar["y1"]), float(bar["y2"])) <= axis
    assert "beta 0.1" in Page(chart).text
    assert "beta 0.1 (10, 1)" in chart


def test_a_frontier_leaves_out_points_without_both_coordinates() -> None:
    chart = scatter_lines(
        [Series(label="a", x=[1.0, math.nan, 2.0], y=[1.0, 500.0, 3.0])], title="T", x_label="x", y_label="y"
    )
    assert "500" not in chart
    assert "No point" in scatter_lines(
        [Series(label="a", x=[math.nan], y=[1.0])], title="T", x_label="x", y_label="y"
    )


def test_histograms_count_every_finite_value_on_shared_edges() -> None:
    before, after = bin_values(
        [("before", [0.0, 0.0, 0.0], "before"), ("after", [-1.0, 2.0, 2.0, math.nan, 5.0], "chosen")], bins=6
    )
    assert before.edges == [0.0, 0.0]
    assert (before.counts, sum(after.counts)) == ([3.0], 4)
    assert (after.edges[0], after.edges[-1]) == (-1.0, 5.0)
    assert after.counts == [1, 0, 0, 2, 0, 1]
    chart = histogram([before, after], title="Margins", x_label="nats")
    assert "before: all at 0" in Page(chart).text
    assert len(marks(chart, "spike")) == 1
    assert "before: 3 values; after: 4 values" in chart


def test_a_histogram_whose_edges_do_not_fit_is_left_out() -> None:
    assert not histogram([Bins(label="x", edges=[0, 1], counts=[1, 2])], title="T", x_label="x")


def test_stacked_parts_are_in_proportion() -> None:
    bar = stacked_bar(
        [("a", 1.0, "1"), ("b", 3.0, "3"), ("none", 0.0, "0")], title="T", marker=(2.0, "measured")
    )
    assert "width:25.00%" in bar
    assert "width:75.00%" in bar
    assert "left:50.00%" in bar
    assert "none" not in bar


def test_labels_are_escaped_in_every_chart() -> None:
    bad = "<b onclick=x>\"'"
    line = Series(label=bad, x=[0.0, 1.0], y=[0.0, 1.0], names=[bad, bad])
    for chart in (
        line_chart([line, line], title=bad, y_label=bad, x_label=bad, levels=[(0.5, bad)]),
        scatter_lines([line], title=bad, x_label=bad, y_label=bad),
        histogram([Bins(label=bad, edges=[0, 1, 2], counts=[1, 2])], title=bad, x_label=bad),
        stacked_bar([(bad, 1.0, bad)], title=bad, marker=(1.0, bad)),
    ):
        assert "b" not in Page(chart).tags() - {"b"}
        assert not [attrs for _, attrs in Page(chart).elements if "onclick" in attrs]


def test_sparklines_need_three_points() -> None:
    assert not sparkline([1.0, 2.0])
    assert "<svg" in sparkline([1.0, math.nan, 2.0, 3.0])


def test_a_page_of_our_own() -> None:
    body = figure(
        "Frontier", line_chart([Series(label="a", x=[0, 1], y=[0, 1])], title="Frontier"), "Up and left."
    )
    document = Page(page("Two <runs>", [Section("f", "Reward & KL", body)], kicker="compare"))
    assert "Two <runs>" in document.text
    assert document.ids().count("f") == 1
    assert "Look for Up and left." in document.text


def test_numbers_read_well() -> None:
    assert [number(x) for x in (-0.5, 123456, 1234567.5, 9.99996, 1e20)] == [
        "−0.5000",
        "123,456",
        "1.235e6",
        "10.000",
        "1e20",
    ]
    assert [duration(x) for x in (3.14, 59.6, 312.4, 12000, 200000)] == [
        "3.1 s",
        "1 min 0 s",
        "5 min 12 s",
        "3 h 20 min",
        "2 d 7 h",
    ]
    assert [data_size(x) for x in (512, 3 * 2**30, 1023.9 * 1024)] == ["512 B", "3 GiB", "1.02e+03 KiB"]
