"""Clips as files: every bit comes back."""

from __future__ import annotations

import sys

import av
import numpy as np
import pytest

from prefopt.worlds.film import files
from prefopt.worlds.film.task import ANSWERS, OBJECTS, Clip, read


def decoded(path) -> tuple[np.ndarray, list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return np.stack([f.to_ndarray(format="rgb24") for f in frames]), [float(f.time) for f in frames]


def test_a_file_has_the_very_pixels_at_two_frames_a_second(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 12, 12, 3), dtype=np.uint8)
    paths = list(files.write(tmp_path, pixels))
    assert [path.name for path in paths] == ["00000.mp4", "00001.mp4", "00002.mp4"]
    for path, one in zip(paths, pixels, strict=True):
        back, seconds = decoded(path)
        assert np.array_equal(back, one)
        assert seconds == [0.0, 0.5, 1.0, 1.5]
    again = tmp_path / "again.mp4"
    files.encode(again, pixels[1])
    assert again.read_bytes() == paths[1].read_bytes()


def test_the_pool_has_every_object_doing_everything_so_often():
    pool = files.pool(2)
    assert len(pool) == len(OBJECTS) * len(ANSWERS) * 2 == 576
    for k, clip in enumerate(pool):
        assert k in (files.number(clip, 0, 2), files.number(clip, 1, 2))


def test_a_worlds_files_are_its_frames(world):
    folder = world.clip_files()
    frames = world.frames()
    assert frames.shape == (288, 4, 12, 12, 3)
    assert read(frames) == files.pool(1)
    for k in (0, 100, 287):
        assert np.array_equal(decoded(folder / files.name_of(k))[0], frames[k])
    test = world.frames("test")
    assert read(test) == files.pool(1)
    assert not np.array_equal(frames, test)
    assert world.clip_files("test") != folder
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0


def test_without_pyav_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'prefopt\[video\]'"):
        files.encode(tmp_path / "a.mp4", np.zeros((4, 12, 12, 3), np.uint8))


def test_a_clip_is_numbered_by_object_answer_and_render():
    assert files.number(Clip(1, 0), 0, 8) == 96
    assert files.number(Clip(0, 1), 3, 8) == 11
