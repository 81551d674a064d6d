"""Accuracy by position, category and length, by the golden vectors and by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from longvpo_vectors import each
from prefopt.metrics.positions import (
    accuracy_by_category,
    accuracy_by_position,
    interval,
    length_curve,
    retention,
)


@each("position_metrics", 3)
def test_by_position(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = asdict(accuracy_by_position(**given))
    assert set(found) == set(expected)
    for name, value in expected.items():
        if name == "bin_accuracy":
            assert [one is None for one in found[name]] == [one is None for one in value]
            found[name], value = ([one for one in side if one is not None] for side in (found[name], value))
        assert found[name] == pytest.approx(value, rel=1e-12), name


@each("aggregate", 1)
def test_by_category(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = accuracy_by_category(given["correct"], given["category"])
    assert sorted(found.per_category) == sorted(given["categories"])
    assert found.per_category == pytest.approx(expected["per_category"], rel=1e-12)
    assert (found.micro, found.macro) == pytest.approx((expected["micro"], expected["macro"]), rel=1e-12)


def test_what_is_undefined_is_none() -> None:
    assert accuracy_by_position([1, 0], [0, 1], [2, 2], 2).middle_drop is None  # nothing is between
    assert accuracy_by_position([1, 0], [0, 1], [3, 3], 3).middle_drop is None  # nothing at the end
    assert accuracy_by_position([1, 0], [0, 2], [3, 3], 3).middle_drop is None
    assert accuracy_by_position([1], [0], [1], 1).middle_drop is None
    assert accuracy_by_position([1, 0], [0, 1], [3, 3], 3).bin_accuracy == [1.0, 0.0, None]


def test_lengths() -> None:
    curve = length_curve([1, 0, 1, 1, 0, 0], [2, 2, 1, 1, 16, 16])
    assert list(curve.items()) == [(1, 1.0), (2, 0.5), (16, 0.0)]
    assert retention(curve, {1: 0.5, 2: 0.75, 16: 1.0}) == pytest.approx(0.125)
    assert retention(curve, {1: 0.5}) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="none of"):
        retention(curve, {4: 1.0})


def test_questions_of_a_video_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    of_video = rng.integers(2, size=40).tolist()
    correct = [
        value for value in of_video for _ in range(10)
    ]  # ten questions a video, all right or all wrong
    videos = [name for name in range(40) for _ in range(10)]
    low, high = interval(correct, videos, seed=1)
    alone = interval(correct, list(range(400)), seed=1)
    assert high - low > 2.5 * (alone[1] - alone[0])  # by sqrt(10), if there were infinitely many
    assert interval(of_video, list(range(40)), seed=1) == (low, high)
    assert low < np.mean(correct) < high
    spread = interval(
        correct, videos, lambda drawn: accuracy_by_position([correct[i] for i in drawn], [i % 10 for i in drawn], [10] * len(drawn)).spread
    )  # fmt: skip
    assert spread == (0.0, 0.0)
    with pytest.raises(ValueError, match="no resample"):
        interval(correct, videos, lambda drawn: None)


def test_what_does_not_fit_is_refused() -> None:
    for wrong in (
        lambda: accuracy_by_position([], [], []),
        lambda: accuracy_by_position([1], [0, 1], [2, 2]),
        lambda: accuracy_by_position([1], [2], [2]),
        lambda: accuracy_by_position([1], [-1], [2]),
        lambda: accuracy_by_position([1], [0], [2], 0),
        lambda: accuracy_by_category([1], []),
        lambda: length_curve([], []),
        lambda: interval([1, 0], ["a"]),
        lambda: interval([1, 0], ["a", "b"], resamples=1),
    ):
        with pytest.raises(ValueError, match=r"needed|needs"):
            wrong()
