"""A motion with its captions as a value: where its features are, how many frames it has, and the part that a visit takes.

Legend: F frames, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
from torch import Tensor

from prefopt.motion.arrays import MotionFileError, as_features, npy_header, read_npy
from prefopt.motion.codec import find_codec

UNIT_FRAMES = 4
LONGEST_FRAMES = 196


@dataclass(frozen=True, eq=False)
class MotionClip:
    """Frames `start` to `end` of a motion, read when asked for.

    Attributes:
        id: of the clip, for messages, caches and random numbers.
        captions: one or more, each of the whole clip.
        source: a .npy file of features, or the features, (F, D) in physical units.
        codec: name of the features' codec.
        start, end: frames of the source, half-open.
        tokens: words with parts of speech of each caption; empty where there are none.
    """

    id: str
    captions: tuple[str, ...]
    source: Path | np.ndarray | Tensor = field(repr=False)
    codec: str
    start: int
    end: int
    tokens: tuple[tuple[str, ...], ...] = field(default=(), repr=False)

    @property
    def frames(self) -> int:
        """F."""
        return self.end - self.start


def read_clip(clip: MotionClip) -> Tensor:
    """(F, D) float32 features of a clip, in physical units.

    Raises:
        MotionFileError: the file is gone, damaged, of another width, shorter than the clip, or has numbers that are not finite.
    """
    codec = find_codec(clip.codec)
    if not isinstance(clip.source, Path):
        return as_features(clip.source[clip.start : clip.end], f"clip {clip.id!r}", codec)
    array = read_npy(clip.source, clip.start, clip.end)
    features_FD = as_features(array, str(clip.source), codec)
    if len(features_FD) < clip.frames:
        raise MotionFileError(
            f"{clip.source} has {npy_header(clip.source)[0][0]} frames; clip {clip.id!r} is its frames {clip.start} to "
            f"{clip.end}: was the file replaced?",
            "broken_motion",
        )
    return features_FD


def crop(
    frames: int,
    *,
    seed: int,
    id: str,
    epoch: int | None,
    unit: int = UNIT_FRAMES,
    longest: int = LONGEST_FRAMES,
) -> tuple[int, int]:
    """First frame and number of frames that a visit to a clip takes, as the field's loaders draw them.

    The length is the largest multiple of `unit`; with probability 1/3 one unit less, where one is left; `longest` at most. The
    beginning is drawn evenly. A function of its arguments alone.

    Args:
        frames: of the clip.
        seed: of the run.
        id: of the clip.
        epoch: which visit; None: the whole length from the beginning, without chance.
        unit: frames.
        longest: frames; a multiple of `unit`.

    Raises:
        ValueError: fewer frames than one unit.

    Example:
        >>> crop(103, seed=0, id="000021", epoch=None)
        (0, 100)
    """
    if frames < unit:
        raise ValueError(f"clip {id!r} has {frames} frames; needed {unit} at the least")
    length = min(frames // unit * unit, longest)
    if epoch is None:
        return 0, length
    drawn = blake2b(f"{seed}\n{epoch}\n{id}".encode(), digest_size=16).digest()
    coin, place = (int.from_bytes(part, "little") for part in (drawn[:8], drawn[8:]))
    length = min(frames // unit * unit - (unit if coin % 3 == 0 and frames >= 2 * unit else 0), longest)
    return place % (frames - length + 1), length
