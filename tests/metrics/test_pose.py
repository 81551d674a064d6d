"""Poses, against the golden values and pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from prefopt.metrics.pose import (
    COCO_SIGMAS,
    THRESHOLDS,
    agreeing_similarity,
    keypoint_ap,
    keypoint_similarity,
    person_area,
    pose_agreement,
    pose_hit_rate,
)

GOLDEN = {
    c["name"]: c for c in json.loads((Path(__file__).parents[1] / "data/condition_po.json").read_text())
}
NOBODY = torch.zeros(0, 17, 3)


def people(rng: np.random.Generator, count: int) -> torch.Tensor:
    """People of different sizes, of whom some keypoints are hidden."""
    size = rng.uniform(20, 120, (count, 1, 1))
    xy = rng.uniform(0, 300, (count, 1, 2)) + size * rng.uniform(0, 1, (count, 17, 2))
    seen = rng.random((count, 17, 1)) < 0.8
    return torch.tensor(np.concatenate([xy, np.ones((count, 17, 1))], -1) * seen)


def found_from(rng: np.random.Generator, true: torch.Tensor) -> torch.Tensor:
    """Most of the people, more or less displaced; some twice, and some that are not there."""
    kept = [person for person in true for _ in range(rng.choice([0, 1, 2], p=[0.2, 0.7, 0.1]))]
    kept += list(people(rng, int(rng.integers(3))))
    if not kept:
        return NOBODY
    found = torch.stack(kept).clone()
    found[..., :2] += torch.tensor(rng.normal(0, rng.choice([0.5, 2, 6]), found[..., :2].shape))
    found[..., 2] *= torch.tensor(rng.uniform(0.5, 1, found.shape[:2]))
    return found


def pycocotools_ap(true, found, areas, scores) -> float:
    """COCO's own account of the same people."""
    images = [{"id": i + 1} for i in range(len(true))]
    annotations, results = [], []
    for i, (persons, area) in enumerate(zip(true, areas, strict=True)):
        for person, a in zip(persons, area, strict=True):
            keypoints = person.clone()
            keypoints[:, 2] = (keypoints[:, 2] > 0) * 2
            box = [0, 0, 1, 1]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0, "area": float(a),
                 "bbox": box, "num_keypoints": int((person[:, 2] > 0).sum()), "keypoints": keypoints.flatten().tolist()}
            )  # fmt: skip
    for i, (persons, score) in enumerate(zip(found, scores, strict=True)):
        for person, s in zip(persons, score, strict=True):
            results.append(
                {
                    "image_id": i + 1,
                    "category_id": 1,
                    "score": float(s),
                    "keypoints": person.flatten().tolist(),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(results), "keypoints")
        judged.params.areaRng, judged.params.areaRngLbl = [[0, 1e10]], ["all"]
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"]
    return float(precision[precision > -1].mean())


def test_golden_similarity():
    case = GOLDEN["metric_oks"]
    given, expected = case["inputs"], case["expected"]
    seen = torch.tensor(given["visible"], dtype=torch.float64)[:, None]
    true, found = (
        torch.cat([torch.tensor(given[key], dtype=torch.float64), seen], -1)[None]
        for key in ("gt_xy", "pred_xy")
    )
    area = torch.tensor([given["area"]])
    assert pytest.approx(given["sigmas"]) == COCO_SIGMAS
    oks = keypoint_similarity(true, found, area)
    assert oks.item() == pytest.approx(expected["oks"], abs=1e-8)  # the area is single precision here
    oks = keypoint_similarity(
        true, found, area.new_tensor([given["area"]], dtype=torch.float64), given["sigmas"]
    )
    assert oks.item() == pytest.approx(expected["oks"], abs=1e-10)
    assert [oks.item() >= t for t in THRESHOLDS] == expected["per_threshold_hit"]
    assert keypoint_ap([true], [found], [area]) == pytest.approx(sum(expected["per_threshold_hit"]) / 10)
    assert pose_hit_rate([true], [found], [area]) == pytest.approx(sum(expected["per_threshold_hit"]) / 10)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_as_pycocotools(seed):
    rng = np.random.default_rng(seed)
    true = [people(rng, int(rng.integers(5))) for _ in range(12)]
    found = [found_from(rng, persons) for persons in true]
    areas = [person_area(persons) for persons in true]
    scores = [torch.tensor(rng.random(len(persons))) for persons in found]
    ours = keypoint_ap(true, found, areas, scores)
    assert 0.1 < ours < 0.95
    assert ours == pytest.approx(pycocotools_ap(true, found, areas, scores), abs=1e-6)


def test_only_twenty_people_of_an_image_count():
    rng = np.random.default_rng(0)
    true = people(rng, 1)
    crowd = torch.cat([people(rng, 20), true])
    sure = torch.linspace(1, 0.1, 21)
    assert keypoint_ap([true], [crowd], scores=[sure]) == 0
    assert keypoint_ap([true], [crowd[1:]], scores=[sure[1:]]) == pytest.approx(1 / 20, abs=0.01)


def test_people_are_ranked_by_how_sure_their_keypoints_are():
    true, others = people(np.random.default_rng(1), 1), people(np.random.default_rng(2), 1)
    others[..., 2] *= 0.6
    assert keypoint_ap([true], [torch.cat([others, true])]) == 1
    true_unsure = true * torch.tensor([1, 1, 0.5])
    assert keypoint_ap([true], [torch.cat([others, true_unsure])]) == pytest.approx(0.5)


def test_nobody_is_found_or_there():
    one = people(np.random.default_rng(0), 1)
    assert keypoint_ap([one, NOBODY], [NOBODY, NOBODY]) == 0 == pose_hit_rate([one], [NOBODY])
    for score in (keypoint_ap, pose_hit_rate):
        with pytest.raises(ValueError, match="no true person"):
            score([NOBODY], [one])
        with pytest.raises(ValueError, match="as many of each"):
            score([one], [])
    # someone of whom nothing is seen does not count
    assert (
        keypoint_ap([torch.cat([one, one * 0])], [one])
        == 1
        == pose_hit_rate([torch.cat([one, one * 0])], [one])
    )


def test_the_hit_rate_of_the_release_forgives_what_is_missed():
    true = people(np.random.default_rng(3), 2)
    half = true.clone()
    half[:, ::2] = 0
    assert pose_hit_rate([true], [half]) == 1
    assert keypoint_ap([true], [half]) < 0.2
    # and people too many
    assert pose_hit_rate([true], [torch.cat([true, true + 500])]) == 1
    assert agreeing_similarity(true, true * 0, person_area(true)).tolist() == [[0, 0], [0, 0]]


def test_agreement_of_two_pictures():
    a = people(np.random.default_rng(4), 3)
    assert pose_agreement(a, a.flip(0)) == pytest.approx(1)
    assert pose_agreement(a, a[:1]) == pytest.approx(1 / 3)
    assert pose_agreement(a[:1], a) == pytest.approx(1 / 3)
    assert pose_agreement(NOBODY, a[:1] * 0) == 1
    assert pose_agreement(NOBODY, a) == pose_agreement(a, NOBODY) == 0
    assert 0 < pose_agreement(a, a + torch.tensor([2.0, 2.0, 0])) < 1


def test_areas():
    person = torch.zeros(2, 17, 3)
    person[0, 0], person[0, 5], person[0, 3] = (
        torch.tensor(x) for x in ([2.0, 3, 1], [12.0, 23, 0.5], [500.0, 500, 0])
    )
    assert person_area(person).tolist() == [200, 1]
    assert person_area(NOBODY).shape == (0,)


@pytest.mark.parametrize(
    ("area", "shape", "message"), [([1.0], (2, 17, 3), "areas"), ([1.0, 0], (2, 17, 3), "areas"), ([1.0], (1, 18, 3), "17, 3")]
)  # fmt: skip
def test_other_shapes_are_refused(area, shape, message):
    with pytest.raises(ValueError, match=message):
        keypoint_similarity(torch.ones(shape), torch.ones(1, 17, 3), torch.tensor(area))
