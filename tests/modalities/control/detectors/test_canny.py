"""Edges in torch against OpenCV's, and gradients through them."""

from __future__ import annotations

import builtins
import sys

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from modalities.control.detectors.tiny_detectors import images
from prefopt.modalities.control.detectors import find, require_loss
from prefopt.modalities.control.detectors.canny import thin_edges


def shapes(n: int = 4, side: int = 96) -> Tensor:
    """Bytes over 255: soft light with disks and squares on it, and a little noise."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(n):
        picture = cv2.resize(
            rng.integers(0, 255, (4, 4, 3), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC
        )
        for _ in range(4):
            colour = [int(x) for x in rng.integers(0, 255, 3)]
            x, y, r = (int(v) for v in rng.integers(8, side - 8, 3))
            cv2.circle(picture, (x, y), r // 3, colour, -1)
            cv2.rectangle(picture, (y, x), (y + r // 2, x + r // 3), colour[::-1], -1)
        picture = np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)
        out.append(torch.from_numpy(picture.transpose(2, 0, 1)) / 255)
    return torch.stack(out)


def as_bytes(image_CHW: Tensor) -> np.ndarray:
    return np.ascontiguousarray((image_CHW * 255).round().byte().permute(1, 2, 0).numpy())


def opencv(image_CHW: Tensor, low: float, high: float) -> Tensor:
    """The steps of `canny_torch` by OpenCV, which rounds grey and blur to bytes in between."""
    grey = cv2.cvtColor(as_bytes(image_CHW), cv2.COLOR_RGB2GRAY)
    blurred = cv2.GaussianBlur(grey, (5, 5), 1)
    return torch.from_numpy(cv2.Canny(blurred, low * 255, high * 255, L2gradient=True) > 0)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.2), (0.3, 0.8)])
def test_torch_and_opencv_differ_in_few_pixels(low, high):
    given = shapes()
    found = find(f"canny_torch:{low},{high}").detect(given) > 0.5
    theirs = torch.stack([opencv(image, low, high) for image in given])
    assert 0.02 < theirs.float().mean() < 0.5
    assert (found != theirs).float().mean() < 0.005  # OpenCV blurs in whole numbers
    assert (2 * (found & theirs).sum() / (found.sum() + theirs.sum())) > 0.95


def test_opencv_is_that_of_the_annotator():
    given = shapes()
    for spec, low, high in (("canny", 100, 200), ("canny:30,90.5", 30, 90.5)):
        detector = find(spec)
        theirs = torch.stack([torch.from_numpy(cv2.Canny(as_bytes(image), low, high)) for image in given])
        assert torch.equal(detector.detect(given), theirs / 255)
        assert detector.name == f"canny:{low:g},{high:g}"
    assert detector.detect(given[:0]).shape == (0, 96, 96)


@pytest.mark.parametrize("spec", ["canny", "canny_torch"])
def test_drawn_edges_are_read_again(spec):
    detector = find(spec)
    edges = detector.detect(shapes())
    drawn = detector.draw(edges)
    assert drawn.shape == (4, 3, 96, 96)
    assert set(drawn.unique().tolist()) == {0, 1}
    assert torch.equal(detector.read(drawn), edges)
    assert torch.equal(detector.read(drawn * 0.9 + 0.04), edges)  # as JPEG leaves them
    assert detector.agreement(edges, edges).tolist() == [1] * 4
    assert (detector.agreement(edges, edges.roll(5, 1)) < 0.5).all()
    with pytest.raises(ValueError, match="three equal channels"):
        detector.read(images())


def test_hysteresis_keeps_weak_edges_that_touch_strong_ones():
    """Two lines of falling contrast: one starts strong, the other is weak all along."""
    image = torch.zeros(1, 3, 40, 60)
    image[:, :, :, 20:] = torch.linspace(1.0, 0.06, 40)[:, None]
    weak = torch.zeros(1, 3, 40, 60)
    weak[:, :, :, 20:] = torch.linspace(0.1, 0.06, 40)[:, None]
    detector = find("canny_torch:0.15,1.0")
    column = detector.detect(image)[0, 4:-4, 19:21].amax(1)
    assert column.all()
    assert not detector.detect(weak).any()


def test_thinned_edges_are_one_pixel_wide():
    image = torch.zeros(1, 3, 20, 30)
    image[:, :, :, 15:] = 1
    thin = thin_edges(image)[0]
    assert ((thin > 0).sum(1) == 1).all()
    assert thin[:, 14].gt(0.9).all()


def test_the_loss_leads_to_the_edges_of_the_label():
    detector = require_loss(find("canny_torch"))
    target = shapes()[:2]
    label = detector.detect(target)
    assert (detector.loss(target, label) < detector.loss(target.roll(9, 2), label)).all()
    x = (0.5 + 0.2 * (target - 0.5)).requires_grad_()
    start = detector.loss(x, label)
    for _ in range(30):
        (gradient,) = torch.autograd.grad(detector.loss(x, label).sum(), x)
        assert gradient.isfinite().all()
        x = (x - 20 * gradient).clamp(0, 1).detach().requires_grad_()
    assert (detector.loss(x, label) < 0.8 * start).all()
    flat = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    detector.loss(flat, torch.ones(1, 16, 16)).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_each_image_has_its_own_loss():
    detector = require_loss(find("canny_torch"))
    given = shapes()
    labels = detector.detect(given).flip(0)
    alone = [detector.loss(given[i : i + 1], labels[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(detector.loss(given, labels), torch.cat(alone))
    with pytest.raises(ValueError, match=r"needed \(4, 96, 96\)"):
        detector.loss(given, labels[:2])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("canny:200,100", "needed 0 <= low <= high"),
        ("canny:nan,100", "needed 0 <= low <= high"),
        ("canny_torch:100,200", "divide thresholds of 0..255 by 255"),
        ("canny:100", "not two numbers"),
        ("canny:a,b", "not two numbers"),
    ],
)
def test_thresholds_that_cannot_be(spec, message):
    with pytest.raises(ValueError, match=message):
        find(spec)


def test_without_opencv(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **options):
        if name == "cv2":
            raise ImportError(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "cv2")
    with pytest.raises(ValueError, match=r"pip install 'prefopt\[control\]'"):
        find("canny")
    assert find("canny_torch").detect(images()).shape == (3, 48, 64)


def test_only_one_of_them_has_a_loss():
    with pytest.raises(ValueError, match=r"canny:100,200 has no loss.*canny_torch"):
        require_loss(find("canny"))
