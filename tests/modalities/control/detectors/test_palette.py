"""Class maps as pictures, and back."""

from __future__ import annotations

import json

import pytest
import torch

from prefopt.modalities.control.detectors.palette import Palette, default_palette, read_palette


def labels(classes: int, ignored: bool = True) -> torch.Tensor:
    """All classes, and pixels without one."""
    ids = torch.randint(classes, (2, 20, 30), generator=torch.Generator().manual_seed(classes))
    ids[0].view(-1)[:classes] = torch.arange(classes)
    if ignored:
        ids[1, :3] = 255
    return ids


@pytest.mark.parametrize("classes", [1, 21, 150, 255])
def test_what_is_drawn_is_read_again(classes):
    palette, ids = default_palette(classes), labels(classes)
    drawn = palette.draw(ids)
    assert drawn.shape == (2, 3, 20, 30)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert torch.equal(palette.read(drawn), ids)
    as_bytes = (drawn * 255).round().byte()  # through a PNG
    assert torch.equal(palette.read(as_bytes / 255), ids)
    assert len(drawn.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)) == len(ids.unique())


def test_colours_are_those_of_pascal_voc_but_for_its_greys():
    palette = default_palette(255)
    known = {
        1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 21: (128, 64, 128),
    }  # fmt: skip
    assert {i: palette.colours[i] for i in known} == known
    assert palette.ignored == (224, 224, 192)
    assert [i for i, (r, g, b) in enumerate(palette.colours) if r == g == b] == [0]
    assert len({*palette.colours, palette.ignored}) == 256


@pytest.mark.parametrize("classes", [21, 150, 255])
def test_grey_maps_of_class_ids(classes):
    ids = labels(classes)
    grey = (ids[:, None].expand(-1, 3, -1, -1) / 255).float()
    assert torch.equal(default_palette(classes).read(grey), ids)
    one = torch.full((1, 4, 4), classes - 1)  # a single level, too
    assert torch.equal(default_palette(classes).read(one[:, None].expand(-1, 3, -1, -1) / 255), one)


def test_each_picture_is_read_by_itself():
    palette, ids = default_palette(21), labels(21)
    mixed = torch.stack([palette.draw(ids)[0], (ids[1] / 255).expand(3, -1, -1)])
    assert torch.equal(palette.read(mixed), ids)


def test_a_mask_with_unknown_classes():
    palette, ids = default_palette(5), labels(5)
    drawn = palette.draw(ids)
    drawn[1, :, 10, 10] = torch.tensor([1.0, 2, 3]) / 255
    with pytest.raises(
        ValueError, match=r"control image 1 is a mask with unknown classes: 1 of its 600.*\(1, 2, 3\)"
    ):
        palette.read(drawn)
    grey = torch.full((1, 3, 4, 4), 5 / 255)
    with pytest.raises(ValueError, match=r"unknown classes.*\(5, 5, 5\)"):
        palette.read(grey)
    smooth = torch.nn.functional.interpolate(palette.draw(ids), scale_factor=2, mode="bilinear")
    with pytest.raises(ValueError, match=r"and \d+ more.*must be kept as PNG"):
        palette.read(smooth)


@pytest.mark.parametrize("wrong", [torch.full((1, 2, 2), 5), torch.full((1, 2, 2), -1), torch.zeros(1, 2, 2), torch.zeros(2, 2).long()])  # fmt: skip
def test_labels_that_have_no_colour(wrong):
    with pytest.raises(ValueError, match=r"class ids"):
        default_palette(5).draw(wrong)


def test_a_palette_of_your_own(tmp_path):
    file = tmp_path / "palette.json"
    colours = [[120, 120, 120], [180, 120, 120], [6, 230, 230]]
    file.write_text(json.dumps(colours))
    palette = read_palette(file, 3)
    assert palette == Palette(((120, 120, 120), (180, 120, 120), (6, 230, 230)), (0, 0, 0))
    ids = labels(3)
    assert torch.equal(palette.read(palette.draw(ids)), ids)
    assert palette.draw(ids)[0, :, 0, 0].tolist() == pytest.approx([120 / 255] * 3)
    # one more is that of pixels without a label
    file.write_text(json.dumps([*colours, [9, 9, 8]]))
    assert read_palette(file, 3).ignored == (9, 9, 8)
    # black cannot mean two things
    file.write_text(json.dumps([[0, 0, 0], *colours[1:]]))
    with pytest.raises(ValueError, match="add one at its end"):
        read_palette(file, 3).draw(ids)
    assert read_palette(file, 3).draw(ids[:1]).shape == (1, 3, 20, 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not valid JSON"),
        ("{}", "no list of lists"),
        ("[[1, 2, 3]]", "1 colours and the model 2 classes"),
        ("[[1, 2, 3], [4, 5, 256]]", "is no colour"),
        ("[[1, 2, 3], [1, 2, 3]]", "twice"),
        ("[[1, 2, 3], [1, 2]]", "is no colour"),
    ],
)
def test_palettes_that_cannot_be(tmp_path, text, message):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_palette(tmp_path / "p.json", 2)
    with pytest.raises(FileNotFoundError, match="no palette at"):
        read_palette(tmp_path / "q.json", 2)
    with pytest.raises(ValueError, match="256 classes"):
        default_palette(256)
