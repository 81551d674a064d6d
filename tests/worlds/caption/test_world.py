"""The caption world's pictures, its verifier, and its rows, on a much smaller model than the real one."""

from __future__ import annotations

import io
import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from prefopt.comparisons import UnusableItem
from prefopt.sources.pictures import ImageRef, as_ref
from prefopt.worlds import get_world
from prefopt.worlds.caption import rows as caption_rows
from prefopt.worlds.caption import task
from prefopt.worlds.caption.measures import f1, mentioned
from prefopt.worlds.caption.model import PROMPT


def said(row, side) -> str:
    [message] = row[side]
    assert message["role"] == "assistant"
    return message["content"]


# -- pictures and the verifier -------------------------------------------------------------------------------


def test_pictures_of_a_split_are_its_own_and_begin_alike():
    world = get_world("caption", seed=3)
    train, test = world.pictures(60), world.pictures(60, "test")
    assert not set(train.scenes) & set(test.scenes)
    assert world.pictures(7).scenes == train.scenes[:7]
    assert world.contrasts(7).scenes == world.contrasts(60).scenes[:7]
    assert get_world("caption", seed=4).pictures(7).scenes != train.scenes[:7]
    assert world.prompts(3) == [PROMPT] * 3
    with pytest.raises(ValueError, match="split must be train or test"):
        world.pictures(2, "dev")
    with pytest.raises(ValueError, match="split must be train or test"):
        world.prompts(2, "dev")


def test_the_verifier_knows_pictures_from_their_files_alone():
    world = get_world("caption", seed=3)
    scenes = world.pictures(200)
    for k, scene in enumerate(scenes.scenes):
        assert world.objects(scenes.image(k)) == task.objects_of(scene)


def test_verify_takes_a_picture_in_every_form_that_rows_and_items_have():
    world = get_world("caption", seed=3)
    scenes = world.pictures(1)
    ref, caption = scenes.image(0), scenes.captions[0]
    image = Image.open(io.BytesIO(ref.read()))
    other_file = io.BytesIO()
    image.save(other_file, format="BMP")
    for condition in (
        {"prompt": "x", "images": [ref]},
        {"prompt": "x", "pictures": (SimpleNamespace(ref=ref),)},
        {"image": {"bytes": ref.read(), "path": None}},
        {"bytes": ref.read(), "path": None},
        ref,
        ref.read(),
        image,
        np.asarray(image),
        as_ref(image, "image"),
        other_file.getvalue(),
    ):
        assert world.verify(condition, caption) == 1
        assert world.verify(condition, "") == 0
        assert world.verify(condition, caption.split(", ")[0]) == pytest.approx(
            2 / (1 + len(task.objects_of(scenes.scenes[0])))
        )


def test_what_is_no_picture_of_this_world_is_refused():
    world = get_world("caption", seed=3)
    ref = world.pictures(1).image(0)
    with pytest.raises(ValueError, match="of one picture; given 2"):
        world.verify({"images": [ref, ref]}, "")
    with pytest.raises(ValueError, match=r"is \(3, 18, 18\); given \(3, 20, 20\)"):
        world.verify(Image.new("RGB", (20, 20)), "")
    with pytest.raises(UnusableItem, match="needed an image"):
        world.verify({"prompt": "Describe the picture."}, "")


def test_hallucinated_mentions_are_marked():
    world = get_world("caption", seed=3)
    scenes = world.pictures(1)
    absent = task.unused(task.objects_of(scenes.scenes[0]))[0]
    caption = f"{scenes.captions[0]}, {task.CLASSES[absent]}"
    [mark] = world.hallucinated({"images": [scenes.image(0)]}, caption)
    assert (mark.object, caption[mark.start : mark.end]) == (absent, task.CLASSES[absent])


def test_a_verifier_needs_no_table_of_pictures():
    scenes = get_world("caption", seed=3).pictures(2, "test")
    assert get_world("caption", seed=9, noise=0.1).verify(scenes.image(1).read(), scenes.captions[1]) == 1


# -- rows ----------------------------------------------------------------------------------------------------

N = 40


@pytest.fixture(scope="module")
def rows(world):
    return world.comparisons(N)


def test_a_row_has_two_pictures_with_their_exact_captions(world, rows):
    scenes, contrasts = world.pictures(N), world.contrasts(N)
    for k, row in enumerate(rows):
        assert row["id"] == f"train-{k}"
        assert row["prompt"] == [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": "Describe the picture."}],
            }
        ]
        assert row["source"] == "world:caption"
        for side, image, picture in (
            ("chosen", "image", scenes),
            ("contrast_chosen", "contrast_image", contrasts),
        ):
            assert row[image]["bytes"] == picture.image(k).read()
            assert said(row, side) == picture.captions[k]
            assert world.verify(row[image], said(row, side)) == 1
        changed = sum(a != b for a, b in zip(scenes.scenes[k], contrasts.scenes[k], strict=True))
        assert changed == 1
        assert said(row, "chosen") != said(row, "contrast_chosen")
    assert world.comparisons(3, "test")[0]["id"] == "test-0"
    assert world.comparisons(N) == rows


