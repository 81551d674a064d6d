"""Real files through the command: what is in them, what is wrong with them, and a run on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny_videos
import tiny_vision
from modalities.vision_language.video.video_runs import column, said, written
from processes import assert_plain_error, prefopt


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny InternVL, and clips beside it."""
    folder = tmp_path_factory.mktemp("films")
    tiny_vision.save_tiny("internvl", folder / "model")
    for n in range(5):
        tiny_videos.write(folder / f"{n}.mp4", frames=12 + 4 * n)
    tiny_videos.write(folder / "turned.mkv", codec="ffv1", pix_fmt="bgr0", size=(48, 64))
    return folder


def row(n: int, clips: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "id": f"r{n}", "video": clips, "prompt": [{"role": "user", "content": f"what is in {tiny_vision.WORDS[n]} ?"}],
        "chosen": said("a red cat sits"), "rejected": said("no blue dog"), **more,
    }  # fmt: skip


def clips(*names: str) -> list[dict[str, Any]]:
    return [{"source": name} for name in names]


def test_check_tells_tokens_of_a_video_and_why_rows_are_left_out(place):
    (place / "cut.mp4").write_bytes((place / "1.mp4").read_bytes()[:700])
    (place / "words.mp4").write_text("this is no video", "utf-8")
    (place / "empty.mp4").write_bytes(b"")
    rows = [
        row(0, clips("0.mp4", "1.mp4", "turned.mkv"), anchor=1, reference_context="anchor"),
        row(1, [{"source": "2.mp4", "start_s": 0.5, "end_s": 1.5}]),
        row(2, clips("cut.mp4")),
        row(3, clips("words.mp4")),
        row(4, clips("empty.mp4")),
        row(5, clips("nowhere.mp4")),
        row(6, [{"source": "0.mp4", "frames": [0, 100_000]}]),
        row(7, [{"source": "0.mp4", "start_s": 99.0}]),
    ]
    done = prefopt(place, "check", written(place, rows), "--model", place / "model", "--max-length", 4096)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    for reason in ("broken_video", "missing_video", "wrong_frames", "no_frames"):
        assert reason in told, told
    assert (
        "videos: 8 to 24 (mean 16) frames, 32 to 96 (mean 64) tokens of features each; the reference sees 32"
        in told
    )


def test_a_run_on_files(place, own_cache, tmp_path):
    rows = [
        row(n, clips("0.mp4", "1.mp4", "2.mp4"), anchor=n % 3, pinned=(n + 1) % 3, pool=clips("3.mp4", "4.mp4"),
            reference_context="anchor")
        for n in range(4)
    ]  # fmt: skip
    data = written(place, rows, "train.jsonl")
    done = prefopt(
        place, "train", "longvpo", f"model={place / 'model'}", f"data={data}", f"output_dir={tmp_path / 'run'}",
        "video_frames=2", "max_steps=3", "per_device_train_batch_size=2", "gradient_accumulation_steps=1", "sample_prompts=2",
        "sample_max_new_tokens=3", "eval_size=0.25",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(column(tmp_path / "run", "loss")) > 0
    record = tmp_path / "run" / "record"
    positions = json.loads((record / "positions.json").read_text())
    assert len(positions["before"]) == len(positions["after"]) == len(positions["positions"]) == 5
    assert positions["examples"] == 1
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    for words in (
        "Does it matter where the answer stands?",
        "Accuracy by position of the evidence",
        "start margin",
    ):
        assert words in page, words
    assert page.count("data:image/") >= 2  # the first example's strip, and a prompt's


def test_long_videos_are_shown_in_fewer_frames(place):
    rows = [row(0, clips("0.mp4", "1.mp4", "2.mp4")), row(1, clips("3.mp4"))]
    data = written(place, rows, "long.jsonl")
    done = prefopt(place, "check", data, "--model", place / "model", "--max-length", 160)
    told = " ".join(done.stdout.split())
    assert (
        "1 row(s) hold videos that are too long for max_length=160: fewer frames of each clip are shown"
        in told
    )
    assert "0 truncated" in told or "truncated" not in told


def test_nothing_usable_is_an_error_before_the_model_is_loaded(place, tmp_path):
    data = written(place, [row(0, clips("nowhere.mp4"))], "missing.jsonl")
    done = prefopt(
        place,
        "train",
        "longvpo",
        f"model={place / 'model'}",
        f"data={data}",
        f"output_dir={tmp_path / 'run'}",
    )
    assert_plain_error(done, "missing_video", "Paths of videos start at")
    assert not (tmp_path / "run").exists()
