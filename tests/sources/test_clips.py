"""Clips as rows write them down, there and back, and the digests that name them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefopt.comparisons import UnusableItem
from prefopt.sources.pictures import ImageRef
from prefopt.sources.videos import (
    ClipRef,
    as_clips,
    as_row,
    probe,
)
from tiny_videos import (
    png,
)


def test_rows_of_all_forms(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(files["h264.mp4"])
    whole = as_clips("clips/a.mp4", "video", tmp_path)
    assert whole == (ClipRef(tmp_path / "clips" / "a.mp4"),)
    assert str(whole[0]) == "clips/a.mp4"
    assert as_clips({"bytes": None, "path": "clips/a.mp4"}, "video", tmp_path) == whole
    assert as_clips({"source": "clips/a.mp4", "start_s": None, "frames": None}, "video", tmp_path) == whole
    assert as_clips(whole[0], "video") == whole
    assert as_clips(bytearray(files["h264.mp4"]), "video")[0].digest == whole[0].digest
    row = {"source": "clips/a.mp4", "start_s": 1, "end_s": 2.5, "frames": np.array([12, 20])}
    clips = as_clips([row, "clips/a.mp4"], "video", tmp_path)
    assert clips == (ClipRef(tmp_path / "clips" / "a.mp4", 1.0, 2.5, (12, 20)), *whole)
    written = json.loads(json.dumps([as_row(clip, tmp_path) for clip in clips]))
    assert written == [{**row, "frames": [12, 20]}, {"source": "clips/a.mp4", "start_s": 0.0}]
    assert as_clips(written, "video", tmp_path) == clips
    outside = as_row(clips[1], tmp_path / "elsewhere")
    assert outside == {"source": "../clips/a.mp4", "start_s": 0.0}
    (tmp_path / "elsewhere").mkdir()
    assert as_clips(outside, "video", tmp_path / "elsewhere")[0].digest == clips[1].digest
    images = ClipRef((ImageRef(tmp_path / "0.png"), ImageRef(tmp_path / "1.png")), fps=2.0)
    assert as_row(images, tmp_path) == {"source": ["0.png", "1.png"], "start_s": 0.0, "fps": 2.0}
    for held in (files["h264.mp4"], (ImageRef(png()),)):
        with pytest.raises(ValueError, match="held in memory: needed a file"):
            as_row(ClipRef(held), tmp_path)
    assert as_clips(as_row(images, tmp_path), "video", tmp_path) == (images,)


@pytest.mark.parametrize(
    ("value", "word", "said"),
    [
        (None, "missing_value", "video is absent"),
        ("", "missing_value", "video is absent"),
        ([], "missing_value", "at least one clip"),
        ({}, "missing_value", "has no source"),
        ({"source": None}, "missing_value", "has no source"),
        ({"source": []}, "no_frames", "empty list of images"),
        ("https://example.org/a.mp4", "wrong_type", "download the video and give its path"),
        ({"source": "s3://bucket/a.mp4"}, "wrong_type", "download the video and give its path"),
        (["a.mp4", 3], "wrong_type", r"video[1] is 3"),
        (7, "wrong_type", "needed a video"),
        ({"source": "a.mp4", "start": 3.0}, "wrong_type", "did you mean 'start_s'"),
        ({"source": "a.mp4", "start_s": "3"}, "wrong_type", "needed a number"),
        ({"source": "a.mp4", "start_s": -1.0}, "wrong_type", "needed a number, 0 or more"),
        ({"source": "a.mp4", "end_s": math.nan}, "wrong_type", "needed a number"),
        ({"source": "a.mp4", "start_s": 3, "end_s": 3}, "no_frames", "nothing is between"),
        ({"source": "a.mp4", "frames": [1.5]}, "wrong_type", "needed a list of indices"),
        ({"source": "a.mp4", "frames": [-1]}, "wrong_type", "needed a list of indices"),
        ({"source": "a.mp4", "frames": [3, 3]}, "wrong_type", "ascending"),
        ({"source": "a.mp4", "fps": 2.0}, "wrong_type", "a file knows its own"),
        ({"source": ["a.png"], "fps": 0}, "wrong_type", "above 0"),
    ],
)
def test_rows_that_are_wrong(value: Any, word: str, said: str) -> None:
    with pytest.raises(UnusableItem) as caught:
        as_clips(value, "video")
    assert caught.value.reason == word
    assert said in str(caught.value)


def test_digests(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(files["h264.mp4"])
    clip = ClipRef(path)
    digests = {
        clip.digest,
        replace(clip, start_s=1.0).digest,
        replace(clip, end_s=1.0).digest,
        replace(clip, frames=(1,)).digest,
        replace(clip, frames=(1, 2)).digest,
        ClipRef(files["h264.mkv"]).digest,
        ClipRef((ImageRef(png()),)).digest,
        ClipRef((ImageRef(png()),), fps=2.0).digest,
    }
    assert len(digests) == 8
    assert all(len(digest) == 32 for digest in digests)
    assert ClipRef(files["h264.mp4"], name="other").digest == clip.digest
    path.write_bytes(files["h264.mkv"])
    assert clip.digest == ClipRef(files["h264.mkv"]).digest  # a file that changes is read again
    assert probe(clip).frames == 40
