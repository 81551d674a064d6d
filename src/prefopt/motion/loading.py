"""One motion file of any kind, told by what is in it and not by its name, as features of a codec.

| file | holds |
|---|---|
| .npy | features (F, D), or positions (F, J, 3), of the codec; told apart by their shape |
| .npz | `motion` or `positions`, such an array, and `fps` if it is not the codec's; or AMASS's arrays (`amass.py`) |
| .bvh | a figure with joints of usual names (`retarget.py`) |

Positions are in metres, y upwards. Legend: F frames, J joints, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from prefopt.motion.amass import read_amass
from prefopt.motion.arrays import MotionFileError, as_features, as_numbers, opened_npz, read_npy
from prefopt.motion.bvh import read_bvh
from prefopt.motion.codec import Codec
from prefopt.motion.humanml3d import HUMANML3D
from prefopt.motion.kinematics import resampled
from prefopt.motion.retarget import retarget


def load_motion(
    path: Path,
    codec: Codec,
    *,
    mapping: Mapping[str, str] | Path | None = None,
    unit: float | None = None,
    up: Literal["y", "z"] | None = None,
    body_models: Path | None = None,
) -> Tensor:
    """(F, D) float32 features of the motion in a file, in physical units, at the codec's rate.

    Args:
        path: of the file.
        codec: whose features.
        mapping, unit, up: of a BVH file, see `retarget.retarget`.
        body_models: folder of SMPL models for AMASS's files, see `amass.read_amass`.

    Raises:
        MotionFileError: no such file, none of these kinds, damaged, of another shape, numbers that are not finite; its message
            says what to do.
        ValueError: what is asked of a BVH file does not fit it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise MotionFileError(f"{path} is not there", "missing_motion") from None
    except IsADirectoryError:
        raise MotionFileError(f"{path} is a folder; needed the file of one motion", "broken_motion") from None
    if start.startswith(b"PK"):
        return _from_npz(path, codec, body_models)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().upper().startswith(b"HIERARCHY"):
        _needs_humanml3d(path, codec)
        motion = read_bvh(path)
        x_FJ3 = retarget(motion, mapping, unit=unit, up=up, name=str(path))
        return _encoded(x_FJ3, motion.fps, path, codec)
    if start.startswith(b"\x93NUMPY") or path.suffix.lower() == ".npy":
        return _from_array(read_npy(path), None, str(path), path, codec)
    if path.suffix.lower() == ".bvh":
        read_bvh(path)  # tells what is wrong with it
    raise MotionFileError(
        f"{path} is none of the files that hold motions here: .npy, .npz, .bvh (an FBX file: export it as BVH; a pickle: save "
        "its arrays with numpy)",
        "broken_motion",
    )


def _from_npz(path: Path, codec: Codec, models: Path | None) -> Tensor:
    with opened_npz(path) as arrays:
        there = list(arrays)
        keys = [key for key in ("motion", "positions") if key in there]
        if len(keys) == 2:
            raise MotionFileError(
                f"{path} has both `motion` and `positions`: leave one out, so that it is clear which is meant",
                "broken_motion",
            )
        if keys:
            fps = float(arrays["fps"].item()) if "fps" in there else None
            return _from_array(arrays[keys[0]], fps, f"{path}: {keys[0]}", path, codec)
    if "poses" in there:
        _needs_humanml3d(path, codec)
        return _encoded(*read_amass(path, models), path, codec)
    raise MotionFileError(
        f"{path} has neither `motion` nor `positions`, nor AMASS's `poses` and `trans`; in it: {', '.join(there) or 'nothing'}",
        "broken_motion",
    )


def _from_array(array: np.ndarray, fps: float | None, name: str, path: Path, codec: Codec) -> Tensor:
    if array.ndim == 3 and array.shape[1:] == (len(codec.skeleton), 3):
        return _encoded(as_numbers(array, name).double(), fps or codec.fps, path, codec)
    out = as_features(array, name, codec)
    if fps is not None and abs(fps - codec.fps) > 1e-3 * codec.fps:
        raise MotionFileError(
            f"{path} has features of {fps:g} frames a second; those of {codec.name!r} are made at {codec.fps:g}, and features "
            "cannot be resampled: give positions",
            "broken_motion",
        )
    return out


def _encoded(x_FJ3: Tensor, fps: float, path: Path, codec: Codec) -> Tensor:
    x_FJ3 = resampled(x_FJ3, fps, codec.fps)
    try:
        return codec.features(x_FJ3).float()
    except ValueError as error:
        raise MotionFileError(f"{path}: {error}", "too_short") from None


def _needs_humanml3d(path: Path, codec: Codec) -> None:
    if codec.name != HUMANML3D.name:
        raise MotionFileError(
            f"{path} holds a figure of its own, which is brought to the joints of 'humanml3d'; the codec is {codec.name!r}: "
            "give positions of its joints, or features",
            "wrong_width",
        )
