"""The motion world's rows and what it takes to judge motions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prefopt.motion.stick import STICK
from prefopt.sources.files import load_rows
from prefopt.worlds import get_world
from prefopt.worlds.motion.kinematics import moved
from prefopt.worlds.motion.task import parse_caption, swapped

N = 120


@pytest.fixture(scope="module")
def rows(world):
    return world.comparisons(N)


def same(a, b) -> bool:
    return all(np.array_equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def test_a_row_prefers_what_its_caption_says_to_what_differs_in_one_thing(world, rows):
    truth = world.reference_motions(N)
    for k, row in enumerate(rows):
        assert (row["id"], row["source"]) == (f"train-{k}", "world:motion")
        assert row["prompt"] == truth.captions[k]
        assert np.array_equal(row["chosen_motion"], truth.features_BFD[k])
        assert row["rejected_motion"].shape == (32, 36)
        assert row["rejected_motion"].dtype == np.float32
        assert row["score_chosen"] == 1
        assert 0 < row["score_rejected"] < 1
    prompts = [row["prompt"] for row in rows]
    for side in ("chosen", "rejected"):
        found = world.verdicts(prompts, [row[f"{side}_motion"] for row in rows])
        assert found["attr"].tolist() == [row[f"score_{side}"] for row in rows]
        for k, row in enumerate(rows):
            wrong = [word for word in found if found[word][k] == 0]
            assert wrong == ([row["changed"], "pass"] if side == "rejected" else [])
    assert world.verify(prompts[0], rows[0]["rejected_motion"]) == rows[0]["score_rejected"]
    assert {row["changed"] for row in rows} == {"side", "count", "direction", "speed", "move"}
    assert load_rows(rows).rows is rows  # arrays are not copied


def test_rows_begin_alike_and_differ_between_splits_and_seeds(world, rows):
    assert all(map(same, world.comparisons(7), rows))
    test = world.comparisons(5, "test")
    assert test[0]["id"] == "test-0"
    other = replace(world, seed=4).comparisons(5)
    for a, b, c in zip(rows, test, other, strict=False):
        assert len({str(row["chosen_motion"]) for row in (a, b, c)}) == 3
    with pytest.raises(ValueError, match="split must be train or test"):
        world.comparisons(2, "dev")


def test_noise_of_labels_exchanges_motions_and_scores(world, rows):
    noisy = world.comparisons(N, label_noise=0.25, seed=1)
    turned = [k for k in range(N) if not same(noisy[k], rows[k])]
    assert len(turned) == N // 4
    for k in turned:
        assert np.array_equal(noisy[k]["chosen_motion"], rows[k]["rejected_motion"])
        assert np.array_equal(noisy[k]["rejected_motion"], rows[k]["chosen_motion"])
        assert (noisy[k]["score_chosen"], noisy[k]["score_rejected"]) == (rows[k]["score_rejected"], 1)
        assert noisy[k]["prompt"] == rows[k]["prompt"]
    more = world.comparisons(N, label_noise=0.5, seed=1)
    assert not any(same(more[k], rows[k]) for k in turned)
    with pytest.raises(ValueError, match="label_noise is a share"):
        world.comparisons(2, label_noise=2)


def test_a_share_of_the_captions_of_pretraining_is_exchanged(world):
    truth, learned = world.reference_motions(150), world.pretraining_motions()
    assert torch.equal(truth.features_BFD, learned.features_BFD)
    assert learned.lengths_B.tolist() == [32] * 150
    touched = [(a, b) for a, b in zip(truth.captions, learned.captions, strict=True) if a != b]
    assert all(swapped(a) == b for a, b in touched)
    sided = sum(swapped(caption) != caption for caption in truth.captions)
    assert 0.2 < len(touched) / sided < 0.5
    assert replace(world, swap_share=0.0).pretraining_motions().captions == truth.captions
    whole = replace(world, swap_share=1.0).pretraining_motions().captions
    assert whole == [swapped(caption) for caption in truth.captions]


def test_motions_are_judged_in_every_form(world):
    caption = "a person walks forward slowly and waves the left hand twice"
    made = moved([caption] * 3, "tests").features_BFD
    for motion in (made[0], made[0].numpy(), made[0].tolist(), STICK.positions(made[0]), made[0].double()):
        assert world.verify(caption, motion) == 1
        assert world.verify(swapped(caption), motion) == pytest.approx(4 / 6)
    # lengths may differ
    longer = torch.cat([made[1], made[1][-1:]])
    found = world.verdicts([caption, swapped(caption), caption], [made[0], longer, made[2]])
    assert found["pass"].tolist() == [1, 0, 1]
    assert found["side"].tolist() == [1, 0, 1]
    assert torch.equal(world.verdicts([caption] * 3, made)["pass"], torch.ones(3))


@pytest.mark.parametrize(
    ("prompts", "motions", "said"),
    [
        (["a person stands still"], [], "1 captions and 0 motions"),
        (["a person sits"], [np.zeros((32, 36))], "not a caption of the motion world"),
        (["a person stands still"], [np.zeros((32, 35))], r"\(frames, 36\) features .*; given \(32, 35\)"),
        (
            ["a person stands still"],
            [np.zeros((32, 22, 3))],
            r"\(frames, 11, 3\) positions; given \(32, 22, 3\)",
        ),
        (["a person stands still"], [{"motion": 1}], "given a mapping with motion"),
    ],
)
def test_what_cannot_be_judged_is_refused(world, prompts, motions, said):
    with pytest.raises(ValueError, match=said):
        world.verdicts(prompts, motions)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("swap_share", 1.5, "swap_share is a share"),
        ("width", 12, "width must be a multiple of 8"),
        ("layers", 0, "layers must be at least 1"),
        ("pretrain_motions", 0, "pretrain_motions must be at least 1"),
        ("pretrain_steps", 0, "pretrain_steps must be at least 1"),
        ("scorer_steps", 0, "scorer_steps must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, value, said):
    with pytest.raises(ValueError, match=said):
        get_world("motion", **{setting: value})


def test_prompts_name_every_program(world):
    programs = {parse_caption(prompt)._replace(speed="") for prompt in world.prompts(69, "test")}
    assert len(programs) == 69
