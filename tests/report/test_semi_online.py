"""The course of losers that are sampled while training, on pages of other modalities than motions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modalities.image import synthetic_run
from report.html_page import Page
from report.test_report import edit, log, read


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of SoPo on images."""
    run = synthetic_run.write_image_run(tmp_path / "pictures")
    log(run, *course(run))
    return run


def course(run: Path, **fixed: float) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["split"] == "train":
            t = line["step"] / synthetic_run.STEPS
            line |= {
                "sopo/slope": 0.5 - 0.2 * t, "sopo/kept": 0.5, "collect/kept": 0.5, "collect/reward": 20 + t, "collect/best_reward": 21 + t,
                "collect/rejected_reward": 19 + t, "collect/similarity": 0.0,
            } | fixed  # fmt: skip
    return lines


def charts(page: Page) -> list[str]:
    return [attrs["aria-label"] for tag, attrs in page.elements if tag == "svg" and "aria-label" in attrs]


def test_a_run_whose_winners_are_rows_holds_rows_out(run: Path) -> None:
    page = read(run)
    assert "5,689 of 6,400 rows" in page.text
    assert "Held-out accuracy" in page.text
    assert "in 61.2% of held-out comparisons" in page.text
    shown = " ".join(charts(page))
    for title in (
        "Losers kept",
        "Judge's score of samples",
        "Slope of the loss",
        "Denoising error of both sides",
    ):
        assert title in shown, title
    assert "Resemblance" not in shown  # without embeddings S is 0 throughout


def test_what_went_wrong_is_told(run: Path) -> None:
    assert "stayed within 0.5 ± 0.005" not in read(run).text
    log(run, *course(run, **{"sopo/slope": 0.501, "collect/kept": 0.0}))
    text = read(run).text
    assert "stayed within 0.5 ± 0.005" in text
    assert "vetoed 100.0% of the losers from the start" in text


def test_tau_is_told_where_it_is_known(run: Path) -> None:
    log(run, *course(run, **{"collect/kept": 1.0}))
    assert "The judge kept" not in read(run).text
    (run / "record" / "calibration.json").write_text("{}")
    edit(run, "calibration", tau=0.3, matched_reward=20.5)
    text = read(run).text
    assert "The judge kept 100.0% of the losers (tau 0.300)" in text
    assert "20.5 for the data" in text


def test_other_runs_on_images_have_no_such_course(tmp_path: Path) -> None:
    for online in (False, True):
        page = read(synthetic_run.write_image_run(tmp_path / str(online), online=online))
        assert "Losers kept" not in page.text
        assert "Slope of the loss" not in " ".join(charts(page))
