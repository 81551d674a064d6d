"""Two answers to two images, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from prefopt.metrics.two_images import chosen_drift, image_sensitivity, margin_gap, swap_accuracy


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_both_images_have_to_be_right():
    found = swap_accuracy(
        at(-1, -1, -3, -2), at(-2, -2, -2, -2), at(-1, -3, -1, -1), at(-2, -2, -2, -2)
    )  # both; only m; only m'; a tie on m
    assert found.item() == 0.25


def test_a_model_that_does_not_look_has_no_swap_accuracy():
    w, c = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    assert swap_accuracy(w, c, c, w).item() == 0
    assert image_sensitivity(w, w).item() == 0


def test_means_in_nats():
    assert image_sensitivity(at(-1, -4), at(-3, -3)).item() == 0.5
    assert margin_gap(at(1, -2), at(4, 2)).item() == 3.5
    assert chosen_drift(at(-5, -1), at(-2, -2)).item() == -1


def test_half_precision_is_widened():
    assert image_sensitivity(at(2048.0, 0).half(), at(2047.0, 0).half()).dtype == torch.float64
    assert margin_gap(at(60000.0).half(), at(-60000.0).half()).item() == 120000


@pytest.mark.parametrize("measure", [image_sensitivity, margin_gap, chosen_drift])
def test_wrong_values(measure):
    with pytest.raises(ValueError, match=r"needed \(N,\) of each"):
        measure(at(1), at(1, 2))
    with pytest.raises(ValueError, match=r"needed \(N,\) of each"):
        measure(at(), at())
    with pytest.raises(ValueError, match="the value of example 1 is nan"):
        measure(at(1, math.nan), at(1, 2))
    with pytest.raises(ValueError, match="the value of example 0 is -inf"):
        measure(at(1), at(-math.inf))
