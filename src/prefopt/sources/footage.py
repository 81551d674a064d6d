"""A video file by PyAV: which frames it really has and when they are shown, and those frames as RGB.

    timeline    times and size of the frames, from the packets; what the header says of their number is not believed
    pictures    the frames with given indices, upright, exactly those

Indices count frames in the order in which they are shown, from 0. Frames that cannot be decoded because the file
begins in the middle of something (before its first key frame) are not counted.

Legend: N frames of the file, F chosen frames, K key frames, H and W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prefopt.comparisons import UnusableItem
from prefopt.sources.video_files import Source, mark, opened, packets_of

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

WITHOUT_TIMES = ("avi",)  # frames are counted as they come out
B = 3  # av.video.frame.PictureType.B
LEAP = 8  # frames that are rather decoded than leapt over
MAX_BYTES = 8 * 2**30  # of decoded frames at once


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown.

    Attributes:
        ticks_N: times in ticks of the file's clock, ascending; the first is the beginning of the video.
        end: tick at which the last frame ends.
        tick_s: seconds a tick.
        keys_K: ticks of the frames that decoding can begin at, ascending.
        key_marks_K: where the file is asked to go for each of them, as its own index counts (decoding time).
        ordered: whether a decoded frame says its time; otherwise it is known by counting from the beginning.
        width, height: pixels of the upright frame.
        turn: what makes a stored frame upright.
    """

    ticks_N: np.ndarray
    end: int
    tick_s: Fraction
    keys_K: np.ndarray
    key_marks_K: np.ndarray
    ordered: bool
    width: int
    height: int
    turn: Turn

    @property
    def seconds_N(self) -> np.ndarray:
        """float64, from the first frame."""
        return (self.ticks_N - self.ticks_N[0]) * float(self.tick_s)

    @property
    def duration_s(self) -> float:
        """To the end of the last frame."""
        return float((self.end - int(self.ticks_N[0])) * self.tick_s)