def test_rejected_captions_name_what_is_not_there(world, rows):
    samples = world.samples(N)
    own = Counter()
    for k, row in enumerate(rows):
        for side, image, drawn in (
            ("rejected", "image", samples.captions[k]),
            ("contrast_rejected", "contrast_image", samples.contrasts[k]),
        ):
            objects, caption = world.objects(row[image]), said(row, side)
            made_up = len(mentioned(caption) - set(objects))
            assert made_up >= 1
            assert made_up >= max(len(mentioned(one) - set(objects)) for one in drawn)
            own[caption in drawn] += 1
        assert row["score_chosen"] == 1
        assert row["score_rejected"] == world.verify(row["image"], said(row, "rejected")) < 1
    assert own[True] > own[False]


def test_where_no_sample_hallucinates_the_exact_caption_gets_an_absent_companion():
    rng = np.random.default_rng(0)
    right = ["red square, yellow triangle", "red square", ""]
    assert caption_rows.worst((0, 11), right, rng) == "red square, red plus, yellow triangle"
    assert caption_rows.worst((0, 11), [*right, "blue plus", "red square, blue plus"], rng) == "blue plus"
    assert caption_rows.worst((0, 11), ["blue plus", "blue plus, red plus"], rng) == "blue plus, red plus"
    # each is a companion of another, so that any absent class will do
    full = (0, 1, 6, 7)
    assert f1(full, caption_rows.worst(full, right[1:2], rng)) == pytest.approx(8 / 9)


def test_label_noise_exchanges_the_sides_of_its_share(world, rows):
    noisy, more = (world.comparisons(N, label_noise=share) for share in (0.25, 0.5))
    turned = [
        {k for k, (a, b) in enumerate(zip(rows, some, strict=True)) if a["chosen"] == b["rejected"]}
        for some in (noisy, more)
    ]
    assert [len(one) for one in turned] == [10, 20]
    assert turned[0] < turned[1]
    for k in turned[0]:
        assert noisy[k]["score_chosen"] < noisy[k]["score_rejected"] == 1
        assert noisy[k]["contrast_chosen"] == rows[k]["contrast_chosen"]
    assert world.comparisons(N, label_noise=0.25, seed=1) != noisy
    with pytest.raises(ValueError, match="label_noise is a share"):
        world.comparisons(2, label_noise=1.2)


def test_samples_are_drawn_once(world, rows, monkeypatch):
    monkeypatch.setattr("prefopt.worlds.caption.model.sample_captions", None)
    assert world.comparisons(N) == rows
    kept = json.loads((world._place("samples", n=N, split="train") / "captions.json").read_text("utf-8"))
    assert [len(one) for one in kept["captions"]] == [len(one) for one in kept["contrasts"]] == [4] * N
    with pytest.raises(TypeError):
        world.comparisons(N - 1)


def test_measured_is_greedy_on_the_test_pictures(world, loaded):
    from prefopt.worlds.caption.measures import measures
    from prefopt.worlds.caption.model import sample_captions

    scenes = world.pictures(30, "test")
    drawn = sample_captions(*loaded, scenes.images_BCHW, temperature=0)
    slow = measures(
        (task.objects_of(scene), caption) for scene, [caption] in zip(scenes.scenes, drawn, strict=True)
    )
    assert world.measured(*loaded, 30) == slow
    assert world.measured(*loaded, 30, temperature=1.0) != slow


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"noise": 0.7}, r"noise must lie in \[0, 0.6\]"),
        ({"prior": 1.5}, "prior is a share"),
        ({"width": 24}, "multiple of 16"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"pretrain_steps": 0}, "pretrain_steps must be at least 1"),
    ],
)
def test_settings_out_of_range(settings, told):
    with pytest.raises(ValueError, match=told):
        get_world("caption", **settings)


def test_pictures_as_references_are_those_of_the_tensor():
    scenes = get_world("caption", seed=3).pictures(2)
    assert isinstance(scenes.image(1), ImageRef)
    pixels = np.asarray(Image.open(io.BytesIO(scenes.image(1).read())))
    assert torch.equal(
        torch.from_numpy(pixels.copy()).permute(2, 0, 1), scenes.images_BCHW[1].mul(255).round().byte()
    )
