"""Poses through the real loading paths, on tiny random models; skeletons."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from modalities.control.detectors import tiny_detectors as tiny
from modalities.control.detectors.tiny_detectors import images
from prefopt.modalities.control.detectors import Poses, find, require_loss
from prefopt.modalities.control.detectors.pose import without_duplicates
from prefopt.modalities.control.detectors.skeleton import COLOURS, LIMBS, draw_people, openpose_keypoints

DETECTORS = ["yolos", "rt_detr"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("pose")
    return {name: getattr(tiny, name)(place / name) for name in (*DETECTORS, "vitpose")}


def standing(x: float = 50, y: float = 10) -> torch.Tensor:
    """A person, 80 pixels tall, in COCO's order; left is on the right of the picture."""
    xy = [
        (0, 5), (2, 3), (-2, 3), (4, 4), (-4, 4), (10, 16), (-10, 16), (14, 28), (-14, 28), (16, 40), (-16, 40),
        (6, 42), (-6, 42), (7, 60), (-7, 60), (8, 78), (-8, 78),
    ]  # fmt: skip
    return torch.tensor([[[x + a, y + b, 0.9] for a, b in xy]])


@pytest.mark.parametrize("name", DETECTORS)
def test_people_are_those_of_the_documented_steps(folders, name):
    """transformers' own example for ViTPose, with the thresholds of the release."""
    import transformers

    given = images()
    found = find(f"pose:{folders[name]}:{folders['vitpose']}").detect(given)
    assert isinstance(found, Poses)
    assert found.size == (48, 64)
    assert sum(map(len, found)) > 0
    arrays = list((given * 255).round().byte().permute(0, 2, 3, 1).numpy())
    boxer = transformers.AutoImageProcessor.from_pretrained(folders[name], backend="pil")
    detector = transformers.AutoModelForObjectDetection.from_pretrained(folders[name]).eval()
    poser = transformers.AutoImageProcessor.from_pretrained(folders["vitpose"], backend="pil")
    model = transformers.VitPoseForPoseEstimation.from_pretrained(folders["vitpose"]).eval()
    for array, people in zip(arrays, found, strict=True):
        with torch.no_grad():
            outputs = detector(**boxer([array], return_tensors="pt"))
            result = boxer.post_process_object_detection(outputs, threshold=0.2, target_sizes=[(48, 64)])[0]
            boxes = without_duplicates(
                result["boxes"][result["labels"] == 0], result["scores"][result["labels"] == 0]
            )
            boxes[:, 2:] -= boxes[:, :2]
            pixels = poser([array], boxes=[boxes.numpy()], return_tensors="pt")["pixel_values"]
            poses = poser.post_process_pose_estimation(model(pixels.float()), boxes=[boxes.numpy()])[0]
        kept = [p for p in poses if (p["scores"] > 0.5).any()]
        assert len(people) == len(kept)
        for person, pose in zip(people, kept, strict=True):
            sure = pose["scores"] > 0.5
            assert torch.equal(person[:, 2] > 0, sure)
            torch.testing.assert_close(person[sure, :2], pose["keypoints"][sure].float(), atol=1e-3, rtol=0)
            assert not person[~sure].any()


def test_each_image_has_its_own_boxes(folders):
    detector = find(f"pose:{folders['rt_detr']}:{folders['vitpose']}")
    given = images(4)
    whole = detector.detect(given)
    for i in range(4):
        torch.testing.assert_close(detector.detect(given[i : i + 1])[0], whole[i], atol=1e-3, rtol=0)
    assert any(a.shape != b.shape or not torch.allclose(a, b, atol=1) for a, b in pairwise(whole))
    agreement = detector.agreement(whole, whole)
    assert agreement.tolist() == pytest.approx([1] * 4)
    assert detector.agreement(whole, Poses([x[:0] for x in whole], whole.size)).tolist() == [0] * 4


def test_only_people_count(tmp_path, folders):
    dogs = tiny.yolos(
        tmp_path / "dogs", labels=("dog", "person")
    )  # the same weights, which find the first kind
    found = find(f"pose:{dogs}:{folders['vitpose']}").detect(images())
    assert [tuple(x.shape) for x in found] == [(0, 17, 3)] * 3
    with pytest.raises(ValueError, match="class person"):
        find(f"pose:{tiny.yolos(tmp_path / 'cats', labels=('cat', 'dog'))}:{folders['vitpose']}")


