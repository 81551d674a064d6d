"""Detectors by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modalities.control.detectors import tiny_detectors as tiny
from prefopt.modalities.control.detectors import FORMS, find, require_loss

DETECTOR = """
import torch

class Redness:
    name, metric = "redness", "rmse"
    def detect(self, images):
        return images[:, 0]
    def draw(self, labels):
        return labels[:, None].expand(-1, 3, -1, -1)
    def read(self, conditions):
        return conditions.mean(1)
    def agreement(self, a, b):
        return 1 - (a - b).abs().mean((1, 2))
    def loss(self, images, labels):
        return (images[:, 0] - labels).square().mean((1, 2))

def made():
    return Redness()

def broken():
    raise RuntimeError("no weights")

ready = Redness()
number = 3
unknown = Redness()
unknown.metric = "psnr"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(DETECTOR)
    return path


@pytest.mark.parametrize("name", ["Redness", "made", "ready"])
def test_a_detector_of_your_own(file, name):
    detector = require_loss(find(f"{file}:{name}"))
    assert detector.name == "redness"
    assert detector.detect(torch.ones(1, 3, 4, 4)).shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "has no object 'other'"),
        ("number", "without name, metric, detect, draw, read, agreement"),
        ("broken", "cannot be called without arguments: RuntimeError: no weights"),
        ("unknown", "the metric 'psnr'; needed one of: miou, edge_f1, ssim, rmse, pose"),
    ],
)
def test_what_is_no_detector_is_refused(file, name, message):
    with pytest.raises(ValueError, match=message):
        find(f"{file}:{name}")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*which the detector"):
        find(f"{tmp_path}/none.py:made")
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(ValueError, match="cannot be run: ZeroDivisionError"):
        find(f"{tmp_path}/bad.py:made")


def test_a_world_has_one_to_train_on_and_one_to_judge_by():
    assert [find(f"world:scene{end}").independent for end in ("", ":independent")] == [False, True]
    with pytest.raises(ValueError, match="a world has two detectors"):
        find("world:scene:other")


def test_a_world_without_one():
    with pytest.raises(ValueError, match="the world picture has no detector"):
        find("world:picture")
    with pytest.raises(ValueError, match="no world is called 'mars'"):
        find("world:mars")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sobel", "no detector is called 'sobel'; there are: canny or canny:LOW,HIGH"),
        ("", "no detector is called ''"),
        ("segmentation", "write segmentation:DIR or"),
        ("segmentation:", "write segmentation:DIR or"),
        ("depth:a:b", "write depth:DIR"),
        ("pose:a", "write pose:DETECTOR:DIR"),
        ("world", "write world:NAME"),
        ("hed", "weights are pickles"),
        ("lineart:somewhere", "FILE.py:NAME"),
    ],
)
def test_what_cannot_be_meant(spec, message):
    with pytest.raises(ValueError, match=message):
        find(spec)


@pytest.mark.parametrize("spec", ["segmentation:./none", "depth:./none", "pose:./none:./none"])
def test_folders_that_are_not_there(spec):
    with pytest.raises(FileNotFoundError, match=r"no model folder at \./none"):
        find(spec)


def test_models_of_other_kinds_are_refused(tmp_path):
    depth, segmentation = tiny.dpt(tmp_path / "depth"), tiny.segformer(tmp_path / "seg")
    with pytest.raises(ValueError, match=r"SegformerForSemanticSegmentation, which is no model for depth"):
        find(f"depth:{segmentation}")
    with pytest.raises(ValueError, match=r"no model for segmentation"):
        find(f"segmentation:{tiny.yolos(tmp_path / 'yolos')}")
    # DPT has a class for segmentation, but these weights are not its own
    with pytest.raises(ValueError, match=r"missing|no place|shape"):
        find(f"segmentation:{depth}").detect(tiny.images())


def test_finding_loads_no_weights(tmp_path):
    folder = tiny.segformer(tmp_path / "seg")
    (folder / "model.safetensors").write_bytes(b"damaged")
    detector = find(f"segmentation:{folder}")
    assert detector.draw(torch.zeros(1, 4, 4, dtype=torch.int64)).shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match="damaged"):
        detector.detect(tiny.images())


def test_every_form_is_on_the_page():
    page = (Path(__file__).parents[4] / "docs" / "control.md").read_text("utf-8")
    for form in FORMS.values():
        for name in form.split(" (")[0].split(" or "):
            assert f"`{name}`" in page
