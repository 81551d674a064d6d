from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prefopt.motion import camera, drawing
from prefopt.motion.drawing import animate, strip, strip_svg
from prefopt.motion.skeleton import HUMANML3D, STICK
from walking_figures import wander

BLUE, ORANGE = (36, 80, 200), (193, 79, 28)
STANDING = np.array(
    [
        *([0, 0.9, 0], [0, 1.4, 0], [0, 1.7, 0], [0.1, 0.5, 0], [0.15, 0, 0], [-0.1, 0.5, 0], [-0.15, 0, 0]),
        *([0.3, 1.1, 0], [0.4, 0.8, 0], [-0.3, 1.1, 0], [-0.4, 0.8, 0]),
    ]
)
"""(11, 3) a figure that faces +Z, its left at +X."""


def moving(frames: int = 12, step: float = 0.1) -> np.ndarray:
    """(F, 11, 3) the same, gliding forward with its left hand rising."""
    motion = np.repeat(STANDING[None], frames, 0)
    motion[:, :, 2] += step * np.arange(frames)[:, None]
    motion[:, 8, 1] += 0.08 * np.arange(frames)
    return motion


def timed(path: Path) -> list[int]:
    """Milliseconds of each frame."""
    with Image.open(path) as picture:
        found = []
        for n in range(picture.n_frames):
            picture.seek(n)
            picture.load()
            found.append(round(picture.info["duration"]))
        return found


def mean_x(picture: Image.Image, colour: tuple[int, int, int]) -> float:
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    near = np.abs(pixels - np.array(colour)).sum(-1) < 60
    assert near.sum() > 50
    return float(np.nonzero(near)[1].mean())


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize(("fps", "frames"), [(8.0, 12), (20.0, 9), (12.5, 10)])
def test_an_animation_lasts_as_long_as_the_motion(
    tmp_path: Path, suffix: str, fps: float, frames: int
) -> None:
    path = animate(moving(frames), STICK, fps, tmp_path / f"a{suffix}", size=96)
    times = timed(path)
    assert len(times) == frames
    assert sum(times) == pytest.approx(1000 * frames / fps, abs=10)


def test_a_fast_motion_keeps_its_speed_in_a_gif(tmp_path: Path) -> None:
    times = timed(animate(moving(24, 0.02), STICK, 120.0, tmp_path / "a.gif", size=96))
    assert len(times) == 8
    assert min(times) >= 20
    assert sum(times) == pytest.approx(200, abs=10)


def test_the_figures_left_is_blue_and_to_the_right_of_who_faces_it(tmp_path: Path) -> None:
    with Image.open(strip(moving(1), STICK, 8, tmp_path / "s.png", stills=1, size=200)) as picture:
        assert mean_x(picture, BLUE) > mean_x(picture, ORANGE) + 20
    turned = moving(1) * np.array([-1, 1, -1])  # from behind
    with Image.open(strip(turned, STICK, 8, tmp_path / "s.png", stills=1, size=200)) as picture:
        assert mean_x(picture, BLUE) < mean_x(picture, ORANGE) - 20


def test_the_camera_goes_along_and_the_floor_stays() -> None:
    motion = moving(2, step=0.2)
    view = camera.view_of([motion])
    a, b = (camera.project(pose, camera.centre_of(pose, view), view, 200)[0] for pose in motion)
    np.testing.assert_allclose(a, b)
    before, after = (camera.floor_lines(pose, view, 200) for pose in motion)
    assert before != after
    far = motion + np.array([0.0, 0.0, 10 * camera.SPACING])  # by whole squares: the same picture
    for (p, q), (r, s) in zip(before, camera.floor_lines(far[0], view, 200), strict=True):
        np.testing.assert_allclose([*p, *q], [*r, *s], atol=1e-9)


@pytest.mark.parametrize("yaw", np.linspace(0, 2 * math.pi, 5))
def test_every_joint_is_inside_the_picture(yaw: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "YAW", yaw)
    motion = wander(40, turning=0.1).numpy()
    view = camera.view_of([motion])
    for pose in motion:
        seen = camera.project(pose, camera.centre_of(pose, view), view, 300)
        assert seen[:, :2].min() > 0
        assert seen[:, :2].max() < 300


