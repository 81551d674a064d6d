"""A video of a condition: clips in order, whose frames are chosen.

Legend: F frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

from prefopt.sources.videos import ClipRef, frame_indices, probe, sampled


@dataclass(frozen=True)
class Sampling:
    """How the frames of a clip are chosen, the same whatever video it stands in.

    Attributes:
        frames: of each clip, at most; None: by `fps`.
        fps: frames a second; None: by `frames`.
        most: of each clip, where `fps` decides.
    """

    frames: int | None = 8
    fps: float | None = None
    most: int = 64

    def of(self, clip: ClipRef) -> ClipRef:
        """The clip with its frames chosen; frames that a row names stand.

        Raises:
            UnusableItem: it cannot be read, or has no frames.
        """
        if clip.frames is not None:
            return clip
        if self.frames is None:
            return sampled(clip, fps=self.fps, most=self.most)
        return sampled(clip, count=min(self.frames, probe(clip).frames))


@dataclass(frozen=True)
class Video:
    """Clips in temporal order.

    Attributes:
        clips: with their frames chosen.
    """

    clips: tuple[ClipRef, ...]

    @cached_property
    def digest(self) -> str:
        """Names clips and frames, in their order."""
        return blake2b(" ".join(clip.digest for clip in self.clips).encode(), digest_size=16).hexdigest()

    def __str__(self) -> str:
        return self.digest

    @property
    def frames(self) -> int:
        """F, of all clips."""
        return sum(len(clip.frames or ()) for clip in self.clips)

    def thinned(self, most: int) -> Video:
        """The same video with at most so many frames of each clip, spread over those that it has."""
        return Video(tuple(thinned(clip, most) for clip in self.clips))


def thinned(clip: ClipRef, most: int) -> ClipRef:
    """A clip with at most so many of its chosen frames."""
    frames = clip.frames or ()
    if len(frames) <= most:
        return clip
    return replace(clip, frames=tuple(frames[k] for k in frame_indices(len(frames), most)))


def videos_of(pictures: Any) -> tuple[Video, ...]:
    """The videos among what a condition shows."""
    return tuple(one for one in pictures or () if isinstance(one, Video))
