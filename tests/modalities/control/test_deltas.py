"""Delta by noise level."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from modalities.control import synthetic_run
from modalities.control.test_report import edit, read
from modalities.image.image_runs import record
from modalities.image.test_report import names
from prefopt.modalities.control.report.deltas import at


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return synthetic_run.write_control_run(tmp_path / "follows")


def test_delta_is_told_by_timestep(run: Path) -> None:
    page = read(run)
    told = record(run, "timesteps")
    charts = {name.partition(".")[0]: name for name in names(page)}
    for when in ("before", "after"):
        gaps = np.array(told[when]["chosen"]) - np.array(told[when]["rejected"])
        mean, std = gaps.mean(1), gaps.std(1, ddof=1)
        right = (gaps < 0).mean(1)
        assert (
            f"{when}: from {shown(mean[0])} at timestep 62 to {shown(mean[-1])} at 937"
            in charts["Delta by timestep"]
        )
        share = mean / np.array(told[when]["chosen"]).mean(1)
        assert (
            f"{when}: from {100 * share[0]:.1f}%".replace("-", "−") in charts["Delta relative to the error"]
        )
        assert f"{when}: from {100 * right[0]:.1f}%" in charts["Sign accuracy of Delta"]
        assert f"{when}: from {shown(abs(mean[0]) / std[0])}" in charts["Signal to noise of Delta"]
    assert "Measured on 48 held-out pairs" in page.text
    assert "the true condition explains the image better" in page.text


def shown(value: float) -> str:
    from prefopt.report.format import number

    return number(value)


def test_spread_is_one_standard_deviation_of_the_pairs() -> None:
    chosen, rejected = [0.1, 0.2, 0.5, math.nan, None], [0.3, 0.3, 0.4, 0.1, 0.1]
    found = at(chosen, rejected)
    gaps = np.array([-0.2, -0.1, 0.1])
    assert found.pairs == 3
    assert (found.mean, found.std) == pytest.approx((gaps.mean(), gaps.std(ddof=1)))
    assert found.snr == pytest.approx(abs(gaps.mean()) / gaps.std(ddof=1))
    assert found.right == pytest.approx(2 / 3)
    assert found.relative == pytest.approx(gaps.mean() / np.mean([0.1, 0.2, 0.5]))
    assert math.isnan(at([0.1], [0.2]).snr)
    assert at([], []).pairs == 0
    assert at([0.1, 0.2, 0.2], [0.2, 0.4, 0.2]).right == pytest.approx(5 / 6)  # an equal pair is half right


def test_there_is_no_delta_of_single_images_nor_before_the_end(run: Path) -> None:
    edit(run, "timesteps", paired=False)
    assert "deltas" not in read(run).ids()
    edit(run, "timesteps", paired=True)
    assert "deltas" in read(run).ids()
    edit(run, "timesteps", after=None)
    assert "deltas" not in read(run).ids()
    edit(run, "timesteps", timesteps="none", after=[1])
    assert "cannot be drawn" not in read(run).text


def test_a_losing_side_with_the_smaller_error_is_a_warning(run: Path) -> None:
    told = record(run, "timesteps")
    assert "smaller error more often than not" not in read(run).text
    for k in (5, 6):
        after = told["after"]
        after["chosen"][k], after["rejected"][k] = after["rejected"][k], after["chosen"][k]
    edit(run, "timesteps", **told)
    text = read(run).text
    assert (
        "watch out At 2 of 8 timesteps the rejected side has the smaller error more often than not; at 687"
        in text
    )