class Turn(NamedTuple):
    """One of the eight ways to lay a frame: rows and columns changed, then mirrored."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    def __call__(self, pixels_HW3: np.ndarray) -> np.ndarray:
        """The frame, upright."""
        if self.transposed:
            pixels_HW3 = pixels_HW3.transpose(1, 0, 2)
        return pixels_HW3[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]


def timeline(source: Source) -> Timeline:
    """What is known of a video without decoding more than its first frame; files are looked at once.

    Raises:
        UnusableItem: as `prefopt.sources.videos.probe` says.
    """
    if isinstance(source.where, bytes):
        return _timeline(source)
    return _cached_timeline(source.where, mark(source.where))


def pictures(source: Source, known: Timeline, indices: Sequence[int]) -> np.ndarray:
    """Frames of a video.

    Args:
        source: the video.
        known: its timeline.
        indices: of the frames, ascending, none twice.

    Returns:
        (F, H, W, 3), uint8, upright. Transparent parts are on white. Colours follow the file's tags (BT.601 where it
        has none); pixels that are not square stay as they are stored.

    Raises:
        UnusableItem: a frame that cannot be decoded ("broken_video"); too much for memory ("huge_video").
    """
    size = len(indices) * known.height * known.width * 3
    if size > MAX_BYTES:
        raise UnusableItem(
            f"{source.name}: {len(indices):,} frames of {known.width} x {known.height} pixels are {size / 2**30:.1f} GiB;"
            f" at most {MAX_BYTES / 2**30:.0f} GiB are decoded at once; choose fewer frames",
            "huge_video",
        )
    pixels_FHW3 = np.empty((len(indices), known.height, known.width, 3), np.uint8)
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()  # setting one up costs more than using it
    missing = dict(zip(indices, range(len(indices)), strict=True))
    for index, frame in _found_frames(source, known, indices):
        place = missing.pop(index, None)
        if place is None:
            continue
        pixels_HW3 = known.turn(_rgb(frame, reformatter))
        if pixels_HW3.shape != pixels_FHW3.shape[1:]:
            height, width = pixels_HW3.shape[:2]
            raise UnusableItem(
                f"{source.name}: frame {index} has {width} x {height} pixels, the first one {known.width} x"
                f" {known.height}; encode the video again with one size",
                "broken_video",
            )
        pixels_FHW3[place] = pixels_HW3
    if missing:
        raise UnusableItem(
            f"{source.name}: frame {min(missing)} of {len(known.ticks_N)} cannot be decoded: the file is damaged or"
            " cut short there; get it again, encode it again, or end the clip before that frame",
            "broken_video",
        )
    return pixels_FHW3


# -- looking -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _cached_timeline(path: Path, seen: tuple[int, int]) -> Timeline:
    return _timeline(Source(path, str(path)))


def _timeline(source: Source) -> Timeline:
    with opened(source) as (container, stream):
        found = _Found()
        for packet in packets_of(container, stream, source.name):
            found.add(packet)
        if not found.shown:
            raise UnusableItem(f"{source.name} has no frame: its video stream is empty", "no_frames")
        rate = stream.average_rate or stream.guessed_rate or Fraction(1)
        tick_s = stream.time_base or 1 / rate
        ordered = (
            _are_times(found.shown) and None not in found.keys and container.format.name not in WITHOUT_TIMES
        )
    if ordered:
        # what is shown before the first key frame hangs on it and on what came before the file began
        ticks_N = np.array(sorted(tick for tick in found.shown if tick >= found.keys[0]), np.int64)
        length = found.lengths[int(ticks_N[-1])] if len(ticks_N) else 0
    elif _are_times(found.decoded):
        ticks_N, length = np.array(sorted(found.decoded), np.int64), 0
    else:
        ticks_N, length, tick_s = np.arange(len(found.shown), dtype=np.int64), 1, 1 / rate
    if not len(ticks_N):
        raise UnusableItem(f"{source.name} has no frame behind its first key frame", "no_frames")
    if int(ticks_N[-1]) - int(ticks_N[0]) > 2**62:
        raise UnusableItem(
            f"{source.name} says that its frames are ages apart; its clock is damaged: encode it again",
            "broken_video",
        )
    if length <= 0:  # the file does not say how long the last one is shown: as long as most
        steps = np.diff(ticks_N)
        length = int(np.median(steps)) if len(steps) else max(round(1 / rate / tick_s), 1)
    with opened(source) as (container, stream):
        frame = next((frame for frame in _frames(container, stream, source.name) if frame), None)
        if frame is None:
            raise UnusableItem(f"{source.name}: not one frame can be decoded; it is damaged", "broken_video")
        turn = _turn(frame)
        width, height = (frame.height, frame.width) if turn.transposed else (frame.width, frame.height)
    keys = sorted(zip(found.keys, found.key_marks, strict=True)) if ordered else []
    return Timeline(
        ticks_N,
        int(ticks_N[-1]) + length,
        tick_s,
        np.array([tick for tick, _ in keys], np.int64),
        np.array([mark for _, mark in keys], np.int64),
        ordered,
        width,
        height,
        turn,
    )


class _Found:
    """What the packets of a stream say."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.decoded: list[Any] = []
        self.lengths: dict[Any, int] = {}
        self.keys: list[Any] = []
        self.key_marks: list[Any] = []

    def add(self, packet: av.Packet[Any]) -> None:
        if packet.is_keyframe:
            self.keys.append(packet.pts)
            self.key_marks.append(packet.pts if packet.dts is None else packet.dts)
        # what comes before the first key frame hangs on what came before the file began
        if self.keys and _is_shown(packet):
            self.shown.append(packet.pts)
            self.decoded.append(packet.dts)
            self.lengths[packet.pts] = packet.duration or 0


def _is_shown(packet: av.Packet[Any]) -> bool:
    """Whether the packet holds a frame to be seen; some only help to decode others, or lie outside an edit list."""
    if packet.stream.codec_context.name in ("vp8", "libvpx"):
        return bool(memoryview(packet)[0] >> 4 & 1)  # RFC 6386, section 9.1: show_frame
    return not packet.is_discard


def _are_times(ticks: Sequence[Any]) -> bool:
    return None not in ticks and len(set(ticks)) == len(ticks)


# -- decoding ------------------------------------------------------------------------------------------------


