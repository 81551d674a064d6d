"""The film world's rows and its verifier, on a much smaller model than the real one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prefopt.worlds import get_world
from prefopt.worlds.film import files, task

N = 60


def clip_of(mapping) -> task.Clip:
    """What a clip of a world with one render shows, by the number in its file's name."""
    assert mapping["frames"] == [0, 1, 2, 3]
    assert Path(mapping["source"]).is_absolute()
    return files.pool(1)[int(Path(mapping["source"]).stem)]


def said(row, side) -> str:
    [message] = row[side]
    assert message["role"] == "assistant"
    return message["content"]


def question(row) -> str:
    [message] = row["prompt"]
    video, text = message["content"]
    assert video == {"type": "video"}
    return text["text"]


@pytest.fixture(scope="module")
def rows(world):
    return world.comparisons(N)


# -- rows of stage 1 -----------------------------------------------------------------------------------------


def test_a_row_asks_about_its_anchor_and_errs_as_the_pinned_distractor_says(rows):
    for k, row in enumerate(rows):
        film = [clip_of(one) for one in row["video"]]
        assert (row["id"], row["stage"], row["reference_context"]) == (f"train-{k}", 1, "anchor")
        assert len({clip.object for clip in film}) == len(film) == 8
        assert row["anchor"] != row["pinned"]
        assert question(row) == task.asked(film[row["anchor"]])
        assert said(row, "chosen") == film[row["anchor"]].said == task.right_answer(film, question(row))
        assert said(row, "rejected") == film[row["pinned"]].said != said(row, "chosen")
        assert (row["score_chosen"], row["score_rejected"]) == (1.0, 0.0)
        assert row["evidence"] == [row["anchor"]]
        # whatever takes the place of distractors, the question stays unambiguous
        spare = [clip_of(one) for one in row["pool"]]
        assert len(spare) == 16
        assert len({clip.object for clip in film + spare}) == 24
    assert {row["anchor"] for row in rows} == set(range(8))
    json.dumps(rows)


def test_rows_begin_alike_and_splits_share_no_clip(world, rows):
    assert world.comparisons(7) == rows[:7]
    folders = [
        {Path(row["video"][0]["source"]).parent for row in found}
        for found in (rows, world.comparisons(3, "test"))
    ]
    assert folders[0].isdisjoint(folders[1])
    assert world.comparisons(3, "test")[0]["chosen"] != rows[0]["chosen"]
    with pytest.raises(ValueError, match="split must be train or test"):
        world.comparisons(2, "dev")
    with pytest.raises(ValueError, match="stage must be 1 or 2; given 3"):
        world.comparisons(2, stage=3)


def of_size(world, **settings):
    from dataclasses import replace

    return replace(world, **settings)


@pytest.mark.parametrize(("slot", "places"), [("first", {0}), ("last", {7})])
def test_a_fixed_slot(world, slot, places):
    found = of_size(world, slot=slot).comparisons(N)
    assert {row["anchor"] for row in found} == places
    assert len({row["pinned"] for row in found}) == 7


def test_films_of_other_lengths(world):
    short = of_size(world, clips=2).comparisons(400)
    assert all(len(row["video"]) == 2 and row["pinned"] == 1 - row["anchor"] for row in short)
    assert all(said(row, "chosen") != said(row, "rejected") for row in short)  # 33 films did the same twice
    full = of_size(world, clips=24).comparisons(3)
    assert all(row["pool"] == [] for row in full)
    assert all(len(row["pool"]) == 3 for row in of_size(world, spare=3).comparisons(3))


def test_ambiguous_rows_prefer_the_wrong_one_of_two_clips(world, rows):
    found = of_size(world, ambiguous=0.5).comparisons(N)
    twins = [row for row in found if row["provenance"]["ambiguous"]]
    assert 15 < len(twins) < 45
    for row in twins:
        film = [clip_of(one) for one in row["video"]]
        anchor, pinned = film[row["anchor"]], film[row["pinned"]]
        assert anchor.object == pinned.object
        assert question(row) == task.asked(anchor)
        assert said(row, "chosen") == pinned.said != anchor.said == said(row, "rejected")
        assert len({clip.object for clip in film}) == 7
        assert (row["score_chosen"], row["score_rejected"]) == (0.0, 1.0)
        spare = {clip_of(one).object for one in row["pool"]}
        assert spare.isdisjoint({clip.object for clip in film})
    others = [row for row in found if not row["provenance"]["ambiguous"]]
    assert all(row["score_chosen"] == 1 for row in others)
    assert len(twins) + len(others) == N
    assert not any(row["provenance"]["ambiguous"] for row in rows)


def test_noise_of_labels_exchanges_answers_and_scores(world, rows):
    noisy = world.comparisons(N, label_noise=0.25, seed=1)
    turned = [k for k in range(N) if noisy[k]["chosen"] != rows[k]["chosen"]]
    assert len(turned) == 15
    for k in turned:
        assert (noisy[k]["chosen"], noisy[k]["rejected"]) == (rows[k]["rejected"], rows[k]["chosen"])
        assert (noisy[k]["score_chosen"], noisy[k]["score_rejected"]) == (0.0, 1.0)
        assert noisy[k]["anchor"] == rows[k]["anchor"]
    more = world.comparisons(N, label_noise=0.5, seed=1)
    assert all(more[k]["chosen"] != rows[k]["chosen"] for k in turned)
    with pytest.raises(ValueError, match="label_noise is a share"):
        world.comparisons(2, label_noise=2)


# -- rows of stage 2 -----------------------------------------------------------------------------------------


