"""A motion as rows hold it: known by its content, read when it is needed.

Legend: F frames, J joints, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.motion.arrays import MotionFileError, as_numbers
from prefopt.motion.clips import MotionClip, read_clip
from prefopt.motion.codec import Codec
from prefopt.motion.loading import load_motion

SHORTEST = 4
"""Frames; a motion below has no unit that models count in."""


@dataclass(frozen=True)
class MotionRef:
    """A motion in a file or in memory.

    Attributes:
        name: for messages.
        digest: of its content.
        frames: F.
        codec: name of the features' codec.
        read: (F, D) float32 features in physical units.
    """

    name: str
    digest: str
    frames: int
    codec: str
    read: Callable[[], Tensor] = field(repr=False, compare=False)


def as_ref(value: Any, column: str, folder: Path, codec: Codec, shortest: int = SHORTEST) -> MotionRef:
    """What stands in a cell as a motion: (F, D) features, (F, J, 3) positions, the path of a file that holds some, a clip.

    Args:
        value: a list of lists, an array, a tensor, a path, a `MotionClip`, or the error that reading one gave.
        column: for messages.
        folder: where relative paths begin.
        codec: of the model.
        shortest: frames.

    Raises:
        UnusableItem: nothing of the kind; numbers that are not finite; a motion that is too short.
    """
    if value is None:
        raise UnusableItem(f"{column} is absent", "missing_value")
    try:
        if isinstance(value, MotionFileError):
            raise value
        if isinstance(value, MotionClip):
            check_codec(value.codec, codec, value.id)
            return made(value.id, lambda: read_clip(value), codec, shortest)
        if isinstance(value, str):
            path = path_of(value, column, folder)
            return made(str(path), lambda: load_motion(path, codec), codec, shortest)
        features = of_array(value, column, codec)
        return made(column, lambda: features, codec, shortest)
    except MotionFileError as error:
        raise UnusableItem(str(error), error.reason) from error


def made(name: str, read: Callable[[], Tensor], codec: Codec, shortest: int) -> MotionRef:
    """A reference to what can be read; it is read once, to see that it can be."""
    features = read()
    if len(features) < shortest:
        raise MotionFileError(f"{name} has {len(features)} frames; needed {shortest} or more", "too_short")
    return MotionRef(name, digest_of(features), len(features), codec.name, read)


def path_of(value: str, column: str, folder: Path) -> Path:
    """The file that a cell names."""
    if "://" in value:
        raise MotionFileError(
            f"{column} is a web address, {value[:80]}: download it and give its path", "wrong_type"
        )
    path = Path(value).expanduser()
    return path if path.is_absolute() else folder / path


def of_array(value: Any, column: str, codec: Codec) -> Tensor:
    """(F, D) features of an array of features or positions."""
    try:
        array = value if isinstance(value, Tensor) else np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise MotionFileError(
            f"{column} is a {type(value).__name__} that holds no numbers in rows of one length ({error}); needed {shapes(codec)}, "
            "or the path of a file",
            "wrong_type",
        ) from error
    if tuple(array.shape[1:]) == (len(codec.skeleton), 3):
        return codec.features(as_numbers(array, column)).float()
    if array.ndim != 2 or array.shape[1] != codec.width:
        raise MotionFileError(
            f"{column} has the shape {tuple(array.shape)}; needed {shapes(codec)}", "wrong_shape"
        )
    return as_numbers(array, column)


def check_codec(given: str, codec: Codec, name: str) -> None:
    """Raise where data are not what a model is for."""
    if given != codec.name:
        raise MotionFileError(
            f"{name} has features of {given}, and the model those of {codec.name}: take a model of such data, or give positions, which "
            "any codec encodes",
            "wrong_width",
        )


def shapes(codec: Codec) -> str:
    """What arrays a codec takes, in words."""
    return f"(frames, {codec.width}) features or (frames, {len(codec.skeleton)}, 3) positions of {codec.name}"


def digest_of(features_FD: Tensor) -> str:
    """Of content, in hexadecimal digits."""
    h = hashlib.blake2b(repr(tuple(features_FD.shape)).encode(), digest_size=16)
    h.update(np.ascontiguousarray(features_FD.numpy()).tobytes())
    return h.hexdigest()
