"""A stretch of a video: named, looked at without decoding, sampled by a stated rule, decoded to RGB frames.

    ClipRef     where a clip is (a file, its bytes, or frames that are images) and which part of it is meant
    probe       what can be said of it without decoding pixels; packets are counted, headers are not believed
    sampled     the clip with its frames chosen: so many, or so many a second
    decode      the chosen frames, upright, with the time of each
    as_clips    a row's value as clips, in order

Legend: F frames, H and W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from prefopt.sources.pictures import ImageRef

if TYPE_CHECKING:
    import numpy as np

Rule = Literal["midpoint", "uniform_floor"]


@dataclass(frozen=True)
class ClipRef:
    """A stretch of a video that is read when asked for.

    Attributes:
        source: the file's path, its bytes, or its frames as images, in order.
        start_s, end_s: the stretch in seconds, half-open; None: to the end.
        frames: indices of the chosen frames among those of the source, in order; None: not chosen yet.
        fps: frames a second of a source that is images; files know their own.
        name: what messages call it.
    """

    source: Path | bytes | tuple[ImageRef, ...]
    start_s: float = 0.0
    end_s: float | None = None
    frames: tuple[int, ...] | None = None
    fps: float | None = None
    name: str = field(default="video", compare=False)

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that name the content, the stretch and the chosen frames."""
        raise NotImplementedError


class Footage(NamedTuple):
    """What can be said of a clip's stretch without decoding it."""

    first: int
    """Index of its first frame among those of the source."""
    frames: int
    """How many it has."""
    fps: float
    """Frames a second, on average."""
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


def probe(clip: ClipRef) -> Footage:
    """What is known of a clip; cached by its content."""
    raise NotImplementedError


def sampled(
    clip: ClipRef,
    count: int | None = None,
    fps: float | None = None,
    most: int | None = None,
    rule: Rule = "midpoint",
) -> ClipRef:
    """The clip with its frames chosen."""
    raise NotImplementedError


def frame_indices(total: int, count: int, rule: Rule = "midpoint") -> list[int]:
    """Indices of `count` of `total` frames."""
    raise NotImplementedError


def allocated(durations_s: Sequence[float], budget: int) -> list[int]:
    """Frames of each of several clips that share a budget."""
    raise NotImplementedError


def decode(clip: ClipRef) -> Frames:
    """The chosen frames."""
    raise NotImplementedError


def as_clips(value: Any, name: str, folder: Path = Path()) -> tuple[ClipRef, ...]:
    """A row's value as the clips of one video."""
    raise NotImplementedError
