"""`prefopt build motions`: what a model makes of texts, as files and as rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from prefopt.cli.main import main
from prefopt.modalities.motion.rows import load_motion_comparisons
from prefopt.motion.bvh import read_bvh
from prefopt.motion.pipeline import MotionPipeline
from prefopt.motion.stick import STICK
from tiny_motions import tiny_mdm

TEXTS = ("a person walks forward", "the figure waves the left hand twice", "a person jumps")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mdm(tmp_path_factory.mktemp("mdm") / "m")


def build(model: Path | str, output: Path, *options: str) -> Any:
    return CliRunner().invoke(main, ["build", "motions", str(model), "-o", str(output), *options])


def rows_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "motions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built") / "moves"
    file = output.parent / "texts.txt"
    file.write_text(f"{TEXTS[1]}\n{TEXTS[0]}\n{TEXTS[2]}\n")
    options = ["--seconds", "2", "--format", "bvh,npy,gif,webp", "--samples", "2", "--batch_size", "4"]
    done = build(model, output, "--text", TEXTS[0], "--texts", str(file), *options)
    assert done.exit_code == 0, done.output
    assert "6 motions" in done.output
    assert "joints moved by" in done.output
    return output


def test_every_text_is_drawn_once_for_each_sample_and_its_files_are_there(built: Path) -> None:
    rows = rows_of(built)
    assert [row["prompt"] for row in rows] == [text for text in TEXTS for _ in range(2)]
    assert len({row["seed"] for row in rows}) == 6
    for row in rows:
        assert (row["frames"], row["fps"], row["codec"]) == (16, 8.0, "stick")
        for kind in ("motion", "bvh", "npy", "gif", "webp"):
            assert (built / row[kind]).is_file()


def test_a_row_says_how_to_draw_the_motion_again(built: Path, model: Path) -> None:
    pipe = MotionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    for row in rows_of(built)[::5]:
        again = pipe([row["prompt"]], [row["frames"]], seeds=[row["seed"]]).features[0]
        np.testing.assert_allclose(np.load(built / row["motion"]), again, atol=1e-5)


def test_files_hold_the_same_motion(built: Path) -> None:
    for row in rows_of(built):
        positions = STICK.positions(torch.from_numpy(np.load(built / row["motion"])))
        np.testing.assert_allclose(np.load(built / row["npy"]), positions, atol=1e-6)
        there = read_bvh(built / row["bvh"])
        assert there.fps == pytest.approx(8)
        order = [there.joints.index(name) for name in STICK.skeleton.joints]
        off = (there.positions_FJ3[:, order] - positions).norm(dim=-1).max()
        assert float(off) == pytest.approx(row["bvh_error"], abs=1e-4)
        with Image.open(built / row["gif"]) as picture:
            assert picture.n_frames == 16


def test_rows_are_read_as_they_are(built: Path) -> None:
    found = load_motion_comparisons(built / "motions.jsonl", codec="stick")
    assert [e.items[0].condition["prompt"] for e in found.examples] == [
        row["prompt"] for row in rows_of(built)
    ]
    assert {e.items[0].sample.frames for e in found.examples} == {16}
    assert not found.dropped


def test_a_motion_depends_on_its_text_alone(built: Path, model: Path, tmp_path: Path) -> None:
    done = build(model, tmp_path / "one", "--text", TEXTS[2], "--seconds", "2")
    assert done.exit_code == 0, done.output
    (row,) = rows_of(tmp_path / "one")
    alone, among = np.load(tmp_path / "one" / row["motion"]), np.load(built / rows_of(built)[4]["motion"])
    np.testing.assert_allclose(alone, among, atol=1e-5)
    other = build(model, tmp_path / "two", "--text", TEXTS[2], "--seconds", "2", "--seed", "1")
    assert other.exit_code == 0, other.output
    assert rows_of(tmp_path / "two")[0]["seed"] != row["seed"]


def test_the_longest_motion_is_the_default(model: Path, tmp_path: Path) -> None:
    assert build(model, tmp_path / "o", "--text", "walks").exit_code == 0
    assert rows_of(tmp_path / "o")[0]["frames"] == 32


def test_what_is_there_is_not_written_over_unless_asked(model: Path, tmp_path: Path) -> None:
    assert build(model, tmp_path, "--text", "walks").exit_code == 0
    again = build(model, tmp_path, "--text", "jumps")
    assert again.exit_code == 1
    assert "--force" in again.output
    assert rows_of(tmp_path)[0]["prompt"] == "walks"
    assert build(model, tmp_path, "--text", "jumps", "--force").exit_code == 0
    assert rows_of(tmp_path)[0]["prompt"] == "jumps"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "no text was given: needed --text TEXT or --texts FILE"),
        (("--text", " "), "an empty text was given"),
        (("--text", "a", "--format", "bvh,fbx"), "fbx is not known; needed some of bvh, npy, gif, webp"),
        (("--text", "a", "--format", ","), "nothing is not known"),
        (("--text", "a", "--seconds", "9"), "72 frames at 8 a second; the model draws 0.5 to 4 seconds"),
        (("--text", "a", "--seconds", "0.1"), "the model draws 0.5 to 4 seconds"),
        (("--text", "a", "--num-inference-steps", "11"), "the model was trained with 10 steps"),
        (("--texts", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_what_cannot_be_drawn_is_told_and_nothing_is_written(
    model: Path, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    done = build(model, tmp_path / "out", *options)
    assert done.exit_code == 1
    assert told in done.output
    assert not (tmp_path / "out" / "motions.jsonl").exists()


def test_texts_of_a_table(model: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"caption": "walks", "x": 1}\n{"caption": "jumps", "x": 1}\n')
    assert build(model, tmp_path / "o", "--texts", str(tmp_path / "t.jsonl")).exit_code == 0
    assert [row["prompt"] for row in rows_of(tmp_path / "o")] == ["walks", "jumps"]
    (tmp_path / "u.jsonl").write_text('{"words": "walks"}\n')
    done = build(model, tmp_path / "p", "--texts", str(tmp_path / "u.jsonl"))
    assert "needed texts under one of captions, prompt, caption, text" in done.output


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    done = build(tmp_path, tmp_path / "o", "--text", "walks")
    assert done.exit_code == 1
    assert "holds no text-to-motion pipeline" in done.output
