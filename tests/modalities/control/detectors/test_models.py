"""Segmentation and depth through the real loading paths, on tiny random models, against transformers' own numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modalities.control.detectors import tiny_detectors as tiny
from modalities.control.detectors.tiny_detectors import CLASSES, images
from prefopt.modalities.control.detectors import find, require_loss
from prefopt.modalities.control.detectors.maps import stretched
from prefopt.modalities.control.detectors.preparing import Preparation

SEGMENTATION = ["segformer", "upernet", "mask2former", "maskformer"]
DEPTH = ["dpt", "depth_anything"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("detectors")
    return {name: getattr(tiny, name)(place / name) for name in SEGMENTATION + DEPTH}


def spec(folders: dict[str, Path], name: str) -> str:
    return f"{'segmentation' if name in SEGMENTATION else 'depth'}:{folders[name]}"


@pytest.fixture(scope="module")
def detectors(folders: dict[str, Path]) -> dict[str, Any]:
    """One of each, whose weights are loaded once."""
    return {name: find(spec(folders, name)) for name in folders}


def arrays(images_BCHW: Tensor) -> list[np.ndarray]:
    return list((images_BCHW * 255).round().byte().permute(0, 2, 3, 1).numpy())


def theirs(folder: Path, given: Tensor) -> tuple[Any, Any]:
    """The checkpoint's processor and its model's outputs, as transformers' documentation has it."""
    import transformers
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, name).from_pretrained(folder).eval()
    with torch.no_grad():
        return processor, model(processor(arrays(given), return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize("name", SEGMENTATION)
@pytest.mark.parametrize("size", [(48, 64), (33, 20)])
def test_classes_are_those_of_the_processor(folders, detectors, name, size):
    given = images(3, *size)
    processor, outputs = theirs(folders[name], given)
    expected = torch.stack(processor.post_process_semantic_segmentation(outputs, [size] * 3))
    found = detectors[name].detect(given)
    assert found.shape == (3, *size)
    assert found.dtype == torch.int64
    assert len(found.unique()) > 1
    # pixels differ by a level of 255 where a sum lies halfway between two
    assert (found == expected).float().mean() > 0.99


@pytest.mark.parametrize("name", DEPTH)
def test_depth_is_that_of_the_processor(folders, detectors, name):
    given = images()
    processor, outputs = theirs(folders[name], given)
    found = detectors[name].detect(given)
    assert found.amin((1, 2)).tolist() == [0] * 3
    assert found.amax((1, 2)).tolist() == [1] * 3
    for i, raw in enumerate(processor.post_process_depth_estimation(outputs, [(48, 64)] * 3)):
        depth = raw["predicted_depth"]
        scaled = (depth - depth.min()) / (depth.max() - depth.min())
        assert (found[i] - scaled).abs().max() < 0.02


@pytest.mark.parametrize("name", SEGMENTATION + DEPTH)
def test_what_is_drawn_is_read_again(detectors, name):
    detector = detectors[name]
    labels = detector.detect(images())
    read = detector.read(detector.draw(labels))
    torch.testing.assert_close(read, labels, atol=1e-6, rtol=0)
    assert detector.agreement(labels, read).tolist() == pytest.approx([1] * 3)
    assert (detector.agreement(labels, labels.flip(2)) < 0.99).any()


@pytest.mark.parametrize("name", SEGMENTATION + DEPTH)
def test_a_detection_depends_on_nothing_but_its_image(folders, detectors, name):
    """Not on the images beside it, nor on what was drawn or trained before; and it has no gradient."""
    detector = detectors[name]
    given = images(3).requires_grad_()
    whole = detector.detect(given)
    torch.manual_seed(1)
    alone = torch.cat([detector.detect(given[i : i + 1]) for i in (2, 1, 0)]).flip(0)
    if whole.is_floating_point():
        torch.testing.assert_close(alone, whole, atol=1e-4, rtol=0)
    else:
        assert (alone == whole).float().mean() > 0.999
    assert not whole.requires_grad
    assert torch.equal(find(spec(folders, name)).detect(given), whole)
    assert detector.detect(given[:0]).shape == (0, 48, 64)


@pytest.mark.parametrize("name", SEGMENTATION + DEPTH)
def test_the_loss_is_of_each_image_and_leads_to_its_label(detectors, name):
    detector = require_loss(detectors[name])
    given, label = images(3), detector.detect(images(3).flip(3))
    loss = detector.loss(given, label)
    assert loss.shape == (3,)
    alone = [detector.loss(given[i : i + 1], label[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), loss, atol=1e-4, rtol=1e-3)
    x = given.clone()
    for _ in range(10):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(detector.loss(x, label).sum(), x)
        assert gradient.isfinite().all()
        x = (x - 0.01 * gradient.sign()).clamp(0, 1).detach()
    assert detector.loss(x, label).sum() < loss.sum()
    assert not any(p.requires_grad or p.grad is not None for p in detector._model.parameters())


@pytest.mark.parametrize("name", SEGMENTATION + DEPTH)
def test_the_loss_is_in_single_precision(detectors, name):
    detector = require_loss(detectors[name])
    given, label = images(2), detector.detect(images(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = detector.loss(given, label)
        found = detector.detect(given)
    assert half.dtype == torch.float32
    assert torch.equal(half, detector.loss(given, label))
    assert torch.equal(found, detector.detect(given))


def test_cross_entropy_of_labelled_pixels(folders, detectors):
    detector = require_loss(detectors["segformer"])
    given, label = images(2), detector.detect(images(2).flip(2))
    label[0, :20] = 255
    _, outputs = theirs(folders["segformer"], given)
    logits = torch.nn.functional.interpolate(outputs.logits, (48, 64), mode="bilinear", align_corners=False)
    expected = [
        torch.nn.functional.cross_entropy(logits[i : i + 1], label[i : i + 1], ignore_index=255)
        for i in (0, 1)
    ]
    torch.testing.assert_close(detector.loss(given, label), torch.stack(expected), atol=2e-3, rtol=0)
    # without any label there is nothing to learn, and no NaN
    x = images(2).requires_grad_()
    loss = detector.loss(x, torch.full_like(label, 255))
    loss.sum().backward()
    assert loss.tolist() == [0, 0]
    assert x.grad is not None
    assert not x.grad.any()
    for wrong in (CLASSES, -1):
        with pytest.raises(ValueError, match="class ids"):
            detector.loss(given, torch.full_like(label, wrong))


def test_depth_of_flat_maps_is_nothing(folders, monkeypatch):
    detector = require_loss(find(spec(folders, "dpt")))
    model = detector._model

    class Flat:
        def __call__(self, pixel_values: Tensor) -> Any:
            output = model(pixel_values=pixel_values)
            output.predicted_depth = output.predicted_depth * 0 + 7
            return output

    monkeypatch.setattr(detector, "_model", Flat())
    x = images(2).requires_grad_()
    assert not detector.detect(x).any()
    loss = detector.loss(x, torch.zeros(2, 48, 64))
    loss.sum().backward()
    assert loss.tolist() == [0, 0]
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_each_map_is_stretched_by_itself():
    maps = torch.stack([torch.linspace(3, 5, 6).view(2, 3), torch.full((2, 3), 4.0), torch.zeros(2, 3)])
    maps.requires_grad_()
    stretched_maps = stretched(maps)
    stretched_maps.square().sum().backward()
    torch.testing.assert_close(stretched_maps[0].flatten(), torch.linspace(0, 1, 6))
    assert not stretched_maps[1:].any()
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert not maps.grad[1:].any()


def test_the_loss_of_depth_does_not_depend_on_the_labels_scale(detectors):
    detector = detectors["dpt"]
    label = detector.detect(images())
    assert detector.loss(images(), label).tolist() == pytest.approx([0] * 3, abs=1e-6)
    torch.testing.assert_close(
        detector.loss(images(), 0.5 * label.flip(1)), detector.loss(images(), label.flip(1))
    )


def test_a_palette_by_name(folders, tmp_path):
    file = tmp_path / "palette.json"
    colours = [[10 * i, 7, 255 - i] for i in range(CLASSES)]
    file.write_text(json.dumps(colours))
    detector = find(f"segmentation:{folders['segformer']}:{file}")
    label = detector.detect(images())
    drawn = (detector.draw(label) * 255).round()
    assert drawn[0, :, 0, 0].tolist() == colours[label[0, 0, 0]]
    assert torch.equal(detector.read(drawn / 255), label)


# -- preprocessing -------------------------------------------------------------------------------------------


def segformer_processor(**values: Any) -> Any:
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    return SegformerImageProcessorPil(**{"size": {"height": 32, "width": 32}, **values})


def beit_processor(**values: Any) -> Any:
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

    return BeitImageProcessorPil(**values)


def glpn_processor() -> Any:
    from transformers.models.glpn.image_processing_pil_glpn import GLPNImageProcessorPil

    return GLPNImageProcessorPil()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resample": 0}, "filter 0"),
        ({"do_rescale": False}, "does more than resizing"),
        ({"rescale_factor": 1 / 127.5}, "does more than resizing"),
        (
            {"do_center_crop": True, "crop_size": {"height": 9, "width": 9}},
            r"sizes \(3, 9, 9\), against \(3, 32, 32\)",
        ),
    ],
)
def test_preprocessing_that_is_not_known_is_refused(tmp_path, values, message):
    segformer_processor(**values).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        Preparation(str(tmp_path))(images())


@pytest.mark.parametrize(
    "made",
    [
        glpn_processor(),
        segformer_processor(resample=3, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.4, 0.3]),
        segformer_processor(do_resize=False),
        segformer_processor(do_normalize=False),
        beit_processor(
            size={"height": 40, "width": 52}, do_center_crop=True, crop_size={"height": 32, "width": 36}
        ),
    ],
)
def test_preprocessing_is_that_of_the_processor(tmp_path, made):
    made.save_pretrained(tmp_path)
    prepare = Preparation(str(tmp_path))
    std = torch.tensor(made.image_std if getattr(made, "do_normalize", False) else [1.0] * 3)[:, None, None]
    for size in ((48, 64), (70, 44)):
        given = images(2, *size)
        expected = made(arrays(given), return_tensors="pt")["pixel_values"]
        assert ((prepare(given) - expected) * std * 255).abs().max() < 1.01


def test_no_processor(tmp_path):
    folder = tiny.segformer(tmp_path / "model")
    for file in folder.glob("*processor*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no image processor"):
        find(f"segmentation:{folder}").detect(images())