def test_the_way_that_it_came_ends_below_the_figure() -> None:
    motion = moving(6, step=0.2)
    view = camera.view_of([motion])
    way = camera.trail(motion, 4, view, 200)
    assert len(way) == 5
    below = np.array([[0.0, 0.0, motion[4, 0, 2]]])
    np.testing.assert_allclose(
        way[-1], camera.project(below, camera.centre_of(motion[4], view), view, 200)[0, :2]
    )
    lengths = [math.dist(a, b) for a, b in itertools.pairwise(way)]
    assert min(lengths) > 5


def test_figures_side_by_side_share_scale_and_time(tmp_path: Path) -> None:
    path = animate([moving(12), moving(5)], STICK, 8, tmp_path / "a.gif", labels=["before", "after"], size=96)
    assert len(timed(path)) == 12
    with Image.open(path) as picture:
        assert picture.size[0] == 192
        assert picture.size[1] > 96  # a line of text below
        picture.seek(5)
        fifth = picture.convert("RGB").crop((96, 0, 192, 96)).tobytes()
        picture.seek(11)
        assert picture.convert("RGB").crop((96, 0, 192, 96)).tobytes() == fifth  # the shorter one waits


def test_a_strip_is_the_same_moments_as_png_and_svg(tmp_path: Path) -> None:
    motion = torch.from_numpy(wander(61).numpy())
    with Image.open(strip(motion, HUMANML3D, 20, tmp_path / "s.png", size=100)) as picture:
        assert picture.size == (350, 122)
    root = ET.fromstring(strip(motion, HUMANML3D, 20, tmp_path / "s.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    assert [text.text for text in root.iter(f"{space}text")] == ["0.0 s", "0.8 s", "1.5 s", "2.2 s", "3.0 s"]
    groups = root.findall(f"{space}g")
    assert [len(group.findall(f"{space}circle")) for group in groups] == [1] * 5
    bones = [
        line for line in groups[0].findall(f"{space}line") if "stroke-width:1.0" not in line.get("style")
    ]
    assert len(bones) == 21


def test_a_title_is_escaped_and_a_strip_without_one_is_decoration() -> None:
    text = strip_svg(moving(), STICK, 8, title='"><script>alert(1)</script>')
    root = ET.fromstring(text)
    assert "<script>" not in text
    assert root.get("aria-label") == '"><script>alert(1)</script>'
    assert ET.fromstring(strip_svg(moving(), STICK, 8)).get("aria-hidden") == "true"


@pytest.mark.parametrize(
    ("frames", "stills", "expected"), [(1, 5, [0]), (3, 5, [0, 1, 2]), (9, 5, [0, 2, 4, 6, 8]), (100, 1, [0])]
)  # fmt: skip
def test_moments(frames: int, stills: int, expected: list[int]) -> None:
    assert drawing.moments(frames, stills) == expected


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"path": "a.mp4"}, r"a\.mp4 ends in \.mp4; needed \.gif or \.webp"),
        ({"path": "a"}, "ends in nothing"),
        ({"positions": np.zeros((5, 22, 3))}, r"shape \(5, 22, 3\); needed \(frames, 11, 3\) of the skeleton stick"),
        ({"positions": np.zeros((0, 11, 3))}, r"shape \(0, 11, 3\)"),
        ({"positions": np.full((5, 11, 3), np.nan)}, "5 of 5 frames hold numbers that are not finite, the first is frame 0"),
        ({"fps": 0.0}, "fps is 0.0"),
        ({"fps": math.nan}, "fps is nan"),
        ({"labels": ["a", "b"]}, r"2 labels for 1 figure"),
        ({"labels": "a"}, r"a single string for 1 figure"),
        ({"size": 8}, "size is 8 pixels"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_told(tmp_path: Path, change: dict, told: str) -> None:
    call = {"positions": moving(), "fps": 8.0, "path": "a.gif", **change}
    path = tmp_path / call.pop("path")
    with pytest.raises(ValueError, match=told):
        animate(call.pop("positions"), STICK, call.pop("fps"), path, **call)
    assert not path.exists()
