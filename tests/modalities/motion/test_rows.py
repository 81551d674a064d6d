"""Rows of motions: what is taken, what is dropped with a reason, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from prefopt.modalities.motion.rows import load_motion_comparisons
from prefopt.motion.stick import STICK
from prefopt.worlds import get_world

WORLD = get_world("motion").comparisons(3)
GOOD, OTHER = WORLD[0]["chosen_motion"], WORLD[1]["chosen_motion"]


def load(rows, **more):
    return load_motion_comparisons(rows, codec="stick", **more)


def dropped(**row) -> tuple[str, str]:
    found = load([{"prompt": "good", "motion": GOOD}, {"prompt": "a", "motion": GOOD} | row])
    (drop,) = found.dropped
    return drop.reason, drop.detail


def test_pairs_and_singles():
    pairs = load([{"prompt": "a", "chosen_motion": GOOD, "rejected_motion": OTHER, "label": "tie"}])
    (example,) = pairs.examples
    assert example.comparisons[0].outcome.tie == 1
    assert [item.sample.frames for item in example.items] == [32, 32]
    torch.testing.assert_close(example.items[0].sample.read(), torch.as_tensor(GOOD).float())
    singles = load([{"caption": "a", "motion": GOOD}, {"caption": "b", "motion": GOOD, "label": False}])
    assert [e.comparisons[0].outcome.win for e in singles.examples] == [1, 0]
    assert singles.examples[0].items[0].sample.digest == singles.examples[1].items[0].sample.digest


def test_captions_of_one_motion():
    (example,) = load([{"captions": ["a man walks", "he walks"], "motion": GOOD}]).examples
    assert example.items[0].condition == {"prompt": "a man walks", "captions": ("a man walks", "he walks")}
    (one,) = load([{"captions": ["a man walks"], "motion": GOOD}]).examples
    assert one.items[0].condition == {"prompt": "a man walks"}


def test_positions_become_features():
    positions = STICK.positions(torch.as_tensor(GOOD).float())
    (example,) = load([{"prompt": "a", "motion": positions.numpy()}]).examples
    assert example.items[0].sample.read().shape[1] == 36


def test_files_beside_the_rows(tmp_path):
    np.save(tmp_path / "one.npy", np.asarray(GOOD, np.float32))
    lines = [{"prompt": "a", "motion": "one.npy"}, {"prompt": "b", "motion": "gone.npy"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = load(tmp_path / "rows.jsonl")
    torch.testing.assert_close(found.examples[0].items[0].sample.read(), torch.as_tensor(GOOD).float())
    assert [d.reason for d in found.dropped] == ["missing_motion"]


@pytest.mark.parametrize(
    ("row", "reason", "words"),
    [
        ({"motion": None}, "missing_value", "motion is absent"),
        (
            {"motion": np.zeros((32, 35))},
            "wrong_shape",
            r"(32, 35); needed (frames, 36) features or (frames, 11, 3) positions",
        ),
        ({"motion": [[1.0, 2.0], [1.0]]}, "wrong_type", "holds no numbers in rows of one length"),
        ({"motion": np.zeros((3, 36))}, "too_short", "3 frames; needed 4"),
        (
            {"motion": np.full((32, 36), np.nan)},
            "not_finite",
            "numbers that are not finite in frame 0 and in 31 frames more",
        ),
        ({"motion": "https://example.org/a.npy"}, "wrong_type", "a web address"),
        ({"prompt": ""}, "empty_prompt", "prompt is empty"),
        ({"prompt": None}, "missing_value", "prompt is absent"),
        ({"prompt": 3}, "wrong_type", "needed text"),
    ],
)
def test_rows_that_cannot_be_used_are_dropped_with_a_reason(row, reason, words):
    got, detail = dropped(**row)
    assert got == reason
    assert words in detail


def test_two_sides_of_one_motion_compare_nothing():
    rows = [
        {"prompt": "a", "chosen_motion": GOOD, "rejected_motion": GOOD},
        {"prompt": "b", "chosen_motion": GOOD, "rejected_motion": OTHER},
    ]
    assert [d.reason for d in load(rows).dropped] == ["identical_sides"]


def test_a_pickled_file_is_refused(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a", "motion": "bad.npy"}) + "\n")
    with pytest.raises(ValueError, match="broken_motion"):
        load(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"prompt": "a", "chosen_motion": GOOD}, "Missing: rejected_motion"),
        ({"motion": GOOD}, "Missing: prompt"),
        ({"prompt": "a", "motions": GOOD}, "Missing: motion"),
    ],
)
def test_missing_columns(row, sentence):
    with pytest.raises(ValueError, match=sentence):
        load([row])


def test_motions_longer_than_the_models_are_told():
    found = load([{"prompt": "a", "motion": GOOD}], max_frames=20)
    assert any("longer than 20 frames" in hint["text"] for hint in found.report.to_dict()["hints"])