def _found_frames(
    source: Source, known: Timeline, indices: Sequence[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    if not known.ordered:
        yield from _by_order(source, known, indices)
        return
    left = set(indices)
    for index, frame in _by_time(source, known, indices):
        left.discard(index)
        yield index, frame
    if left:  # behind some key frames the picture is whole only later
        yield from _by_time(source, known, sorted(left), leap=False)


def _by_time(
    source: Source, known: Timeline, indices: Sequence[int], leap: bool = True
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames asked for, known by their times; long stretches without any are leapt over."""
    wanted = {int(known.ticks_N[index]): index for index in indices}
    ticks = np.array(sorted(wanted), np.int64)
    # of each frame the last key frame not behind it, from which it can be decoded; 0 is where the file begins
    keys = np.maximum(np.searchsorted(known.keys_K, ticks, side="right") - 1, 0)
    worthwhile = int(LEAP * np.median(np.diff(known.ticks_N))) if len(known.ticks_N) > 1 else 0
    reached = int(known.ticks_N[0])
    at = 0  # the next of `ticks`
    leapt = 0  # the key frame that was leapt to; a file may go to one before it, and would do so again

    def far() -> bool:
        return leap and keys[at] > leapt and known.keys_K[keys[at]] > reached + worthwhile

    with opened(source) as (container, stream):
        while at < len(ticks):
            if far():
                leapt = int(keys[at])
                leap = _leapt(container, stream, known, leapt)
                if not leap:
                    break
            for frame in _frames(container, stream, source.name):
                if frame is None or frame.pts is None:
                    continue
                reached = frame.pts
                if reached in wanted:
                    yield wanted[reached], frame
                at = int(np.searchsorted(ticks, reached, side="right"))
                if at == len(ticks) or far():
                    break
            else:
                return
    if at < len(ticks):  # this file does not go where it is told to
        yield from _by_time(source, known, [wanted[int(tick)] for tick in ticks[at:]], leap=False)


def _leapt(container: InputContainer, stream: VideoStream, known: Timeline, key: int) -> bool:
    """Go to a key frame, or before it; False where the file cannot: some indices count other times than are shown."""
    for tick in (int(known.keys_K[key]), int(known.key_marks_K[key])):
        container.seek(tick, stream=stream)
        packet = next(container.demux(stream), None)
        if packet is not None and packet.pts is not None and packet.pts <= known.keys_K[key]:
            container.seek(tick, stream=stream)  # the packet that was looked at is to be decoded
            return True
    return False


def _by_order(source: Source, known: Timeline, indices: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames asked for, counted from the beginning."""
    wanted = set(indices)
    with opened(source) as (container, stream):
        for index, frame in enumerate(_frames(container, stream, source.name)):
            if frame is None:  # what follows cannot be counted
                return
            if index in wanted:
                yield index, frame
            if index >= max(indices):
                return


def _frames(container: InputContainer, stream: VideoStream, name: str) -> Iterator[av.VideoFrame | None]:
    """Frames in the order in which they are shown; None for what was damaged, or hangs on what was.

    Only damage that the decoder notices: of VP8, VP9 and H.265 that is little.
    """
    import av

    whole = True
    between: list[av.VideoFrame] = []  # B frames, which hang on what is shown behind them, too
    for packet in chain(packets_of(container, stream, name), [None]):
        try:
            frames = stream.codec_context.decode(packet)
        except av.FFmpegError:
            yield from (None for _ in range(len(between) + 1))
            between, whole = [], False
            continue
        for frame in frames:
            if frame.pict_type == B and not frame.is_corrupt:
                between.append(frame)
                continue
            behind = (whole or frame.key_frame) and not frame.is_corrupt
            yield from (one if whole and not frame.is_corrupt else None for one in between)
            yield frame if behind else None
            between, whole = [], behind
    yield from (one if whole else None for one in between)


def _turn(frame: av.VideoFrame) -> Turn:
    """What the display matrix says, to the nearest quarter turn (libavutil/display.h)."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Turn()
    # a stored place (p, q) is shown at (a p + c q, b p + d q), in 16.16
    a, b, _, c, d = np.frombuffer(memoryview(data), np.int32, 5).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Turn(True, left_right=c < 0, up_down=b < 0)
    return Turn(False, left_right=a < 0, up_down=d < 0)


def _rgb(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """(H, W, 3), transparency on white."""
    if not any(component.is_alpha for component in frame.format.components) and frame.format.name != "pal8":
        return reformatter.reformat(frame, format="rgb24").to_ndarray()
    rgba_HW4 = reformatter.reformat(frame, format="rgba").to_ndarray().astype(np.uint16)
    alpha_HW1 = rgba_HW4[..., 3:]
    return ((rgba_HW4[..., :3] * alpha_HW1 + 255 * (255 - alpha_HW1) + 127) // 255).astype(np.uint8)
