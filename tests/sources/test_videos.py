"""Which frames of a clip are chosen, and that decoded ones are exactly those of a full decode, at the times of the packets."""

from __future__ import annotations

import io
import itertools
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from longvpo_vectors import each
from prefopt.sources import footage
from prefopt.sources.videos import (
    ClipRef,
    allocated,
    as_clips,
    decode,
    frame_indices,
    probe,
    problem,
    sampled,
)
from tiny_videos import ENCODINGS, HEIGHT, WIDTH, all_frames, drawing, encoded, number_in, packed_again, write


@each("frame_indices", 5)
def test_frame_indices(given: dict[str, int], expected: dict[str, Any]) -> None:
    if "error" in expected:
        with pytest.raises(ValueError, match="not more frames than available"):
            frame_indices(given["total_frames"], given["num_frames"])
        return
    for rule, indices in expected.items():
        assert frame_indices(given["total_frames"], given["num_frames"], rule) == indices  # type: ignore[arg-type]


@each("allocate_frames", 4)
def test_allocated(given: dict[str, Any], expected: dict[str, Any]) -> None:
    if "error" in expected:
        with pytest.raises(ValueError, match="budget that is not smaller"):
            allocated(given["durations"], given["budget"])
    else:
        assert allocated(given["durations"], given["budget"]) == expected["frames"]


def test_equal_shares_are_equal_but_for_the_earlier_clips() -> None:
    assert allocated([0.1] * 3, 8) == [3, 3, 2]
    assert allocated([0.3, 2.3, 0.3, 1.1], 24) == [3, 12, 2, 7]  # floating point takes the wrong remainder
    for durations in ([1.0, math.nan], [1.0, -1.0], [0.0, 0.0], []):
        with pytest.raises(ValueError, match="needed"):
            allocated(durations, 8)


def test_frames_are_chosen_within_the_stretch(files: dict[str, bytes]) -> None:
    clip = ClipRef(files["h264.mp4"], start_s=1.0, end_s=3.0)
    assert probe(clip)[:4] == (10, 20, 10.0, 2.0)
    assert sampled(clip, count=4).frames == (12, 17, 22, 27)
    assert sampled(clip, count=4, rule="uniform_floor").frames == (10, 15, 20, 25)
    assert sampled(clip, count=64).frames == tuple(range(10, 30))  # all there are
    assert sampled(clip, count=64, most=2).frames == (15, 25)
    assert sampled(clip).frames == tuple(range(10, 30))
    assert sampled(clip, fps=2).frames == (12, 17, 22, 27)
    assert sampled(clip, fps=2, rule="uniform_floor").frames == (10, 15, 20, 25)
    assert sampled(clip, fps=2, most=2).frames == (17, 27)
    assert sampled(clip, fps=0.01).frames == (20,)  # one at least
    assert sampled(clip, fps=1000).frames == tuple(range(10, 30))  # each once
    chosen = replace(clip, frames=(11, 12, 25))
    assert sampled(chosen, count=8).frames == (11, 12, 25)
    assert sampled(chosen, count=1).frames == (12,)
    for wrong in (
        {"count": 0},
        {"fps": 0.0},
        {"fps": math.nan},
        {"count": 1, "fps": 1.0},
        {"most": 0},
        {"rule": "last"},
    ):
        with pytest.raises(ValueError, match=r"needed|not one of"):
            sampled(clip, **wrong)  # type: ignore[arg-type]


def test_the_stretches_of_a_video_share_no_frame_and_miss_none() -> None:
    # Matroska rounds times to the millisecond: frame 1 of 30 a second is shown at 0.033 s
    data = encoded("h264.mkv", rate=30)
    bounds = [0.0, 1 / 30, 2 / 30, 7 / 30, 1.0, None]
    clips = [ClipRef(data, a or 0.0, b) for a, b in itertools.pairwise(bounds)]
    assert [probe(clip)[:2] for clip in clips] == [(0, 1), (1, 1), (2, 5), (7, 23), (30, 10)]


