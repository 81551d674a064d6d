"""The section on noise levels."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from modalities.image import synthetic_run
from modalities.image.test_report import names
from prefopt.modalities.image.report.timesteps import timestep_figures
from prefopt.report import account, write_report
from report.html_page import Page
from report.test_report import paths_of

T = [125, 375, 625, 875]
TITLES = ("Accuracy by timestep", "Denoising error by timestep", "Change of the error by timestep")


def measured(chosen: float, rejected: float, accuracy: float) -> dict[str, Any]:
    """Four timesteps, the errors of two pairs around a mean that falls with t."""
    sides = {"chosen": chosen, "rejected": rejected}
    rows = {side: [[0.9 * e / k, 1.1 * e / k] for k in (1, 2, 4, 8)] for side, e in sides.items()}
    return {"accuracy": [0.5, 0.5, accuracy, accuracy], **rows}


def record(**changes: Any) -> dict[str, Any]:
    start = measured(0.4, 0.48, 0.5)
    reference = {side: start[side] for side in ("chosen", "rejected")}
    found = {"split": "held-out", "paired": True, "timesteps": T, "before": start, "reference": reference,
             "after": measured(0.36, 0.6, 0.75)}  # fmt: skip
    return {k: v for k, v in {**found, **changes}.items() if v is not None}


def write(run: Path, found: Any) -> Page:
    (run / "record" / "timesteps.json").write_text(json.dumps(found))
    return Page(write_report(run).read_text("utf-8"))


def charts(page: Page) -> dict[str, str]:
    """What screen readers are told, by title."""
    found = (name.partition(". ") for name in names(page))
    return {title: rest for title, _, rest in found if title in TITLES}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return synthetic_run.write_image_run(tmp_path / "pictures")


def test_accuracy_errors_and_their_change_are_drawn(run: Path) -> None:
    page = write(run, record())
    assert "By noise level" in page.text
    assert "timesteps" in page.ids()
    assert charts(page) == {
        TITLES[0]: "before: from 50.0% at timestep 125 to 50.0% at 875; after: from 50.0% at timestep 125 to 75.0% at 875.",
        TITLES[1]: "chosen, reference: from 0.4000 at timestep 125 to 0.05000 at 875; rejected, reference: from 0.4800 at "
        "timestep 125 to 0.06000 at 875; chosen, after: from 0.3600 at timestep 125 to 0.04500 at 875; rejected, after: "
        "from 0.6000 at timestep 125 to 0.07500 at 875.",
        TITLES[2]: "chosen, after: from −10.0% at timestep 125 to −10.0% at 875; rejected, after: from 25.0% at timestep "
        "125 to 25.0% at 875.",
    }  # fmt: skip
    assert "Measured on 2 held-out pairs" in page.text
    assert "before after" in page.text  # a legend without values: the noisiest timestep is no result
    assert "one line stands for both" in page.text
    assert "record/timesteps.json" not in page.text


def test_the_legend_of_three_pairs_has_a_row_for_each(run: Path) -> None:
    write(run, record(before=measured(0.41, 0.49, 0.5)))
    html = (run / "report.html").read_text("utf-8")
    (legend,) = re.findall(r'<ul class="legend pairs">(.*?)</ul>', html[: html.index("Change of the error")])
    whens = re.findall(r"(?:chosen|rejected), (\w+)", legend)
    assert whens == ["reference"] * 2 + ["before"] * 2 + ["after"] * 2
    assert html.count('class="legend pairs"') == 2  # and in the change of the error; others flow


def test_accuracy_has_the_interval_of_its_pairs(run: Path) -> None:
    write(run, record())
    html = (run / "report.html").read_text("utf-8")
    bars = re.findall(r'<line class="error"[^>]* y1="([\d.]+)" y2="([\d.]+)"/>', html)
    dots = re.findall(r'--c-after\)" cx="[\d.]+" cy="([\d.]+)"', html)
    level = re.search(r'<line class="level"[^>]* y1="([\d.]+)"', html[html.index("Accuracy by timestep") :])
    assert len(bars) == len(dots) == 4
    assert level
    # at 50% of 2 pairs the interval is 9.5% to 90.5%; pixels fall as shares rise
    share = (float(level.group(1)) - float(dots[3])) / 0.25
    assert [float(y) - float(level.group(1)) for y in bars[0]] == pytest.approx(
        [0.4055 * share, -0.4055 * share], abs=0.5
    )
    write(run, record(paired=False))
    assert '<line class="error"' not in (run / "report.html").read_text("utf-8")


def test_a_start_that_is_not_the_reference_is_drawn_beside_it(run: Path) -> None:
    page = write(run, record(before=measured(0.5, 0.5, 0.5)))
    assert "chosen, before: from 0.5000" in charts(page)[TITLES[1]]
    assert "chosen, before: from 25.0%" in charts(page)[TITLES[2]]
    assert "one line stands for both" not in page.text


def test_without_a_reference_the_start_takes_its_place(run: Path) -> None:
    page = write(run, record(reference=None))
    assert "reference" not in charts(page)[TITLES[1]]
    assert charts(page)[TITLES[1]].startswith("chosen, before: from 0.4000")
    assert charts(page)[TITLES[2]].startswith("chosen, after: from −10.0%")
    assert "relative to before training" in page.text
    assert "one line stands for both" not in page.text


def test_without_a_start_the_rest_is_drawn(run: Path) -> None:
    page = write(run, record(before=None))
    assert "before" not in charts(page)[TITLES[0]]
    assert charts(page)[TITLES[1]].startswith("chosen, reference: from 0.4000")


def test_single_images_are_counted_by_label(run: Path) -> None:
    after = measured(0.36, 0.6, 0.75)
    after["rejected"] = [[*row, row[0]] for row in after["rejected"]]
    page = write(run, record(paired=False, after=after, split="training"))
    assert "2 desirable and 3 undesirable training images" in page.text
    assert "each desirable image with each undesirable one" in page.text


def test_one_side_alone_has_no_accuracy(run: Path) -> None:
    after = {"accuracy": [None] * 4, "chosen": measured(0.36, 0.6, 0.5)["chosen"], "rejected": [[]] * 4}
    page = write(run, record(paired=False, after=after, before=after))
    assert sorted(charts(page)) == sorted(TITLES[1:])
    assert "rejected, after" not in charts(page)[TITLES[1]]


@pytest.mark.parametrize(
    "found", [{}, [], record(after=None), record(timesteps=None), record(timesteps=[1, "x", 3, 4])]
)
def test_nothing_measured_is_no_section(run: Path, found: Any) -> None:
    page = write(run, found)
    assert charts(page) == {}
    assert "timesteps" not in page.ids()
    assert "This part could not be drawn" not in page.text


def test_a_run_without_the_record_misses_nothing(run: Path) -> None:
    page = Page(write_report(run).read_text("utf-8"))
    assert "timesteps" not in page.ids()
    assert "timesteps.json" not in page.text


@pytest.mark.parametrize("seed", range(3))
def test_no_malformed_entry_breaks_the_section(run: Path, seed: int) -> None:
    rng = random.Random(seed)
    junk: list[Any] = [
        None, "x", [], {}, math.nan, -1, 0, 1e308, -1e400, True, [None], [["x"]], {"a": 1}, 10**400,
    ]  # fmt: skip
    for _ in range(40):
        found = copy.deepcopy(record())
        *parents, key = rng.choice(paths_of(found)[1:])
        target: Any = found
        for step in parents:
            target = target[step]
        target[key] = rng.choice(junk)
        (run / "record" / "timesteps.json").write_text(json.dumps(found))
        try:
            timestep_figures(account.read(run)[0])
        except Exception as error:
            raise AssertionError(f"{parents} {key}: {target[key]}") from error


def test_sums_beyond_floats_do_not_break_the_page(run: Path) -> None:
    after = measured(0.36, 0.6, 0.75) | {"chosen": [[1.7e308, 1.7e308]] * 4}
    page = write(run, record(after=after))
    assert "This part could not be drawn" not in page.text
    assert "rejected, after" in charts(page)[TITLES[1]]
