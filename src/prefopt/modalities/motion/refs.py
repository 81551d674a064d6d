"""A motion as rows hold it: known by its content, read when it is needed.

Legend: F frames, J joints, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.motion.codec import Codec

SHORTEST = 4
"""Frames; a motion below has no unit that models count in."""


@dataclass(frozen=True)
class MotionRef:
    """A motion in a file or in memory.

    Attributes:
        name: for messages.
        digest: of its content.
        frames: F.
        read: (F, D) float32 features in physical units.
    """

    name: str
    digest: str
    frames: int
    read: Callable[[], Tensor] = field(repr=False, compare=False)


def as_ref(value: Any, column: str, folder: Path, codec: Codec) -> MotionRef:
    """What stands in a cell as a motion: (F, D) features, (F, J, 3) positions, or the path of a file that holds some.

    Args:
        value: a list of lists, an array, a tensor, a path, or what is a reference already.
        column: for messages.
        folder: where relative paths begin.
        codec: of the model.

    Raises:
        UnusableItem: nothing of the kind; numbers that are not finite; a motion that is too short.
    """
    if isinstance(value, MotionRef):
        return value
    if value is None:
        raise UnusableItem(f"{column} is absent", "missing_value")
    if isinstance(value, str):
        return of_file(value, column, folder, codec)
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UnusableItem(
            f"{column} is a {type(value).__name__} that holds no numbers in rows of one length ({error}); needed {shapes(codec)}, "
            "or the path of a file",
            "wrong_type",
        ) from error
    features = checked(as_features(array, column, codec), column)
    return MotionRef(column, digest_of(features), len(features), lambda: features)


def of_file(value: str, column: str, folder: Path, codec: Codec) -> MotionRef:
    """A motion in a file."""
    from prefopt.motion.files import load_motion

    if "://" in value:
        raise UnusableItem(
            f"{column} is a web address, {value[:80]}: download it and give its path", "wrong_type"
        )
    path = Path(value).expanduser()
    path = path if path.is_absolute() else folder / path
    if not path.is_file():
        raise UnusableItem(f"{column}: there is no file {path}", "missing_motion")
    try:
        features = checked(load_motion(path, codec), f"{column} ({path.name})")
    except (OSError, ValueError) as error:
        if isinstance(error, UnusableItem):
            raise
        raise UnusableItem(f"{column}: {error}", "broken_motion") from error

    def read() -> Tensor:
        return load_motion(path, codec).float()

    return MotionRef(str(path), digest_of(features), len(features), read)


def as_features(array: np.ndarray, column: str, codec: Codec) -> Tensor:
    """(F, D) features of an array of features or positions."""
    joints = len(codec.skeleton)
    if array.ndim == 3 and array.shape[1:] == (joints, 3):
        return codec.features(torch.from_numpy(array)).float()
    if array.ndim != 2 or array.shape[1] != codec.width:
        raise UnusableItem(f"{column} has the shape {array.shape}; needed {shapes(codec)}", "wrong_shape")
    return torch.from_numpy(array)


def shapes(codec: Codec) -> str:
    """What arrays a codec takes, in words."""
    return f"(frames, {codec.width}) features or (frames, {len(codec.skeleton)}, 3) positions of {codec.name}"


def checked(features_FD: Tensor, what: str) -> Tensor:
    """The same features, if they can be used."""
    finite_F = features_FD.isfinite().all(-1)
    if not bool(finite_F.all()):
        bad = (~finite_F).nonzero().flatten().tolist()
        raise UnusableItem(
            f"{what}: {len(bad)} of {len(finite_F)} frames hold numbers that are not finite, the first is frame {bad[0]}",
            "not_finite",
        )
    if len(features_FD) < SHORTEST:
        raise UnusableItem(f"{what} has {len(features_FD)} frames; needed {SHORTEST} or more", "too_short")
    return features_FD


def digest_of(features_FD: Tensor) -> str:
    """Of content, in hexadecimal digits."""
    h = hashlib.blake2b(repr(tuple(features_FD.shape)).encode(), digest_size=16)
    h.update(np.ascontiguousarray(features_FD.numpy()).tobytes())
    return h.hexdigest()


def lengths_in_words(refs: Sequence[MotionRef], fps: float) -> str:
    """How long motions are, for a report."""
    frames = sorted(ref.frames for ref in refs)
    return f"{frames[0] / fps:.1f} to {frames[-1] / fps:.1f} s, median {frames[len(frames) // 2] / fps:.1f} s"