def test_a_varying_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    # ten frames in the first second, then one a second
    ticks = [*range(10), *range(10, 60, 10)]
    write(tmp_path / "a.mp4", frames=15, ticks=ticks)
    clip = ClipRef(tmp_path / "a.mp4")
    frames = decode(clip)
    assert frames.seconds == pytest.approx([tick / 10 for tick in ticks])
    assert sampled(clip, fps=1).frames[:5] == (
        5,
        10,
        11,
        12,
        13,
    )  # how long the last one is shown encoders differ in
    assert sampled(clip, fps=1, rule="uniform_floor").frames == (0, 10, 11, 12, 13, 14)
    assert probe(clip).fps == pytest.approx(15 / probe(clip).duration_s)
    assert [number_in(frame) for frame in frames.pixels_FHW3] == list(range(15))


@pytest.mark.parametrize("name", ENCODINGS)
def test_decoded_frames_are_those_of_a_full_decode(name: str, files: dict[str, bytes]) -> None:
    data = files[name]
    judge = all_frames(data)
    clip = ClipRef(data)
    assert probe(clip)[:3] == (0, 40, pytest.approx(10))
    assert probe(clip).duration_s == pytest.approx(4.0)
    assert (probe(clip).width, probe(clip).height) == (WIDTH, HEIGHT)
    rng = np.random.default_rng(0)
    for count in (1, 1, 1, 2, 2, 5, 40):
        chosen = tuple(sorted(rng.choice(40, count, replace=False).tolist()))
        frames = decode(replace(clip, frames=chosen))
        assert frames.indices == chosen
        assert frames.seconds == pytest.approx([index / 10 for index in chosen], abs=2e-3)
        for index, pixels_HW3 in zip(chosen, frames.pixels_FHW3, strict=True):
            assert np.array_equal(pixels_HW3, judge[index]), (chosen, index)
            assert number_in(pixels_HW3) == index


def test_frames_far_apart_are_reached_without_decoding_all(monkeypatch: Any) -> None:
    data = encoded("h264.mp4", frames=200)
    seen: list[int] = []
    plain = footage._frames

    def counted(*args: Any) -> Any:
        for frame in plain(*args):
            seen.append(1)
            yield frame

    clip = replace(ClipRef(data), frames=(3, 190))
    probe(clip)
    monkeypatch.setattr(footage, "_frames", counted)
    frames = decode(clip)
    assert [number_in(one) for one in frames.pixels_FHW3] == [3, 190]
    assert len(seen) < 40
    # an index that does not know all key frames leads to one before
    monkeypatch.setattr(
        footage, "_leapt", lambda container, stream, known, key: container.seek(0, stream=stream) is None
    )
    assert [number_in(one) for one in decode(clip).pixels_FHW3] == [3, 190]
    # a file whose index leads elsewhere is decoded from its beginning
    monkeypatch.setattr(footage, "_leapt", lambda *args: False)
    assert [number_in(one) for one in decode(clip).pixels_FHW3] == [3, 190]


@pytest.mark.parametrize(
    ("name", "open_gop"), [("h264.mkv", False), ("h264.mkv", True), ("h264.ts", False), ("h264.avi", False)]
)
def test_a_file_that_begins_in_the_middle_begins_with_its_first_key_frame(
    name: str, open_gop: bool, tmp_path: Path
) -> None:
    x264 = f"open-gop={int(open_gop)}:keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0"
    whole = encoded(name, options={"x264-params": x264})
    data = packed_again(whole, tmp_path / name, drop=5)
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        first = next(packet.pts for packet in packets if packet.is_keyframe)
        if name == "h264.mkv":  # of an open group some are shown before the key frame, and hang on it
            behind = packets[[packet.is_keyframe for packet in packets].index(True) + 1]
            assert (behind.pts < first) == open_gop
    frames = decode(ClipRef(data))
    numbers = [number_in(one) for one in frames.pixels_FHW3]
    assert numbers == list(range(numbers[0], 40))
    assert numbers[0] > 5
    assert frames.seconds == pytest.approx([index / 10 for index in range(len(numbers))])