def test_people_without_a_keypoint_are_dropped(folders, monkeypatch):
    detector = find(f"pose:{folders['rt_detr']}:{folders['vitpose']}")
    sure = sorted(float(person[:, 2].max()) for people in detector.detect(images()) for person in people)
    middle = sure[len(sure) // 2]
    monkeypatch.setattr("prefopt.modalities.control.detectors.pose.LEAST_KEYPOINT", middle)
    found = detector.detect(images())
    assert 0 < sum(map(len, found)) == sum(value > middle for value in sure) < len(sure)
    assert all((people[..., 2] > 0).any(-1).all() for people in found)


def test_experts_are_asked_as_for_coco(tmp_path, folders):
    plus = tiny.vitpose(tmp_path / "plus", experts=3)
    assert sum(map(len, find(f"pose:{folders['rt_detr']}:{plus}").detect(images()))) > 0


def test_other_models_are_refused(tmp_path, folders):
    with pytest.raises(ValueError, match="finds 5 keypoints"):
        find(f"pose:{folders['yolos']}:{tiny.vitpose(tmp_path / 'five', keypoints=5)}")
    with pytest.raises(ValueError, match="no model for poses"):
        find(f"pose:{folders['yolos']}:{folders['yolos']}")
    with pytest.raises(ValueError, match="no model for detecting objects"):
        find(f"pose:{folders['vitpose']}:{folders['vitpose']}")


def test_drawn_poses_cannot_be_read_and_have_no_loss(folders):
    detector = find(f"pose:{folders['yolos']}:{folders['vitpose']}")
    with pytest.raises(ValueError, match="keep them beside the control images"):
        detector.read(images())
    with pytest.raises(ValueError, match="has no loss"):
        require_loss(detector)
    with pytest.raises(ValueError, match=r"Poses\(people, size="):
        detector.draw([standing()])


def test_duplicates_go_and_neighbours_stay():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10.5], [0, 0, 10, 8], [20, 0, 30, 10.0]])
    kept = without_duplicates(boxes, torch.tensor([0.5, 0.9, 0.4, 0.6]))
    assert kept.tolist() == boxes[[1, 3, 2]].tolist()
    assert without_duplicates(boxes[:0], torch.zeros(0)).shape == (0, 4)


# -- skeletons -----------------------------------------------------------------------------------------------


def test_the_neck_is_the_mean_of_the_shoulders():
    person = standing()
    points = openpose_keypoints(person)
    assert points.shape == (1, 18, 3)
    assert points[0, 1].tolist() == pytest.approx([50, 26, 0.9])
    # right before left, from the shoulders on; eyes and ears at the end
    order = [0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
    assert torch.equal(points[0, [0, *range(2, 18)]], person[0, order])
    person[0, 5] = 0
    assert openpose_keypoints(person)[0, 1].tolist() == [0, 0, 0]


def test_a_drawn_person():
    picture = draw_people(standing(), (100, 100))
    assert picture.shape == (3, 100, 100)
    assert len(LIMBS) == 17
    assert COLOURS[:4] == ((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0))
    nose = (picture[:, 15, 50] * 255).round().tolist()
    assert nose == [255, 0, 0]
    # half way down the right forearm, which is the fourth limb: darker than keypoints
    middle = (picture[:, 44, 35] * 255).round().tolist()
    assert middle == [int(0.6 * level) for level in COLOURS[3]]
    lit = picture.amax(0) > 0
    assert 0.01 < lit.float().mean() < 0.1
    assert not lit[:, :30].any()
    hidden = standing()
    hidden[0, 10] = 0  # without the right wrist that limb goes
    assert not draw_people(hidden, (100, 100))[:, 44, 35].any()
    assert not draw_people(standing()[:0], (20, 20)).any()


def test_lines_grow_with_the_picture():
    small, large = (
        draw_people(standing(), (100, 100)),
        draw_people(standing() * torch.tensor([8, 8, 1]), (800, 800)),
    )
    shares = [float((x.amax(0) > 0).float().mean()) for x in (small, large)]
    assert shares[1] == pytest.approx(shares[0], rel=0.5)


def test_poses_keep_their_size_when_cut(folders):
    poses = Poses([standing(), standing()[:0], standing(70)], (100, 100))
    assert poses[1:].size == (100, 100)
    drawn = find(f"pose:{folders['yolos']}:{folders['vitpose']}").draw(poses)
    assert drawn.shape == (3, 3, 100, 100)
    assert np.array_equal(drawn.amax((1, 2, 3)).tolist(), [1, 0, 1])
