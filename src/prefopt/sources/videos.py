"""A stretch of a video: named, looked at without decoding, sampled by a stated rule, decoded to RGB frames.

    ClipRef     where a clip is (a file, its bytes, or frames that are images) and which part of it is meant
    probe       what can be said of it without decoding more than one frame; headers are not believed
    problem     why a clip cannot be used, if so
    sampled     the clip with its frames chosen: so many, or so many a second
    decode      the chosen frames, upright, with the time of each
    as_clips    a row's value as clips, in order; as_row is the way back

Times are seconds from the first frame of the file and are compared to the millisecond, which is as exact as Matroska
keeps them. Frames are counted from 0 in the order in which they are shown. Where a clip is and how rows write
it is in `clips.py`, how files are read in `video_files.py` and `footage.py`.

Legend: F frames, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple

from prefopt.comparisons import UnusableItem
from prefopt.sources.clips import ClipRef, as_clips, as_row
from prefopt.sources.footage import Timeline, pictures, timeline
from prefopt.sources.pictures import decode as decode_picture
from prefopt.sources.pictures import problem as picture_problem
from prefopt.sources.video_files import Source

if TYPE_CHECKING:
    import numpy as np

Rule = Literal["midpoint", "uniform_floor"]

__all__ = [
    "ClipRef",
    "Footage",
    "Frames",
    "Rule",
    "allocated",
    "as_clips",
    "as_row",
    "decode",
    "frame_indices",
    "probe",
    "problem",
    "sampled",
    "times_of",
]

SAME_TIME_S = 0.001 + 1e-9


class Footage(NamedTuple):
    """What can be said of a clip's stretch without decoding it."""

    first: int
    """Index of its first frame among those of the source."""
    frames: int
    """How many it has."""
    fps: float
    """Frames a second of the source, on average."""
    duration_s: float
    width: int
    """Pixels of the upright frame."""
    height: int


class Frames(NamedTuple):
    """Chosen frames of a clip."""

    pixels_FHW3: np.ndarray
    """uint8, upright."""
    indices: tuple[int, ...]
    """Among the frames of the source."""
    seconds: tuple[float, ...]
    """Time of each, from the beginning of the clip."""
    duration_s: float
    """Of the clip."""


class _Times(NamedTuple):
    """Of a source: when each frame is shown, when the last one ends, and how large they are."""

    seconds_N: np.ndarray
    duration_s: float
    width: int
    height: int
    known: Timeline | None = None
    """Of a file."""


def probe(clip: ClipRef) -> Footage:
    """What is known of a clip. Of a file, packets are counted and one frame is decoded, once while the file is the same.

    Raises:
        UnusableItem: no such file ("missing_video"); no video, damaged or cut short before its first frame
            ("broken_video"); no frame in the stretch, or no moving pictures at all ("no_frames"); frames over
            `pictures.MAX_PIXELS`, or too many ("huge_video"); chosen frames that the stretch does not have
            ("wrong_frames").
    """
    return _footage(clip, _times(clip))


def _footage(clip: ClipRef, times: _Times) -> Footage:
    first, behind = _stretch(clip, times)
    if clip.frames is not None:
        if not clip.frames:
            raise UnusableItem(f"{clip.name}: an empty list of frames is asked for", "no_frames")
        if outside := [index for index in clip.frames if not first <= index < behind]:
            raise UnusableItem(
                f"{clip.name}: frame {outside[0]} is asked for, and the clip has frames {first} to {behind - 1} of its"
                " source; frames are counted from the beginning of the source",
                "wrong_frames",
            )
    end_s = times.duration_s if clip.end_s is None else min(clip.end_s, times.duration_s)
    fps = len(times.seconds_N) / times.duration_s
    return Footage(first, behind - first, fps, end_s - clip.start_s, times.width, times.height)


