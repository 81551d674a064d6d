"""Fidelity of a set, by each metric."""

from __future__ import annotations

import pytest
import torch

from prefopt.metrics.similarity import multi_scale_ssim, ssim
from prefopt.modalities.control.detectors import HEADLINE, Poses, fidelity
from prefopt.modalities.control.detectors.base import METRICS

MAPS = torch.rand(4, 24, 20, generator=torch.Generator().manual_seed(0))
PEOPLE = torch.cat([MAPS.flatten()[: 2 * 17 * 2].view(2, 17, 2) * 100, torch.full((2, 17, 1), 0.8)], -1)


def test_class_maps_over_the_whole_set():
    true = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 255]]])
    found = torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 2]]])
    scores = fidelity("miou", true, found)
    assert scores == pytest.approx({"miou": (3 / 4 + 3 / 4) / 2, "pixel_accuracy": 6 / 7})
    # images of different sizes, as a list
    assert fidelity("miou", [true[0], true[1, :, :2]], [found[0], found[1, :, :2]])["miou"] == pytest.approx(
        (3 / 4 + 2 / 3) / 2
    )


def test_edges_over_the_whole_set():
    true, found = (MAPS > 0.7).float(), (MAPS.flip(0) > 0.5).float()
    scores = fidelity("edge_f1", true, found)
    tp = (true * found).sum()
    assert scores["edge_f1"] == pytest.approx(float(2 * tp / (true.sum() + found.sum())))
    assert scores["precision"] == pytest.approx(float(tp / found.sum()))
    assert scores["recall"] == pytest.approx(float(tp / true.sum()))


def test_similarity_is_the_mean_over_images():
    assert fidelity("ssim", MAPS, MAPS.flip(0)) == pytest.approx(
        {"ssim": float(ssim(MAPS, MAPS.flip(0)).mean())}
    )
    large = torch.rand(1, 180, 180, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(large, 3, 1, 1)
    assert fidelity("ssim", large, blurred)["ssim"] == pytest.approx(float(multi_scale_ssim(large, blurred)))


def test_depth_is_in_levels_and_the_mean_over_images():
    true = torch.zeros(2, 6, 6)
    found = torch.stack([torch.full((6, 6), 0.1), torch.full((6, 6), 0.3)])
    assert fidelity("rmse", true, found) == pytest.approx({"rmse": 255 * 0.2})


def test_poses():
    true = Poses([PEOPLE, PEOPLE[:1]], (100, 100))
    assert fidelity("pose", true, true) == pytest.approx({"keypoint_ap": 1, "pose_hit_rate": 1})
    scores = fidelity("pose", true, Poses([PEOPLE[:1], PEOPLE[:0]], (100, 100)))
    assert scores["pose_hit_rate"] == pytest.approx(1 / 3)
    assert scores["keypoint_ap"] == pytest.approx(34 / 101)  # recalls 0 to 0.33, at precision 1


def test_what_tables_show_is_there():
    labels = {"miou": torch.ones(1, 2, 2).long(), "pose": Poses([PEOPLE], (9, 9))}
    assert set(HEADLINE) == set(METRICS)
    for metric, (key, higher) in HEADLINE.items():
        given = labels.get(metric, MAPS)
        assert fidelity(metric, given, given)[key] == (1 if higher else 0)


@pytest.mark.parametrize(
    ("metric", "true", "found", "message"),
    [
        ("psnr", MAPS, MAPS, "not one of: miou"),
        ("ssim", MAPS, MAPS[:2], "4 true and 2 found"),
        ("ssim", MAPS[:0], MAPS[:0], "at least one"),
        ("rmse", MAPS, MAPS[:, :9], "maps of one size"),
        ("miou", MAPS, MAPS, "needed integers"),
        ("miou", torch.full((1, 2, 2), 255), torch.zeros(1, 2, 2).long(), "no pixel with a label"),
    ],
)
def test_sets_that_cannot_be_compared(metric, true, found, message):
    with pytest.raises(ValueError, match=message):
        fidelity(metric, true, found)
