"""Clips of videos: their frames are exactly those of a full decode, their times those of the packets."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from prefopt.comparisons import UnusableItem
from prefopt.sources import footage, video_files
from prefopt.sources.pictures import ImageRef
from prefopt.sources.videos import (
    ClipRef,
    allocated,
    as_clips,
    as_row,
    decode,
    frame_indices,
    probe,
    problem,
    sampled,
)
from tiny_videos import ENCODINGS, HEIGHT, WIDTH, all_frames, drawing, encoded, number_in, packed_again, write

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "longvpo.json").read_text())


def vectors(kind: str) -> list[Any]:
    return [
        pytest.param(case["inputs"], case["expected"], id=case["name"])
        for case in VECTORS
        if case["kind"] == kind
    ]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """One video of 40 frames, 10 a second, in each encoding."""
    return {name: encoded(name) for name in ENCODINGS}


# -- which frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inputs", "expected"), vectors("frame_indices"))
def test_frame_indices(inputs: dict[str, int], expected: dict[str, Any]) -> None:
    if "error" in expected:
        with pytest.raises(ValueError, match="not more frames than available"):
            frame_indices(inputs["total_frames"], inputs["num_frames"])
        return
    for rule, indices in expected.items():
        assert frame_indices(inputs["total_frames"], inputs["num_frames"], rule) == indices  # type: ignore[arg-type]


@pytest.mark.parametrize(("inputs", "expected"), vectors("allocate_frames"))
def test_allocated(inputs: dict[str, Any], expected: dict[str, Any]) -> None:
    if "error" in expected:
        with pytest.raises(ValueError, match="budget that is not smaller"):
            allocated(inputs["durations"], inputs["budget"])
    else:
        assert allocated(inputs["durations"], inputs["budget"]) == expected["frames"]


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


# -- the frames themselves ---------------------------------------------------------------------------------


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


# -- what cannot be used -----------------------------------------------------------------------------------


def reason(clip: ClipRef, thorough: bool = True) -> str | None:
    error = problem(clip, thorough)
    return error and error.reason


def sound_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawing(0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "word", "said"),
    [
        (b"", "broken_video", "no bytes"),
        (b"hello, this is no video\n" * 50, "broken_video", "no video that can be read"),
        (np.random.default_rng(0).bytes(5000), "broken_video", "no video that can be read"),
        (png(), "broken_video", "no video that can be read"),
        (encoded("raw.h264"), "broken_video", "no video that can be read"),  # it has no clock
        (sound_only(), "no_frames", "only audio"),
        (encoded()[:2000], "broken_video", "cut short"),  # the index of this file is at its end
        (
            encoded("h264.mkv").partition(b"\x1f\x43\xb6\x75")[0] + b"\x1f\x43\xb6\x75" + bytes(20),
            "no_frames",
            "is empty",
        ),
    ],
    ids=["empty", "text", "noise", "image", "raw", "sound", "without index", "no frame"],
)
def test_no_video(data: bytes, word: str, said: str) -> None:
    error = problem(ClipRef(data, name="a.mp4"), thorough=False)
    assert error is not None
    assert error.reason == word
    assert said in str(error)
    assert str(error).startswith("a.mp4")


def test_lists_of_other_files_are_not_followed(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: Any
) -> None:
    (tmp_path / "a.mp4").write_bytes(files["h264.mp4"])
    (tmp_path / "list.txt").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'a.mp4'}\n")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:4,\n{tmp_path / 'a.mp4'}\n#EXT-X-ENDLIST\n")
    for name in ("list.txt", "list.m3u8"):
        assert reason(ClipRef(tmp_path / name)) == "broken_video"
    monkeypatch.chdir(tmp_path)
    assert reason(ClipRef(Path("concat:a.mp4|a.mp4"))) == "missing_video"


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "absent.mp4", tmp_path, tmp_path / "pipe.mp4", Path("/dev/zero")):
        for look in (probe, lambda clip: clip.digest):
            with pytest.raises(UnusableItem) as caught:
                look(ClipRef(path))
            assert caught.value.reason == "missing_video"


def boxes(data: bytes, kind: bytes) -> int:
    at = data.index(kind)
    assert data.count(kind) == 1
    return at + 4


def test_the_header_is_not_believed() -> None:
    buffer = io.BytesIO()
    write(buffer, frames=3, codec="mjpeg", pix_fmt="yuvj420p", format="mp4")
    data = bytearray(buffer.getvalue())
    # 100,000 samples of the size that the first one has, one after another, each shown for a tenth
    at = boxes(data, b"stsz")
    struct.pack_into(">II", data, at + 4, struct.unpack_from(">I", data, at + 12)[0], 100_000)
    at = boxes(data, b"stts")
    struct.pack_into(">I", data, at + 8, 100_000)
    at = boxes(data, b"stsc")
    struct.pack_into(">I", data, at + 12, 100_000)
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].frames == 100_000
    clip = ClipRef(bytes(data))
    assert probe(clip).frames < 40  # what the bytes of the file can hold
    assert number_in(decode(replace(clip, frames=(0,))).pixels_FHW3[0]) == 0


@pytest.mark.parametrize("name", ["h264.mkv", "h264.ts", "vp9.webm", "ffv1.mkv", "mpeg4.avi", "gif.gif"])
def test_of_a_file_that_is_cut_short_what_is_there_is_used(name: str, files: dict[str, bytes]) -> None:
    data = files[name]
    clip = ClipRef(data[: len(data) * 9 // 10])
    frames = probe(clip).frames
    assert 15 < frames < 40
    judge = all_frames(data)
    whole = [index for index in range(frames) if problem(replace(clip, frames=(index,))) is None]
    assert len(whole) >= frames - 4
    for index in whole[:3]:
        assert np.array_equal(decode(replace(clip, frames=(index,))).pixels_FHW3[0], judge[index])


def test_an_mp4_that_is_cut_short_behind_its_index(tmp_path: Path) -> None:
    data = packed_again(encoded(options={"bf": "0", "g": "12"}), tmp_path / "a.mp4", movflags="+faststart")
    assert data.index(b"moov") < data.index(b"mdat")
    clip = ClipRef(data[: (data.index(b"mdat") + len(data)) // 2])
    footage = probe(clip)
    assert 5 < footage.frames < 40
    assert footage.duration_s == pytest.approx(footage.frames / 10)
    assert [number_in(one) for one in decode(clip).pixels_FHW3] == list(range(footage.frames))


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "mpeg4.mp4", "mpeg4.avi"])
def test_damage_in_the_middle_is_said_and_what_hangs_on_it_is_not_used(
    name: str, files: dict[str, bytes]
) -> None:
    data = bytearray(files[name])
    judge = all_frames(bytes(data))
    middle = (max(data.find(b"movi"), 0) + len(data)) // 2  # an AVI begins with a large header
    for place in range(middle, middle + 24):
        data[place] ^= 0xA5
    clip = ClipRef(bytes(data), name="a.mp4")
    assert reason(clip, thorough=False) is None
    assert probe(clip).frames == 40
    broken = []
    for index in range(40):
        error = problem(replace(clip, frames=(index,)))
        if error is None:
            assert np.array_equal(decode(replace(clip, frames=(index,))).pixels_FHW3[0], judge[index]), index
        else:
            broken.append(index)
            assert error.reason == "broken_video"
            assert f"frame {index} of 40 cannot be decoded" in str(error)
    # from the damaged frame to the next from which decoding can begin; frames that are counted are lost to the end
    assert 0 < len(broken) < 30
    assert broken == list(range(broken[0], broken[-1] + 1))


def test_whatever_pyav_raises_says_that_the_file_is_broken(files: dict[str, bytes], monkeypatch: Any) -> None:
    def raising(*args: Any) -> Any:
        raise IndexError("list index out of range")  # as of a stream whose number is damaged

    monkeypatch.setattr(footage, "packets_of", raising)
    error = problem(ClipRef(files["vp9.webm"], name="a.webm"))
    assert error is not None
    assert error.reason == "broken_video"
    assert "damaged, or cut short (list index out of range)" in str(error)


def test_damaged_names_and_clocks(files: dict[str, bytes], monkeypatch: Any) -> None:
    assert reason(ClipRef(files["h264.mp4"].replace(b"Lavf", b"La\xc9f"))) is None  # no UTF-8
    plain = footage.packets_of

    def ages(*args: Any) -> Any:
        for number, packet in enumerate(plain(*args)):
            packet.pts = packet.pts if number else -(2**62)
            packet.pts += 2**62 * (number == 39)
            yield packet

    monkeypatch.setattr(footage, "packets_of", ages)
    error = problem(ClipRef(files["vp9.webm"]))
    assert error is not None
    assert error.reason == "broken_video"
    assert "its clock is damaged" in str(error)


def test_huge_videos(files: dict[str, bytes], monkeypatch: Any) -> None:
    monkeypatch.setattr(video_files, "MAX_PIXELS", 1000)
    assert reason(ClipRef(files["h264.mp4"])) == "huge_video"
    monkeypatch.undo()
    monkeypatch.setattr(video_files, "MAX_PACKETS", 39)
    assert reason(ClipRef(files["h264.mp4"])) == "huge_video"
    monkeypatch.setattr(video_files, "MAX_PACKETS", 40)
    assert reason(ClipRef(files["h264.mp4"])) is None
    monkeypatch.setattr(footage, "MAX_BYTES", 10 * WIDTH * HEIGHT * 3)
    with pytest.raises(UnusableItem, match="choose fewer frames") as caught:
        decode(ClipRef(files["h264.mp4"]))
    assert caught.value.reason == "huge_video"
    assert len(decode(sampled(ClipRef(files["h264.mp4"]), count=10)).indices) == 10


def test_frames_of_changing_size_are_refused(monkeypatch: Any) -> None:
    # two streams one after the other; the times begin again, so that frames are known by counting
    data = encoded("h264.ts", frames=5) + encoded("h264.ts", frames=5, size=(32, 32))
    clip = ClipRef(data)
    assert reason(replace(clip, frames=(2,))) is None
    error = problem(replace(clip, frames=(7,)))
    assert error is not None
    assert error.reason == "broken_video"
    assert "frame 7 has 32 x 32 pixels, the first one 64 x 48" in str(error)
    # a later frame may not be larger than the first was allowed to be
    data = encoded("h264.ts", frames=5, size=(32, 32)) + encoded("h264.ts", frames=5)
    assert "frame 7 has 64 x 48" in str(problem(ClipRef(data, frames=(7,))))
    monkeypatch.setattr(video_files, "MAX_PIXELS", 2000)
    assert "can be decoded" in str(problem(ClipRef(data, frames=(7,))))


def test_empty_stretches_and_frames_elsewhere(files: dict[str, bytes]) -> None:
    clip = ClipRef(files["h264.mp4"], name="a.mp4")
    error = problem(replace(clip, start_s=4.0))
    assert error is not None
    assert error.reason == "no_frames"
    assert str(error) == "a.mp4: no frame from 4.0 s to the end; it has 40 frames in 4.000 s"
    assert reason(replace(clip, start_s=1.01, end_s=1.05)) == "no_frames"
    assert reason(replace(clip, frames=())) == "no_frames"
    assert reason(replace(clip, frames=(40,))) == "wrong_frames"
    assert reason(replace(clip, start_s=2.0, frames=(3,))) == "wrong_frames"


def test_a_cover_is_no_video() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 8000, 0
        container.mux(cover.encode(av.VideoFrame(16, 16, "yuvj420p")))
        container.mux(cover.encode())
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    error = problem(ClipRef(buffer.getvalue()))
    assert error is not None
    assert error.reason == "no_frames"
    assert "audio, video" in str(error)


# -- rows --------------------------------------------------------------------------------------------------


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
    assert written == [{**row, "frames": [12, 20]}, {"source": "clips/a.mp4"}]
    assert as_clips(written, "video", tmp_path) == clips
    assert as_row(clips[1], tmp_path / "elsewhere") == {"source": (tmp_path / "clips" / "a.mp4").as_posix()}
    images = ClipRef((ImageRef(tmp_path / "0.png"), ImageRef(tmp_path / "1.png")), fps=2.0)
    assert as_row(images, tmp_path) == {"source": ["0.png", "1.png"], "fps": 2.0}
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


def test_without_pyav_one_sentence_says_what_to_do(files: dict[str, bytes], monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install 'prefopt\[video\]'"):
        probe(ClipRef(files["h264.mp4"]))