def problem(clip: ClipRef, thorough: bool = True) -> UnusableItem | None:
    """Why a clip cannot be used: its text says it in a sentence, its `reason` in a word. None if it can.

    Args:
        clip: the clip.
        thorough: decode its chosen frames (where none are chosen: the first, the middle and the last), which alone
            finds damage in the middle.
    """
    try:
        footage = probe(clip)
        if isinstance(clip.source, tuple):
            chosen = clip.frames or range(footage.first, footage.first + footage.frames)
            for error in (picture_problem(clip.source[index], thorough=False) for index in chosen):
                if error:
                    return error
        if thorough:
            first, last = footage.first, footage.first + footage.frames - 1
            frames = clip.frames or tuple(sorted({first, (first + last) // 2, last}))
            decode(replace(clip, frames=frames))
    except UnusableItem as error:
        return error
    return None


def sampled(
    clip: ClipRef,
    count: int | None = None,
    fps: float | None = None,
    most: int | None = None,
    rule: Rule = "midpoint",
) -> ClipRef:
    """The clip with its frames chosen, among those of its stretch, or among those that are chosen already.

    Args:
        clip: the clip.
        count: how many; all there are, where there are fewer.
        fps: instead of `count`, how many a second: the frames that are shown at the middle (or beginning, by `rule`)
            of each 1/fps seconds, each once, at least one. Right at any, also at a varying, frame rate.
        most: how many at most; of more, `most` are taken by `rule`.
        rule: as `frame_indices` says.

    Raises:
        ValueError: both `count` and `fps`; a number below 1.
        UnusableItem: as `probe`.
    """
    for name, number in (("count", count), ("most", most)):
        if number is not None and number < 1:
            raise ValueError(f"{name}={number}; needed 1 or more frames")
    if fps is not None and (count is not None or not 0 < fps < math.inf):
        raise ValueError(f"fps={fps} and count={count}; needed one of the two, and above 0")
    times = _times(clip)
    frames = _chosen(clip, times)
    if fps is not None:
        frames = _at_rate(clip, times, frames, fps, rule)
    wanted = min(number for number in (count, most, len(frames)) if number is not None)
    return replace(clip, frames=tuple(frames[place] for place in frame_indices(len(frames), wanted, rule)))


def frame_indices(total: int, count: int, rule: Rule = "midpoint") -> list[int]:
    """Indices of `count` of `total` frames.

    Args:
        total: T, how many frames there are.
        count: n, how many to choose.
        rule: "midpoint": floor((i + 1/2) T / n), of each of n equal parts the middle; "uniform_floor": floor(i T / n).

    Raises:
        ValueError: more frames asked than available; none asked; another rule.

    Example:
        >>> frame_indices(88, 4)
        [11, 33, 55, 77]
    """
    if rule not in ("midpoint", "uniform_floor"):
        raise ValueError(f"rule={rule!r} is not one of: midpoint, uniform_floor")
    if not 1 <= count <= total:
        raise ValueError(f"{count} of {total} frames; needed 1 or more, and not more frames than available")
    half = rule == "midpoint"
    return [(2 * i + half) * total // (2 * count) for i in range(count)]


def allocated(durations_s: Sequence[float], budget: int) -> list[int]:
    """Frames of each of several clips that share a budget: one each, the rest in proportion to their durations.

    What does not divide goes to the largest remainders, of equal ones to the earlier clip.

    Args:
        durations_s: of the clips, in seconds.
        budget: frames in all.

    Raises:
        ValueError: budget smaller than the number of clips; durations that are no shares.

    Example:
        >>> allocated([2.46, 9.83], 12)
        [3, 9]
    """
    clips = len(durations_s)
    if budget < clips or not clips:
        raise ValueError(
            f"budget of {budget} frames for {clips} clips; needed a budget that is not smaller than the number of clips"
        )
    if not all(0 <= duration < math.inf for duration in durations_s) or not any(durations_s):
        raise ValueError(f"durations {list(durations_s)}; needed seconds, 0 or more, not all of them 0")
    durations = [Fraction(duration) for duration in durations_s]
    shares = [(budget - clips) * duration / sum(durations) for duration in durations]
    counts = [math.floor(share) for share in shares]
    by_remainder = sorted(range(clips), key=lambda clip: counts[clip] - shares[clip])
    for clip in by_remainder[: budget - clips - sum(counts)]:
        counts[clip] += 1
    return [1 + count for count in counts]


def decode(clip: ClipRef) -> Frames:
    """The chosen frames of a clip, exactly those; all of its stretch where none are chosen.

    Raises:
        UnusableItem: as `probe`; also a frame that cannot be decoded ("broken_video"), more than memory should be given
            for ("huge_video"), images of several sizes ("broken_video"), an image that cannot be used (as
            `pictures.decode`).
    """
    import numpy as np

    times = _times(clip)
    footage = _footage(clip, times)
    indices = _chosen(clip, times)
    distinct = sorted(set(indices))
    if isinstance(clip.source, tuple):
        images = {index: np.asarray(decode_picture(clip.source[index])) for index in distinct}
        for index in distinct:
            if images[index].shape != images[distinct[0]].shape:
                (h, w), (first_h, first_w) = images[index].shape[:2], images[distinct[0]].shape[:2]
                raise UnusableItem(
                    f"{clip.name}: image {index} has {w} x {h} pixels, image {distinct[0]} {first_w} x {first_h};"
                    " make them the same",
                    "broken_video",
                )
        pixels_FHW3 = np.stack([images[index] for index in indices])
    else:
        assert times.known is not None  # as it is a file
        pixels_FHW3 = pictures(Source(clip.source, clip.name), times.known, distinct)
        if len(distinct) < len(indices) or list(indices) != distinct:
            pixels_FHW3 = pixels_FHW3[np.searchsorted(distinct, indices)]
    seconds = tuple(max(float(times.seconds_N[index]) - clip.start_s, 0.0) for index in indices)
    return Frames(pixels_FHW3, indices, seconds, footage.duration_s)


def times_of(clip: ClipRef) -> tuple[float, ...]:
    """Seconds of the chosen frames from the beginning of the clip, of all its frames where none are chosen; nothing is decoded.

    Raises:
        UnusableItem: as `probe`.
    """
    times = _times(clip)
    return tuple(max(float(times.seconds_N[index]) - clip.start_s, 0.0) for index in _chosen(clip, times))


# -- times ---------------------------------------------------------------------------------------------------


def _times(clip: ClipRef) -> _Times:
    import numpy as np

    if isinstance(clip.source, tuple):
        if not clip.source:
            raise UnusableItem(f"{clip.name} is an empty list of images", "no_frames")
        fps = 1.0 if clip.fps is None else clip.fps
        seconds_N = np.arange(len(clip.source)) / fps
        return _Times(seconds_N, len(clip.source) / fps, *clip.source[0].size)
    known = timeline(Source(clip.source, clip.name))
    return _Times(known.seconds_N, known.duration_s, known.width, known.height, known)


def _stretch(clip: ClipRef, times: _Times) -> tuple[int, int]:
    """First frame of the stretch, and the one behind its last."""
    import numpy as np

    end_s = math.inf if clip.end_s is None else clip.end_s
    bounds = np.array([clip.start_s, end_s]) - SAME_TIME_S
    first, behind = (int(place) for place in np.searchsorted(times.seconds_N, bounds))
    if first >= behind:
        raise UnusableItem(
            f"{clip.name}: no frame from {clip.start_s} s to {'the end' if clip.end_s is None else f'{clip.end_s} s'};"
            f" it has {len(times.seconds_N)} frames in {times.duration_s:.3f} s",
            "no_frames",
        )
    return first, behind


def _chosen(clip: ClipRef, times: _Times) -> tuple[int, ...]:
    footage = _footage(clip, times)
    return clip.frames or tuple(range(footage.first, footage.first + footage.frames))


def _at_rate(
    clip: ClipRef, times: _Times, frames: tuple[int, ...], fps: float, rule: Rule
) -> tuple[int, ...]:
    """Those of the frames that are shown at one of the times (i + 1/2) / fps, or i / fps, from the clip's beginning."""
    import numpy as np

    end_s = times.duration_s if clip.end_s is None else min(clip.end_s, times.duration_s)
    begins_F = times.seconds_N[list(frames)] - SAME_TIME_S - clip.start_s
    # how many of the times lie before the end of each frame, and before its beginning; no loop over times, because a
    # file may say that a frame is shown for a year
    half = 0.5 if rule == "midpoint" else 0.0
    before_F = np.ceil(np.append(begins_F[1:], end_s - SAME_TIME_S - clip.start_s) * fps - half).clip(0)
    seen_F = np.diff(before_F, prepend=0) > 0
    if not seen_F.any():
        return (frames[frame_indices(len(frames), 1, rule)[0]],)
    return tuple(frame for frame, seen in zip(frames, seen_F.tolist(), strict=True) if seen)
