"""Measures of sets of pictures, against slow ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prefopt.worlds.scene.detector import SceneDetector
from prefopt.worlds.scene.measures import estimate, pooled, sums_of
from prefopt.worlds.scene.task import draw


@pytest.fixture(scope="module")
def maps():
    """True maps, and what is seen where a third of the pictures show something else."""
    true, other = draw(90, "true"), draw(90, "seen")
    swapped = (torch.arange(90) % 3 == 0)[:, None, None]
    return true.classes_BHW, torch.where(swapped, other.classes_BHW, true.classes_BHW)


def test_miou_and_f1_count_pixels_of_the_whole_set(maps):
    true, seen = (x.numpy().ravel() for x in maps)
    confusion = np.bincount(4 * true + seen, minlength=16).reshape(4, 4)
    hits = confusion.diagonal()
    miou = (hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean()
    assert estimate(sums_of(SceneDetector("mask"), maps[1], maps[0])).mean == pytest.approx(miou, abs=1e-9)
    edges = SceneDetector("edges")
    there, found = (edges.labels(x) for x in maps)
    precision, recall = (there & found).sum() / found.sum(), (there & found).sum() / there.sum()
    f1 = (2 * precision * recall / (precision + recall)).item()
    assert estimate(sums_of(edges, found, there)).mean == pytest.approx(f1, abs=1e-6)


def test_a_class_that_is_nowhere_does_not_count():
    one = torch.zeros(4, 16, 16, dtype=torch.long)
    other = one.clone()
    other[:, :8] = 1
    # ground: half of the union; red: none; green and blue are in neither
    assert estimate(sums_of(SceneDetector("mask"), other, one)).mean == pytest.approx(0.25)


def test_rmse_is_the_mean_over_pictures_in_levels():
    near = torch.zeros(2, 16, 16)
    near[1] = 0.5
    assert estimate(sums_of(SceneDetector("depth"), near, torch.zeros(2, 16, 16))).mean == pytest.approx(
        127.5 / 2
    )


def test_the_interval_is_the_bootstraps(maps):
    true, seen = maps
    sums = sums_of(SceneDetector("mask"), seen, true)
    found = estimate(sums)
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(3000):
        drawn = sums.parts_BX[torch.from_numpy(rng.integers(90, size=90))]
        resampled.append(sums.measure(drawn.sum(0, keepdim=True)).item())
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert found.low < found.mean < found.high
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.015)
    assert estimate(sums_of(SceneDetector("mask"), seen, true)) == found


def test_pooled_pixels_are_means_of_patches():
    images = draw(3, "pooled").images_BCHW
    patch = 2 * images[1, 2, 4:8, 12:16].mean() - 1
    assert pooled(images).shape == (3, 48)
    assert pooled(images)[1, 2 * 16 + 1 * 4 + 3] == pytest.approx(patch.item(), abs=1e-6)
