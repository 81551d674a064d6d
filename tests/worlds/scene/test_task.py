"""The scene world's pictures: captions, maps, what depends on what, and the style that is read off them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prefopt.worlds import get_world
from prefopt.worlds.scene.task import (
    BRIGHTNESS,
    COLOURS,
    TEXTURE,
    caption_of,
    draw,
    edges_of,
    parse_caption,
    style_of,
)


@pytest.fixture(scope="module")
def scenes():
    return draw(600, "test of the task")


def test_captions_name_the_style():
    styles = [(b, t) for b in range(2) for t in range(2)]
    captions = [caption_of(style) for style in styles]
    assert captions[1:3] == ["a bright rough picture", "a dim smooth picture"]
    assert [parse_caption(caption) for caption in captions] == styles
    assert parse_caption("  A Dim  rough picture ") == (1, 1)
    for wrong in ("", "a rough dim picture", "a dim rough picture of a dog", "a dim picture"):
        with pytest.raises(ValueError, match=r"bright or dim.*smooth or rough"):
            parse_caption(wrong)


def test_a_picture_depends_on_its_stream_and_its_place_alone(scenes):
    few = draw(7, "test of the task")
    assert few.captions == scenes.captions[:7]
    for some, all_ in zip(few[1:], scenes[1:], strict=True):
        assert torch.equal(some, all_[:7])
    other = draw(7, "another stream")
    assert not any(torch.equal(a, b) for a, b in zip(few.images_BCHW, other.images_BCHW, strict=True))
    world = get_world("scene", seed=4)
    train, test = (world.pictures(40, split).images_BCHW.flatten(1) for split in ("train", "test"))
    assert torch.cdist(train, test).min() > 0.5
    assert world.prompts(5, "test") == world.prompts(40, "test")[:5] == world.pictures(5, "test").captions
    with pytest.raises(ValueError, match="train or test"):
        world.pictures(1, "validation")
    assert not torch.equal(world.pictures(1).images_BCHW, get_world("scene", seed=5).pictures(1).images_BCHW)


def test_shapes_have_their_classes_colour_and_nothing_else_has_any(scenes):
    grey_BHW = scenes.images_BCHW.mean(1)
    chroma_BCHW = scenes.images_BCHW - grey_BHW[:, None]
    ground_BHW = scenes.classes_BHW == 0
    assert chroma_BCHW.abs().amax(1)[ground_BHW].max() < 1e-6
    for k, colour in enumerate(COLOURS, start=1):
        pure = torch.tensor(colour) - sum(colour) / 3
        # in bright smooth pictures nothing is cut off at black or white, and jitter is at most 0.04 a channel
        plain_B = (scenes.styles_B2 == 0).all(1)
        found = chroma_BCHW.movedim(1, -1)[plain_B][scenes.classes_BHW[plain_B] == k]
        assert len(found) > 500
        assert (found - pure).abs().max() < 0.06
    counts = torch.bincount(scenes.classes_BHW.flatten()) / scenes.classes_BHW.numel()
    assert counts[1:].min() > 0.05
    assert 0.6 < counts[0] < 0.85
    assert (scenes.classes_BHW > 0).flatten(1).any(1).all()


def test_what_is_nearer_has_the_higher_class_and_hides_the_rest(scenes):
    assert torch.equal(scenes.depth_BHW, scenes.classes_BHW / 3)
    # all classes are drawn equally often: blue, which nothing hides, covers most, and red least
    _, red, _, blue = torch.bincount(draw(3000, "occlusion").classes_BHW.flatten()).tolist()
    assert blue > 1.1 * red


def test_edges_are_where_the_class_changes(scenes):
    classes = scenes.classes_BHW[:20].numpy()
    slow = np.zeros(classes.shape, bool)
    for b, y, x in np.ndindex(*classes.shape):
        here = classes[b, y, x]
        slow[b, y, x] = (x < 15 and classes[b, y, x + 1] != here) or (y < 15 and classes[b, y + 1, x] != here)
    assert np.array_equal(scenes.edges_BHW[:20].numpy(), slow)
    assert not edges_of(torch.full((1, 16, 16), 2)).any()


def test_styles_are_as_frequent_and_read_without_a_mistake(scenes):
    counts = torch.bincount(2 * scenes.styles_B2[:, 0] + scenes.styles_B2[:, 1])
    assert (len(counts), counts.min() > 100) == (4, True)
    stored = scenes.images_BCHW.mul(255).round() / 255
    assert torch.equal(style_of(stored, scenes.classes_BHW), scenes.styles_B2)
    assert (list(BRIGHTNESS), list(TEXTURE)) == (["bright", "dim"], ["smooth", "rough"])


def test_rewards_are_of_the_style():
    world = get_world("scene")
    scenes = world.pictures(30, "test")
    right = world.rewards(scenes.captions, scenes.images_BCHW)
    assert all((values == 1).all() for values in right.values())
    for style, (bright, rough) in zip(scenes.styles_B2.tolist(), [(1, 0), (0, 1), (0, 0)] * 10, strict=True):
        asked = caption_of((style[0] ^ (1 - bright), style[1] ^ (1 - rough)))
        image = scenes.images_BCHW[scenes.styles_B2.tolist().index(style)]
        assert world.verify(asked, image) == (bright + rough) / 2
    with pytest.raises(ValueError, match="2 prompts and 30 pictures"):
        world.rewards(scenes.captions[:2], scenes.images_BCHW)
    with pytest.raises(ValueError, match="not a caption of the scene world"):
        world.verify("a small red circle, top left", scenes.images_BCHW[0])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"condition": "pose"}, "no map of kind 'pose'.*mask, edges, depth"),
        ({"width": 12}, "multiple of 8"),
        ({"control_steps": 0}, "control_steps must be at least 1"),
        ({"consistency_steps": -1}, "consistency_steps must be at least 0"),
    ],
)
def test_settings_out_of_range(settings, told):
    with pytest.raises(ValueError, match=told):
        get_world("scene", **settings)
