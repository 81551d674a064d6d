"""Pictures made of a picture: what of it is left, and that it is the same every time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modalities.image.image_runs import picture, png
from prefopt.modalities.vision_language.contrasts import CHANGES, Picture, alpha_bar, altered
from prefopt.sources.pictures import as_ref

REF = as_ref(np.full((120, 160, 3), 200, np.uint8), "grey")


def seen(change: str, seed: int = 0) -> np.ndarray:
    return np.array(Picture(REF, change, seed).image())  # type: ignore[arg-type]


def test_black():
    assert seen("black").shape == (120, 160, 3)
    assert not seen("black").any()


def test_a_crop_is_a_small_part_of_the_same_proportions():
    pixels = np.arange(120 * 160, dtype=np.uint32)
    image = np.stack([pixels >> 8 & 255, pixels & 255, pixels * 0], -1).astype(np.uint8).reshape(120, 160, 3)
    areas = []
    for seed in range(60):
        cut = Picture(as_ref(image, "places"), "crop", seed)
        found = np.array(cut.image()).astype(int)
        height, width = found.shape[:2]
        assert cut.size == (width, height)
        first, last = (int(p[0]) * 256 + int(p[1]) for p in (found[0, 0], found[-1, -1]))
        assert last - first == (height - 1) * 160 + width - 1  # a rectangle of the picture, not resized
        assert width / height == pytest.approx(4 / 3, rel=0.1)
        areas.append(width * height / (120 * 160))
    assert 0.008 < min(areas) < 0.05
    assert 0.15 < max(areas) <= 0.205


def test_a_mask_hides_three_cells_in_ten():
    hidden = (seen("mask") == 0).all(-1)
    assert hidden.mean() == pytest.approx(0.3, abs=0.01)
    cells = hidden.reshape(24, 5, -1)  # 120 rows in 24 cells
    assert (cells == cells[:, :1]).all()
    assert seen("mask")[~hidden].min() == 200


def test_the_schedule_is_the_authors():
    product = 1.0
    for t in range(501):
        u = -6 + 12 * t / 999
        product *= 1 - ((0.005 - 1e-5) / (1 + math.exp(-u)) + 1e-5)
    assert alpha_bar(500) == pytest.approx(product, rel=1e-9)


def test_noise_is_on_what_the_model_reads():
    noised = Picture(REF, "noise", 3)
    assert np.array_equal(np.array(noised.image()), np.array(Picture(REF).image()))
    x = torch.randn(1, 3, 64, 64) * 2 + 1
    given = {"pixel_values": x, "image_sizes": torch.tensor([[64, 64]])}
    out = noised.seen(given)
    assert out["image_sizes"] is given["image_sizes"]
    kept = alpha_bar(500)
    noise = (out["pixel_values"] - math.sqrt(kept) * x) / math.sqrt(1 - kept)
    assert abs(float(noise.mean())) < 0.05
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert abs(float((noise * (x - x.mean())).mean())) < 0.1


def test_a_blank_picture_tells_nothing_and_is_no_padding():
    out = Picture(REF, "blank").seen({"pixel_values": torch.randn(1, 3, 8, 8)})["pixel_values"]
    assert float(out.abs().max()) < 1e-5
    assert (out != 0).all()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_follows_from_seed_and_content(change):
    other = as_ref(png(picture(7)), "other")
    one, again, seed, content = (
        Picture(REF, change, 1), Picture(REF, change, 1), Picture(REF, change, 2), Picture(other, change, 1),
    )  # fmt: skip
    assert one.digest == again.digest
    assert len({one.digest, seed.digest, content.digest, Picture(REF).digest}) == 4
    assert np.array_equal(np.array(one.image()), np.array(again.image()))
    x = {"pixel_values": torch.ones(1, 3, 8, 8)}
    assert torch.equal(one.seen(x)["pixel_values"], again.seen(x)["pixel_values"])
    if change == "noise":
        assert not torch.equal(one.seen(x)["pixel_values"], seed.seen(x)["pixel_values"])
    if change in ("crop", "mask"):
        assert not np.array_equal(np.array(one.image()), np.array(seed.image()))


def test_altered_pictures_keep_their_order():
    two = (Picture(REF), Picture(as_ref(png(picture(7)), "other")))
    assert [one.ref for one in altered(two, "crop", 4)] == [one.ref for one in two]
    assert {(one.change, one.seed) for one in altered(two, "crop", 4)} == {("crop", 4)}
