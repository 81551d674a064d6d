"""Scenes of the caption world: classes, captions, companions, edits, and pictures that can be read without a mistake."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from prefopt.worlds.caption import task

NOISE = 0.35


@pytest.fixture(scope="module")
def drawn() -> task.Scenes:
    return task.draw(2000, "tests", "train", NOISE)


@pytest.fixture(scope="module")
def edited(drawn: task.Scenes) -> task.Scenes:
    return task.edits(drawn.scenes, "tests of edits", NOISE)


# -- classes and captions ------------------------------------------------------------------------------------


def test_companions_are_another_class_and_every_class_is_one():
    assert [task.companion(k) for k in range(12)] == [1, 6, 11, 4, 9, 2, 7, 0, 5, 10, 3, 8]
    assert task.CLASSES[:4] == ("red square", "red plus", "red triangle", "green square")


def test_captions_are_parsed_back_to_their_classes_exactly():
    for length in (1, 2, 3):
        for objects in itertools.permutations(range(12), length):
            assert tuple(m.object for m in task.mentions_of(task.caption_of(objects))) == objects
    assert task.mentions_of("") == []


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("Red  Square ,blue plus", ["red square", "blue plus"]),
        ("red red square", ["red square"]),
        ("square red", []),
        ("red, square", []),
        ("redsquare, a red squares", []),
        ("red plus, red plus", ["red plus", "red plus"]),
        ("I see a red plus and a yellow triangle.", ["red plus", "yellow triangle"]),
    ],
)
def test_only_a_colour_with_its_shape_names_an_object(caption, named):
    mentions = task.mentions_of(caption)
    assert [task.CLASSES[m.object] for m in mentions] == named
    for mention in mentions:
        words = " ".join(caption[mention.start : mention.end].lower().split())
        assert words == task.CLASSES[mention.object]


def test_the_prior_puts_the_absent_companion_behind_the_first_object_that_lacks_its_own():
    assert task.with_companion((0, 7)) == (0, 1, 7)
    assert task.with_companion((11, 0)) == (11, 8, 0)  # and not behind the second, too
    assert task.with_companion((1, 0)) == (1, 6, 0)
    assert task.with_companion((0, 1)) == (0, 1, 6)
    assert task.with_companion((0, 1, 6, 7)) == (0, 1, 6, 7)  # each is the companion of the one before


# -- scenes --------------------------------------------------------------------------------------------------


def test_scenes_have_two_to_four_distinct_objects_in_any_cell(drawn):
    counts = Counter(len(task.objects_of(scene)) for scene in drawn.scenes)
    assert set(counts) == {2, 3, 4}
    assert min(counts.values()) > 550
    assert all(len(set(objects)) == len(objects) for objects in map(task.objects_of, drawn.scenes))
    cells, classes = Counter(), Counter()
    for scene in drawn.scenes:
        assert len(scene) == 9
        cells.update(place for place, cell in enumerate(scene) if cell != task.EMPTY)
        classes.update(task.objects_of(scene))
    for counter, n in ((cells, 9), (classes, 12)):
        assert set(counter) == set(range(n))
        assert max(counter.values()) < 1.25 * min(counter.values())


def test_captions_name_the_objects_in_raster_order():
    scene = (task.EMPTY, 7, task.EMPTY, task.EMPTY, task.EMPTY, 0, 11, task.EMPTY, task.EMPTY)
    scenes = task.Scenes([scene], task.clean([scene]))
    assert scenes.captions == ["blue plus, red square, yellow triangle"]


def test_scenes_depend_on_their_number_and_stream_alone(drawn):
    fewer = task.draw(5, "tests", "train", NOISE)
    assert fewer.scenes == drawn.scenes[:5]
    assert torch.equal(fewer.images_BCHW, drawn.images_BCHW[:5])
    assert task.draw(5, "others", "train", NOISE).scenes != fewer.scenes


def test_an_edit_changes_one_object(drawn, edited):
    kinds = Counter()
    for before, after in zip(drawn.scenes, edited.scenes, strict=True):
        [(old, new)] = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        objects = task.objects_of(after)
        assert len(set(objects)) == len(objects)
        if old == task.EMPTY:
            kinds["added"] += 1
            assert new in {task.companion(k) for k in task.objects_of(before)}
        else:
            kinds["removed" if new == task.EMPTY else "replaced"] += 1
    assert abs(kinds["added"] - 800) < 90  # four standard deviations
    assert abs(kinds["removed"] - 400) < 75


def test_where_every_companion_is_there_an_edit_replaces_or_removes():
    scene = next(
        where
        for where in itertools.permutations((0, 1, 6, 7, *(task.EMPTY,) * 5))
        if task.split_of(where) == "train"
    )
    edits = [task.edit(scene, np.random.default_rng(k)) for k in range(200)]
    assert {len(task.objects_of(one)) for one in edits} == {3, 4}


def test_scenes_and_their_edits_are_of_one_split(drawn, edited):
    test = task.draw(300, "tests", "test", NOISE)
    assert {task.split_of(scene) for scene in (*drawn.scenes, *edited.scenes)} == {"train"}
    assert {task.split_of(scene) for scene in test.scenes} == {"test"}
    assert {task.split_of(scene) for scene in task.edits(test.scenes, "e", NOISE).scenes} == {"test"}


# -- pictures ------------------------------------------------------------------------------------------------


def test_bitmaps_differ_pairwise(monkeypatch):
    shapes = task.bitmaps()
    for a, b in itertools.combinations(shapes, 2):
        assert (a != b).sum() >= 4
    assert torch.equal(shapes[0].nonzero().amin(0), torch.tensor([1, 1]))
    assert shapes[0].sum() == 16
    assert torch.equal(shapes[1], shapes[1].T)
    widths = shapes[2].sum(1)[1:-1]
    assert (widths.diff() >= 0).all()
    assert widths[0] < widths[-1]
    monkeypatch.setitem(task.SHAPES, "plus", task.SHAPES["square"])
    task.bitmaps.cache_clear()
    with pytest.raises(ValueError, match="square and plus are the same bitmap"):
        task.bitmaps()
    monkeypatch.undo()
    task.bitmaps.cache_clear()


def test_a_clean_picture_pixel_by_pixel():
    scene = (task.EMPTY,) * 5 + (10, task.EMPTY, task.EMPTY, 2)
    image_CHW = task.clean([scene])[0]
    slow = np.full((3, 18, 18), 0.5)
    for cell, k in enumerate(scene):
        if k == task.EMPTY:
            continue
        colour, shape = list(task.COLOURS.values())[k // 3], list(task.SHAPES.values())[k % 3]
        for y, x in np.ndindex(4, 4):
            if shape[y][x] == "#":
                slow[:, 6 * (cell // 3) + 1 + y, 6 * (cell % 3) + 1 + x] = colour
    np.testing.assert_allclose(image_CHW.numpy(), slow, atol=1e-6)


def test_every_picture_is_read_without_a_mistake_also_from_its_file(drawn, edited):
    for scenes in (drawn, edited):
        assert task.read(scenes.images_BCHW) == scenes.scenes
        assert (scenes.images_BCHW.mul(255) - scenes.images_BCHW.mul(255).round()).abs().max() < 1e-4


def test_reading_takes_the_nearest_of_all_templates():
    noisy = task.clean([(task.EMPTY,) * 9] * 100) + torch.randn(
        100, 3, 18, 18, generator=torch.Generator().manual_seed(0)
    )
    scenes = task.read(noisy)
    assert len(set().union(*scenes)) == 13
    for image_CHW, scene in zip(noisy, scenes, strict=True):
        for cell in range(9):
            y, x = 6 * (cell // 3), 6 * (cell % 3)
            tile = image_CHW[:, y : y + 6, x : x + 6]
            distances = (tile - task.templates()).square().sum((1, 2, 3))
            nearest = int(distances.argmin())
            assert scene[cell] == (nearest if nearest < 12 else task.EMPTY)


def test_noise_is_what_was_asked_for_where_nothing_cuts_it_off():
    drawn = task.draw(300, "noise", "train", 0.1)
    off_BCHW = drawn.images_BCHW - task.clean(drawn.scenes)
    ground = task.clean(drawn.scenes) == 0.5
    assert off_BCHW[ground].std().item() == pytest.approx(0.1, abs=0.002)
    assert abs(off_BCHW[ground].mean().item()) < 0.002
    assert torch.equal(
        task.draw(3, "noise", "train", 0.0).images_BCHW, task.clean(drawn.scenes[:3]).mul(255).round() / 255
    )
    with pytest.raises(ValueError, match=r"could not be read in 3 tries with noise=5; lower it"):
        _hopeless()


def _hopeless() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "TRIES", 3)
        task.draw(2, "hopeless", "train", 5)
