"""Arrays out of .npy and .npz files, never unpickled, and features out of arrays; what is wrong is said with the file's name."""

from __future__ import annotations

import errno
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefopt.motion.codec import Codec
from prefopt.motion.humanml3d import HUMANML3D, KIT

PICKLED = (
    "holds Python objects (a pickle), which can run any code when they are read, and is not opened: where you trust it, load it "
    "with numpy yourself and save its arrays with numpy.savez"
)
# what numpy raises of damaged files: headers are read as Python literals
DAMAGE = (ValueError, EOFError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)


class MotionFileError(ValueError):
    """A file that holds no motion that could be used.

    Attributes:
        reason: one word for counting: "missing_motion", "broken_motion", "wrong_width", "not_finite", "missing_text",
            "broken_text", "no_caption", "wrong_span", "too_short", "too_long", "duplicate_id", "unknown_joints".
    """

    def __init__(self, detail: str, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason


def npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array in a .npy file, without reading it.

    Raises:
        MotionFileError: no such file ("missing_motion"); no .npy file, pickled, or cut short ("broken_motion").
    """
    with _opened(path) as file:
        header = _header(path, file)
        return header.shape, header.dtype


def read_npy(path: Path, start: int = 0, end: int | None = None) -> np.ndarray:
    """Entries `start` to `end` of the array in a .npy file; others are not read.

    Raises:
        MotionFileError: see `npy_header`.
    """
    with _opened(path) as file:
        shape, dtype, by_column = _header(path, file)
        if by_column or not shape:
            array = np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order="F")
            return array[start:end] if shape else array
        first, last, _ = slice(start, end).indices(shape[0])
        row = math.prod(shape[1:])
        array = np.fromfile(file, dtype, max(last - first, 0) * row, offset=first * row * dtype.itemsize)
        return array.reshape(max(last - first, 0), *shape[1:])


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_column: bool


def _header(path: Path, file: BinaryIO) -> _Header:
    """What an array is; the file is then at its first value."""
    version = np.lib.format.read_magic(file)
    v1, v2 = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    # the third version differs by the letters that names of columns may have
    shape, by_column, dtype = (
        (v1 if version == (1, 0) else v2)(file) if version < (3, 0) else ((), False, None)
    )
    if dtype is None or dtype.names:
        raise MotionFileError(
            f"{path} holds a table of named columns: needed a plain array of numbers", "broken_motion"
        )
    if dtype.hasobject:
        raise MotionFileError(f"{path} {PICKLED}", "broken_motion")
    needed, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
    if there < needed:
        raise MotionFileError(
            f"{path} is cut short: an array of shape {shape} takes {needed} bytes, and {there} are there; copy it again",
            "broken_motion",
        )
    return _Header(shape, dtype, by_column)


@contextmanager
def opened_npz(path: Path) -> Iterator[Mapping[str, Any]]:
    """The arrays of a .npz file, each read when it is asked for.

    Raises:
        MotionFileError: no such file ("missing_motion"); no archive of arrays; an array asked for that is pickled or damaged
            ("broken_motion").
    """
    with _opened(path) as file, np.load(file, allow_pickle=False) as arrays:
        yield arrays


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file; what numpy says of its content becomes a sentence."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise MotionFileError(f"{path} is not there", "missing_motion") from None
    except IsADirectoryError:
        raise MotionFileError(f"{path} is a folder; needed a file", "broken_motion") from None
    with file:
        try:
            yield file
        except MotionFileError:
            raise
        except (*DAMAGE, OSError) as error:
            if (
                isinstance(error, OSError) and error.errno != errno.EINVAL
            ):  # a zip file sends the reader to nowhere
                raise
            said = str(error)
            pickled = "allow_pickle" in said or "Object arrays" in said
            raise MotionFileError(
                f"{path} {PICKLED if pickled else _what_else(path)}", "broken_motion"
            ) from None


def _what_else(path: Path) -> str:
    """What a file that numpy cannot read looks like."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "is empty: needed an array; copy or write it again"
    if start.startswith(b"version https://git-lfs"):
        return "is only the pointer to a file that Git LFS keeps: fetch it with `git lfs pull`"
    if start.lstrip()[:1] in (b"<", b"{"):
        return "is a text (a web page?) and no array: download the file itself again"
    return "is damaged, or holds no arrays of numpy: copy or write it again"


def as_features(array: np.ndarray | Tensor, name: str, codec: Codec) -> Tensor:
    """(F, D) float32 features of an array.

    Args:
        array: (F, D) of any real type.
        name: of its file, for messages.
        codec: whose features.

    Raises:
        MotionFileError: other shapes ("wrong_width"), no real numbers ("broken_motion"), numbers that are none ("not_finite").
    """
    if problem := misfit(tuple(array.shape), codec):
        raise MotionFileError(f"{name} {problem}", "wrong_width")
    return as_numbers(array, name)


def as_numbers(array: np.ndarray | Tensor, name: str) -> Tensor:
    """float32 of an array whose first axis is frames; see `as_features`."""
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "fiu":
            raise MotionFileError(
                f"{name} holds values of the type {array.dtype}; needed real numbers", "broken_motion"
            )
        # torch has neither other byte orders nor unsigned types of every width
        array = torch.from_numpy(array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32))
    elif array.is_complex() or array.dtype == torch.bool:
        raise MotionFileError(
            f"{name} holds values of the type {array.dtype}; needed real numbers", "broken_motion"
        )
    out = array.to(torch.float32)
    # one pass where all is well: a sum that is finite has no term that is not
    if not math.isfinite(float(out.sum(dtype=torch.float64))):
        frames = (~out.isfinite()).flatten(1).any(-1).nonzero()[:, 0]
        more = f" and in {len(frames) - 1} frames more" if len(frames) > 1 else ""
        raise MotionFileError(
            f"{name} has numbers that are not finite in frame {int(frames[0])}{more}: mend or leave out the clip",
            "not_finite",
        )
    return out


def misfit(shape: tuple[int, ...], codec: Codec) -> str | None:
    """Why an array of this shape holds no features of a codec; None where it may."""
    if len(shape) == 2 and shape[1] == codec.width:
        return None
    told = f"has the shape {shape}; the codec {codec.name!r} needs (frames, {codec.width})"
    for other in (HUMANML3D, KIT):
        if len(shape) == 2 and shape[1] == other.width:
            return f"{told}. It looks like features of {other.name!r}: name that codec"
        if len(shape) == 3 and shape[1:] == (len(other.skeleton), 3):
            return f"{told}. It looks like positions of the joints of {other.name!r}, not like features"
    return told
