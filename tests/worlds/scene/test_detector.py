"""The scene world's detectors: exact on real pictures, different from each other, differentiable, strict about colours."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image

from prefopt.worlds import get_world
from prefopt.worlds.pixels import as_batch, as_png
from prefopt.worlds.scene.detector import SceneDetector, by_hue
from prefopt.worlds.scene.task import COLOURS, draw

KINDS = ("mask", "edges", "depth")


@pytest.fixture(scope="module")
def scenes():
    return draw(1000, "test of the detector")


def labels(scenes, kind, count=1000):
    return {"mask": scenes.classes_BHW, "edges": scenes.edges_BHW, "depth": scenes.depth_BHW}[kind][:count]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("independent", [False, True])
def test_real_pictures_are_read_without_a_mistake(scenes, kind, independent):
    detector = get_world("scene", condition=kind).detector(independent)
    assert detector.name == f"scene-{kind}-{'hue' if independent else 'chroma'}"
    assert detector.metric == {"mask": "miou", "edges": "edge_f1", "depth": "rmse"}[kind]
    seen = detector.detect(scenes.images_BCHW.mul(255).round() / 255)
    assert torch.equal(seen, labels(scenes, kind))
    assert (detector.agreement(seen, labels(scenes, kind)) == 1).all()


def test_the_judge_is_another_function():
    images_BCHW = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, other = (SceneDetector("mask", independent).detect(images_BCHW) for independent in (False, True))
    assert (one != other).float().mean() > 0.1
    # a weak but saturated red in the dark is red to the judge alone; a strong pale one to the training detector alone
    dark, pale = (torch.tensor(c)[None, :, None, None] for c in ((0.2, 0.1, 0.1), (0.98, 0.75, 0.75)))
    assert [SceneDetector("mask", i).detect(dark).item() for i in (False, True)] == [0, 1]
    assert [SceneDetector("mask", i).detect(pale + 0.0).item() for i in (False, True)] == [1, 0]


def test_the_judge_takes_the_nearest_hue_all_around():
    turns = torch.arange(0, 1, 1 / 720)
    rgb = torch.tensor([colorsys.hsv_to_rgb(turn, 0.8, 0.9) for turn in turns.tolist()])
    axes = torch.tensor([[2.0, -1.0, -1.0], [0.0, 3**0.5, -(3**0.5)]])
    towards, classes = (
        (x @ axes.T / (x @ axes.T).norm(dim=1, keepdim=True)) for x in (rgb, torch.tensor(COLOURS))
    )
    nearest = 1 + (towards @ classes.T).argmax(1)
    assert torch.equal(by_hue(rgb.T[None, :, :, None])[0, :, 0], nearest)


@pytest.mark.parametrize("kind", KINDS)
def test_control_images_are_read_back_also_from_files(scenes, kind):
    detector, given = SceneDetector(kind), labels(scenes, kind, 40)
    drawn = detector.draw(given)
    assert (drawn.shape, drawn.dtype) == ((40, 3, 16, 16), torch.float32)
    assert 0 == drawn.min() < drawn.max() == 1
    assert torch.equal(detector.read(drawn), given)
    stored = as_batch([as_png(image) for image in drawn])
    torch.testing.assert_close(detector.read(stored), given, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_colours_that_stand_for_nothing(scenes, kind):
    detector = SceneDetector(kind)
    drawn = detector.draw(labels(scenes, kind, 3))
    drawn[1, :, 4, 7] = torch.tensor([0.2, 0.4, 0.4])
    with pytest.raises(
        ValueError, match=r"image 1 has the colour \[51, 102, 102\].*row 4, column 7.*1 pixels"
    ):
        detector.read(drawn)
    file = io.BytesIO()
    pixels = detector.draw(labels(scenes, kind, 1))[0].mul(255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).resize((24, 24), Image.Resampling.BILINEAR).save(file, "PNG")
    smooth = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
    if kind == "depth":
        detector.read(smooth)  # every grey is a depth
    else:
        with pytest.raises(ValueError, match="resized smoothly"):
            detector.read(smooth)


def test_agreement_of_masks_is_the_mean_over_classes_in_either(scenes):
    detector = SceneDetector("mask")
    a, b = scenes.classes_BHW[:30], scenes.classes_BHW[30:60]
    slow = []
    for one, other in zip(a.numpy(), b.numpy(), strict=True):
        ious = [
            ((one == k) & (other == k)).sum() / ((one == k) | (other == k)).sum()
            for k in range(4)
            if (one == k).any() or (other == k).any()
        ]
        slow.append(np.mean(ious))
    np.testing.assert_allclose(detector.agreement(a, b).numpy(), slow, rtol=1e-6)
    assert torch.equal(detector.agreement(a, b), detector.agreement(b, a))


def test_agreement_of_edges_and_depth():
    edges, depth = SceneDetector("edges"), SceneDetector("depth")
    a, b = torch.zeros(2, 16, 16, dtype=torch.bool), torch.zeros(2, 16, 16, dtype=torch.bool)
    a[0, 3, :4], b[0, 3, 1:7] = True, True  # 3 in common, of 4 and 6
    assert edges.agreement(a, b).tolist() == pytest.approx([0.6, 1.0])
    near = torch.zeros(2, 16, 16)
    near[0, :8] = 1.0
    assert depth.agreement(near, torch.zeros(2, 16, 16)).tolist() == pytest.approx([1 - 0.5**0.5, 1.0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_leads_pictures_to_their_labels(scenes, kind):
    detector = SceneDetector(kind)
    wanted = labels(scenes, kind, 8)
    noise = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    start = scenes.images_BCHW[:8] + 0.2 * noise
    right, wrong = detector.loss(scenes.images_BCHW[:8], wanted), detector.loss(start, wanted)
    assert right.shape == (8,)
    assert (right < wrong).all()
    image = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        detector.loss(image, wanted).sum().backward()
        assert image.grad.isfinite().all()
        optimizer.step()
    before, after = (detector.agreement(detector.detect(x.detach()), wanted) for x in (start, image))
    assert after.mean() > 0.85 > before.mean() + 0.1


def test_nothing_is_trained_on_the_judge(scenes):
    with pytest.raises(ValueError, match="judges: train on"):
        SceneDetector("mask", independent=True).loss(scenes.images_BCHW[:1], scenes.classes_BHW[:1])
