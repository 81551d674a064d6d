"""Files that are no videos, are damaged, cut short or lie about themselves: what is there is used, and the rest is told."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from prefopt.comparisons import UnusableItem
from prefopt.sources import footage, video_files
from prefopt.sources.videos import (
    ClipRef,
    decode,
    probe,
    problem,
    sampled,
)
from tiny_videos import (
    HEIGHT,
    WIDTH,
    all_frames,
    encoded,
    number_in,
    packed_again,
    png,
    write,
)


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