def test_frames_between_a_whole_and_a_damaged_one_are_not_used(files: dict[str, bytes]) -> None:
    data = bytearray(files["mpeg4.mp4"])
    judge = all_frames(bytes(data))
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert [packets[place].pts // 1024 for place in (10, 11, 12)] == [12, 10, 11]  # 10 and 11 hang on 12
        at = data.index(bytes(packets[10]))
        for place in range(at + packets[10].size // 2, at + packets[10].size):
            data[place] ^= 0xA5
    for index in range(16):
        clip = ClipRef(bytes(data), frames=(index,))
        if (error := problem(clip)) is None:
            assert np.array_equal(decode(clip).pixels_FHW3[0], judge[index]), index
        else:
            assert error.reason == "broken_video"
            assert index > 9


def test_frames_may_be_asked_for_twice_and_in_any_order(files: dict[str, bytes]) -> None:
    frames = decode(ClipRef(files["h264.mp4"], frames=(7, 3, 7)))
    assert [number_in(one) for one in frames.pixels_FHW3] == [7, 3, 7]
    assert frames.seconds == pytest.approx((0.7, 0.3, 0.7))


def turned(data: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """The video with another display matrix."""
    at = data.index(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return data[:at] + matrix + data[at + 36 :]


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # as telephones write it: a quarter turn to the right
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((1, 0, 0, -1), lambda p: p[::-1]),
        ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    ],
)
def test_frames_are_turned_upright(matrix: tuple[int, ...], upright: Any, files: dict[str, bytes]) -> None:
    data = files["h264.mp4"]
    clip = ClipRef(turned(data, *matrix), frames=(5,))
    (pixels_HW3,) = decode(clip).pixels_FHW3
    assert np.array_equal(pixels_HW3, upright(all_frames(data)[5]))
    assert (probe(clip).height, probe(clip).width) == pixels_HW3.shape[:2]
    # what FFmpeg says of the angle, counted against the clock
    with av.open(io.BytesIO(clip.source)) as container:
        rotation = next(container.decode(video=0)).rotation
    if matrix[0] * matrix[3] - matrix[1] * matrix[2] > 0:
        assert np.array_equal(pixels_HW3, np.rot90(all_frames(data)[5], rotation // 90))


def test_transparent_frames_are_put_on_white() -> None:
    images = []
    for index in range(3):
        image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
        image.putpixel((index, 0), (255, 0, 0, 255))
        images.append(image)
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=100, disposal=2)
    frames = decode(ClipRef(buffer.getvalue()))
    assert frames.pixels_FHW3.shape == (3, 16, 16, 3)
    for index, pixels_HW3 in enumerate(frames.pixels_FHW3):
        assert pixels_HW3[8, 8].tolist() == [255, 255, 255]
        assert pixels_HW3[0, index].tolist() == [255, 0, 0]


def test_frames_that_are_images(tmp_path: Path) -> None:
    for index in range(4):
        Image.fromarray(drawing(index)).save(tmp_path / f"{index}.png")
    names = [f"{index}.png" for index in range(4)]
    (clip,) = as_clips({"source": names, "fps": 2, "start_s": 0.5}, "video", tmp_path)
    assert probe(clip) == (1, 3, 2.0, 1.5, WIDTH, HEIGHT)
    frames = decode(sampled(clip, count=2))
    assert frames.indices == (1, 3)
    assert frames.seconds == (0.0, 1.0)
    assert [number_in(one) for one in frames.pixels_FHW3] == [1, 3]
    assert probe(as_clips({"source": names}, "video", tmp_path)[0])[1:4] == (4, 1.0, 4.0)
    Image.fromarray(drawing(0, 24, 64)).save(tmp_path / "3.png")
    assert "image 3 has 64 x 24 pixels" in str(problem(as_clips({"source": names}, "video", tmp_path)[0]))
    Image.fromarray(drawing(3)).save(tmp_path / "3.png")
    (tmp_path / "2.png").unlink()
    assert problem(as_clips({"source": names}, "video", tmp_path)[0]).reason == "missing_image"  # type: ignore[union-attr]


def test_without_pyav_one_sentence_says_what_to_do(files: dict[str, bytes], monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'prefopt\[video\]'"):
        probe(ClipRef(files["h264.mp4"]))