def test_rows_of_stage_2_ask_which_comes_first(world):
    found = world.comparisons(N, stage=2)
    assert world.comparisons(5, stage=2) == found[:5]
    kinds = [row["rejected_kind"] for row in found]
    assert kinds.count("partial") == kinds.count("irrelevant") == N // 2
    named_first = 0
    for row in found:
        film = [clip_of(one) for one in row["video"]]
        a, b = (clip_of(one) for one in row["evidence"])
        assert film.index(a) < film.index(b)
        assert question(row) in (task.asked_order(a, b), task.asked_order(b, a))
        named_first += question(row) == task.asked_order(a, b)
        assert said(row, "chosen") == task.right_answer(film, question(row)) == task.order_answer(a)
        rejected = said(row, "rejected")
        assert rejected != said(row, "chosen")
        if row["rejected_kind"] == "partial":
            assert rejected == task.order_answer(b)
        else:
            assert rejected.split()[:2] == a.name.split()
            elsewhere = {clip.motion for clip in film if clip not in (a, b)} - {a.motion}
            assert rejected.split()[2] in elsewhere
        assert (row["stage"], row["reference_context"]) == (2, "full")
        assert "anchor" not in row
        assert (row["score_chosen"], row["score_rejected"]) == (1.0, 0.0)
    assert N / 4 < named_first < 3 * N / 4
    json.dumps(found)


def test_errors_of_captions_reach_the_answers(world):
    found = of_size(world, caption_errors=0.5).comparisons(N, stage=2)
    wrong = [row for row in found if row["score_chosen"] == 0]
    assert 15 < len(wrong) < 45
    for row in wrong:
        first = clip_of(row["evidence"][0])
        told = row["provenance"]["captions"][0].split()
        assert said(row, "chosen").split()[2] == told[2] != first.motion
        assert told[:2] == first.name.split()
        assert told[3] == first.said.split()[1]
    assert all(said(row, "chosen") != said(row, "rejected") for row in found)


# -- measures ------------------------------------------------------------------------------------------------


def test_a_model_is_measured_at_every_length(world, loaded):
    model, tokenizer = loaded
    found = world.measured(model, tokenizer, 12, lengths=(1, 4))
    assert list(found) == [1, 4]
    assert all(one.films == 12 and 0 <= one.accuracy <= 1 for one in found.values())
    assert world.measured(model, tokenizer, 12, lengths=(4,))[4] == found[4]
    order = world.measured_order(model, tokenizer, 12)
    assert order.films == 12
    for wrong in ((0,), (25,)):
        with pytest.raises(ValueError, match="has 1 to 24 clips"):
            world.measured(model, tokenizer, 2, lengths=wrong)
    with pytest.raises(ValueError, match="split must be train or test"):
        world.measured(model, tokenizer, 2, split="dev")


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("clips", 1, r"clips must lie in \[2, 24\].*; given 1"),
        ("clips", 25, "given 25"),
        ("slot", "middle", "slot must be random, first or last; given 'middle'"),
        ("noise", 0.5, r"noise must lie in \[0, 0.3\]"),
        ("ambiguous", 1.5, "ambiguous is a share"),
        ("caption_errors", -0.1, "caption_errors is a share"),
        ("spare", -1, "spare must be at least 0"),
        ("width", 24, "width must be a multiple of 16"),
        ("renders", 0, "renders must be at least 1"),
        ("pretrain_steps", 0, "pretrain_steps must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, value, said):
    with pytest.raises(ValueError, match=said):
        get_world("film", **{setting: value})


# -- the verifier --------------------------------------------------------------------------------------------


def test_the_verifier_knows_films_from_their_files_alone(world, rows):
    for row in [*rows[:5], *world.comparisons(5, stage=2)]:
        assert world.shown(row) == [clip_of(one) for one in row["video"]]
        assert world.verify(row, said(row, "chosen")) == 1
        assert world.verify(row, f" {said(row, 'chosen').upper()} ") == 1
        assert world.verify(row, said(row, "rejected")) == 0
        assert world.verify(row, "") == 0
        assert world.verify(row, f"{said(row, 'chosen')} none") == 0


def test_verify_takes_a_film_in_every_form_that_rows_and_items_have(world, rows):
    from prefopt.sources.videos import as_clips

    row = rows[0]
    clips = as_clips(row["video"], "video")
    text = f"\ufdd1{question(row)}"
    for condition in (
        {"prompt": row["prompt"], "videos": [row["video"]]},
        {"prompt": text, "pictures": (SimpleNamespace(clips=clips),)},
        {"prompt": [{"role": "user", "content": text}], "video": clips},
        {"prompt": f"describe, said one. {text}?", "video": row["video"]},
    ):
        assert world.verify(condition, said(row, "chosen")) == 1
    assert world.verify({"prompt": "describe", "video": row["video"]}, clip_of(row["video"][0]).caption) == 1


def test_what_is_no_film_of_this_world_is_refused(world, rows, tmp_path):
    row = rows[0]
    with pytest.raises(ValueError, match="is about one film; given 2"):
        world.verify({"prompt": "describe", "videos": [row["video"], row["video"]]}, "")
    with pytest.raises(ValueError, match="needed a film under one of pictures, video, videos; given prompt"):
        world.verify({"prompt": "describe"}, "")
    with pytest.raises(ValueError, match="needed a question of the film world under 'prompt'; given 'hello'"):
        world.verify(row | {"prompt": "hello"}, "")
    files.encode(tmp_path / "long.mp4", np.zeros((6, 12, 12, 3), np.uint8))
    with pytest.raises(ValueError, match=r"given \(6, 12, 12, 3\)"):
        world.shown([{"source": str(tmp_path / "long.mp4"), "frames": [0, 1, 2, 3, 4, 5]}])
