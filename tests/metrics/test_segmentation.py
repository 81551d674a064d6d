"""Class maps, against the golden values and torchmetrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from prefopt.metrics.segmentation import Confusion, image_iou

GOLDEN = {
    c["name"]: c for c in json.loads((Path(__file__).parents[1] / "data/condition_po.json").read_text())
}


def maps(
    seed: int, classes: int = 5, ignored: float = 0.1, shape: tuple[int, ...] = (4, 9, 7)
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(classes, shape, generator=generator)
    return ids.masked_fill(torch.rand(shape, generator=generator) < ignored, 255)


def test_golden_values():
    case = GOLDEN["metric_miou"]
    true, found = (torch.tensor(case["inputs"][key]) for key in ("label", "prediction"))
    confusion = Confusion(case["inputs"]["num_classes"])
    for a, b in zip(true, found, strict=True):  # image by image: a set adds up
        confusion.add(a, b)
    assert confusion.counts_KK.tolist() == case["expected"]["confusion"]
    assert confusion.iou_K().tolist() == pytest.approx(case["expected"]["iou"], abs=1e-10)
    assert confusion.mean_iou() == pytest.approx(case["expected"]["miou"], abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_as_torchmetrics(seed):
    true, found = maps(seed), maps(seed + 10, ignored=0)
    confusion = Confusion(5)
    confusion.add(true, found)
    theirs = MulticlassJaccardIndex(5, average="none", ignore_index=255)(found, true)
    assert confusion.iou_K().tolist() == pytest.approx(theirs.tolist(), abs=1e-6)
    accuracy = (found == true)[true != 255].double().mean()
    assert confusion.pixel_accuracy() == pytest.approx(float(accuracy), abs=1e-12)


def test_classes_that_are_nowhere_do_not_count():
    few, many = Confusion(3), Confusion(200)
    for confusion in (few, many):
        confusion.add(torch.tensor([0, 0, 2]), torch.tensor([0, 2, 2]))
    assert few.mean_iou() == many.mean_iou() == 0.5
    assert int(many.iou_K().isnan().sum()) == 198


def test_the_iou_of_a_set_is_not_the_mean_of_its_images():
    true, found = (
        torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 1]]]),
        torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 1]]]),
    )
    confusion = Confusion(2)
    confusion.add(true, found)
    assert confusion.mean_iou() == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert image_iou(true, found).tolist() == pytest.approx([(3 / 4 + 0) / 2, 1])


def test_a_label_for_which_nothing_was_found_is_missed():
    confusion = Confusion(2)
    confusion.add(torch.tensor([0, 0, 1, 255]), torch.tensor([0, 255, 1, 1]))
    assert confusion.iou_K().tolist() == [0.5, 1]
    assert confusion.pixel_accuracy() == pytest.approx(2 / 3)


def test_image_iou_of_any_ids():
    true, found = maps(0, ignored=0.3), maps(1, ignored=0.3)
    slow = []
    for a, b in zip(true, found, strict=True):
        valid = (a != 255) & (b != 255)
        a, b = a[valid], b[valid]
        ids = set(a.tolist()) | set(b.tolist())
        iou = [((a == k) & (b == k)).sum() / ((a == k) | (b == k)).sum() for k in ids]
        slow.append(float(torch.stack(iou).mean()))
    assert image_iou(true, found).tolist() == pytest.approx(slow, abs=1e-6)
    assert image_iou(true, true).tolist() == [1] * 4
    assert image_iou(torch.full((2, 3, 3), 255), true[:2, :3, :3]).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("true", "found", "message"),
    [
        (torch.tensor([0, 3]), torch.tensor([0, 1]), r"true map has the class ids \[3\]"),
        (torch.tensor([0, 1]), torch.tensor([0, -1]), r"found map has the class ids \[-1\]"),
        (torch.tensor([0, 1]), torch.tensor([[0, 1]]), "the same shape"),
        (torch.tensor([0, 1]), torch.tensor([0.0, 1]), "needed integers"),
    ],
)
def test_what_is_no_class_map_is_refused(true, found, message):
    with pytest.raises(ValueError, match=message):
        Confusion(3).add(true, found)


def test_nothing_counted_has_no_score():
    confusion = Confusion(2)
    confusion.add(torch.tensor([255]), torch.tensor([1]))
    for score in (confusion.mean_iou, confusion.pixel_accuracy):
        with pytest.raises(ValueError, match="no pixel with a label"):
            score()
