"""The section on stages, and what joined curves must not be read as."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prefopt.report import write_report
from prefopt.report.account import read
from prefopt.report.charts import Series, line_chart
from prefopt.report.findings import findings
from prefopt.report.stages import stage_starts
from report.html_page import Page
from report.synthetic_run import NASTY, write_run

ROWS: list[dict[str, Any]] = [
    {"stage": "0", "method": "ssapo", "status": "finished", "steps": 300, "pairs": 1200, "reward": 0.41, "start_reward": 0.2},
    {"stage": "1", "method": "ssapo", "status": "finished", "steps": 200, "pairs": 90, "reward": 0.52, "label_accuracy": 0.75,
     "worst_case": {"moved_mass": 0.05, "space": "margin"}},
    {"stage": "2", "method": "ssapo", "status": "running", "steps": 100, "pairs": 80, "label_accuracy": 0.7},
]  # fmt: skip


def with_stages(folder: Path, rows: Any, told: Any = "Pairs, then rounds.") -> Path:
    """A finished run whose manifest lists stages."""
    write_run(folder)
    path = folder / "record" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "stages": {"told": told, "runs": rows}}))
    return folder


def section(folder: Path) -> str:
    html = write_report(folder).read_text()
    found = re.search(r'<section id="stages".*?</section>', html, re.S)
    return found[0] if found else ""


def test_every_stage_has_a_row_and_a_link_once_it_has_a_page(tmp_path):
    folder = with_stages(tmp_path / "run", ROWS)
    for stage in ("0", "1"):
        (folder / "stages" / stage / "run").mkdir(parents=True)
        (folder / "stages" / stage / "run" / "report.html").touch()
    page = Page(section(folder))
    assert [address for _, name, address in page.addresses() if name == "href"] == [
        "stages/0/run/report.html",
        "stages/1/run/report.html",
    ]
    assert "Pairs, then rounds." in page.text
    assert (
        "stage steps pairs labels right mass moved reward 0 300 1,200 – – 0.410 1 200 90 75% 5.0% 0.520"
        in page.text
    )
    assert "2 running 100 80 70% – –" in page.text
    assert "ssapo" not in page.text, "one method for all stages needs no column"
    assert "Reward of samples after each round" in page.text
    assert "Labels that the true reward agrees with" in page.text


def test_stages_that_are_no_rounds_name_their_methods_and_have_no_charts(tmp_path):
    rows = [{**ROWS[0], "stage": "clean", "method": "dpo"}, {**ROWS[1], "stage": "noisy", "method": "compo"}]
    page = Page(section(with_stages(tmp_path / "run", rows)))
    assert "clean dpo" in page.text
    assert "noisy compo" in page.text
    assert "figure" not in page.tags()


def test_a_single_run_has_no_such_section(tmp_path):
    write_run(tmp_path / "run")
    assert section(tmp_path / "run") == ""


@pytest.mark.parametrize(
    "rows",
    [
        None,
        3,
        [3],
        [{"stage": 1}],
        [{"stage": NASTY, "method": NASTY, "status": NASTY, "steps": NASTY, "worst_case": 3}],
    ],
)
def test_whatever_the_manifest_holds_the_page_is_drawn(rows, tmp_path):
    folder = with_stages(tmp_path / "run", rows, told=NASTY)
    html = write_report(folder).read_text()
    assert "<script>alert" not in html
    assert 'id="curves"' in html
    Page(html)


def test_curves_show_where_stages_begin(tmp_path):
    folder = with_stages(tmp_path / "run", ROWS)
    run, _ = read(folder)
    assert stage_starts(run) == [(300.0, "1"), (500.0, "2")]
    html = write_report(folder).read_text()
    assert html.count(">stage 1</text>") == html.count(">stage 2</text>") > 5


def test_a_mark_stands_at_its_place_and_outside_nowhere():
    chart = line_chart(
        [Series(label="x", x=[0, 10], y=[0.0, 1.0])], title="T", marks=[(5, "half"), (10, "end"), (99, "far")]
    )
    (x,) = re.findall(r'<line class="level" x1="([\d.]+)" x2="\1"', chart)
    start, end = (
        float(v)
        for v in re.search(r'class="axis" x1="([\d.]+)" x2="([\d.]+)" y1="([\d.]+)" y2="\3"', chart).groups()[
            :2
        ]
    )
    assert float(x) == pytest.approx((start + end) / 2, abs=0.1)
    assert ">half</text>" in chart
    assert "far" not in chart


def test_there_is_no_half_step():
    ticks = re.findall(
        r'class="tick"[^>]*text-anchor="(?:middle|end)">([\d.]+)<',
        line_chart([Series(label="x", x=[0, 1, 2], y=[5.0, 5.0, 5.0])], title="T"),
    )
    assert ticks[-3:] == ["0", "1", "2"]


@pytest.mark.parametrize(("second", "warned"), [("dpo", True), ("compo", False)])
def test_losses_of_two_methods_are_not_compared(second, warned, tmp_path):
    """The last stage's loss is higher, and falls: overfitting only if it is the loss of the stage before."""
    rows = [{**ROWS[0], "stage": "clean", "method": "dpo"}, {**ROWS[1], "stage": "noisy", "method": second}]
    folder = with_stages(tmp_path / "run", rows)
    losses = {0: 0.69, 100: 0.5, 200: 0.4, 300: 0.95, 400: 0.9, 500: 0.8}
    lines = [{"step": s, "epoch": 0.0, "split": "eval", "eval_loss": v} for s, v in losses.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = [f.text for f in findings(*read(folder)) if f.text.startswith("Held-out loss was best")]
    assert bool(told) == warned
