"""Grey maps, against the golden values and torchmetrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from prefopt.metrics.similarity import LEAST_SIDE, depth_rmse, multi_scale_ssim, ssim, structural_similarity

GOLDEN = {
    c["name"]: c for c in json.loads((Path(__file__).parents[1] / "data/condition_po.json").read_text())
}


def maps(height: int, width: int, noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth maps in [0, 1], and the same with noise."""
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(3, 1, 5, 5, generator=generator)
    a = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[:, 0]
    strength = noise * torch.tensor([0.1, 1, 3])[:, None, None]
    return a, (a + strength * torch.randn(a.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("size", [(6, 7), (16, 24), (64, 48)])
def test_ssim_as_torchmetrics(size):
    a, b = maps(*size)
    theirs = structural_similarity_index_measure(
        a[:, None].double(), b[:, None].double(), data_range=1.0, reduction="none"
    )
    assert ssim(a, b).tolist() == pytest.approx(theirs.tolist(), abs=1e-7)
    assert ssim(a, a).tolist() == pytest.approx([1] * 3)


@pytest.mark.parametrize("size", [(176, 176), (180, 201)])
def test_multi_scale_as_torchmetrics(size):
    a, b = maps(*size)
    theirs = multiscale_structural_similarity_index_measure(
        a[:, None].double(), b[:, None].double(), data_range=1.0, reduction="none", normalize="relu"
    )
    assert multi_scale_ssim(a, b).tolist() == pytest.approx(theirs.tolist(), abs=1e-7)


def test_opposites_score_nothing_over_several_scales():
    a = torch.rand(1, 176, 176, generator=torch.Generator().manual_seed(0))
    assert ssim(a, 1 - a) < 0
    assert multi_scale_ssim(a, 1 - a) == 0


def test_the_size_says_which():
    assert LEAST_SIDE == 176
    for side, measure in ((175, ssim), (176, multi_scale_ssim)):
        a, b = maps(side, 200)
        assert torch.equal(structural_similarity(a, b), measure(a, b))
    assert not torch.allclose(ssim(a, b), multi_scale_ssim(a, b), atol=1e-3)


def test_golden_depth():
    case = GOLDEN["metric_depth_rmse"]
    true, found = (torch.tensor(case["inputs"][key])[None] for key in ("label", "prediction"))
    assert depth_rmse(true, found).tolist() == pytest.approx([case["expected"]["rmse"]], abs=1e-10)


def test_depth_is_judged_image_by_image():
    a = torch.zeros(2, 4, 4)
    b = torch.stack([torch.full((4, 4), 3.0), torch.full((4, 4), 5.0)])
    assert depth_rmse(a, b).tolist() == [3, 5]


@pytest.mark.parametrize(
    ("measure", "size", "scale", "message"),
    [
        (ssim, (5, 40), 1, "too small for a window of 11"),
        (multi_scale_ssim, (175, 400), 1, "too small for 5 scales"),
        (ssim, (20, 20), 255, r"needed \[0, 1\]"),
        (ssim, (20, 20), float("nan"), r"needed \[0, 1\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(measure, size, scale, message):
    a, b = maps(*size)
    with pytest.raises(ValueError, match=message):
        measure(a * scale, b * scale)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(B, H, W\) twice"):
        depth_rmse(torch.zeros(2, 4, 4), torch.zeros(1, 4, 4))
