"""Folders of motions as HumanML3D and KIT-ML are published: `new_joint_vecs`, `texts`, lists of ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

VECTORS = "new_joint_vecs"


def is_motion_folder(path: Path) -> bool:
    """Whether a folder has the layout."""
    return (path / VECTORS).is_dir() and (path / "texts").is_dir()


def splits_in(path: Path) -> list[str]:
    """Its splits, training first; the test split only where there is nothing else to judge by."""
    there = [name for name in ("train", "val", "test") if (path / f"{name}.txt").is_file()]
    return [name for name in there if name != "test" or "val" not in there] or ["train"]


def motion_rows(path: Path, split: str) -> list[Mapping[str, Any]]:
    """A row a clip: id, captions and a `MotionClip`; in place of a clip that cannot be used stands what is wrong with it.

    Raises:
        OSError, ValueError: no such split; no clip of it can be used; features of no known width.
    """
    from prefopt.motion.folders import read_folder

    found = read_folder(path, folder_codec(path), split)
    rows: list[Mapping[str, Any]] = [
        {"id": clip.id, "captions": list(clip.captions), "motion": clip} for clip in found.clips
    ]
    # the reason travels with the row, so that it is listed as every other row that is dropped
    rows += [
        {"id": drop.id, "captions": ["?"], "motion": _error(drop.detail, drop.reason)}
        for drop in found.dropped
    ]
    return rows


def folder_codec(path: Path) -> Any:
    """The codec of the features in a folder, by the width of the first file that can be read.

    Raises:
        ValueError: there is none, or of no known width.
    """
    from prefopt.motion.arrays import MotionFileError, npy_header
    from prefopt.motion.codec import CODECS, find_codec

    codecs = [find_codec(name) for name in CODECS]
    widths = set()
    for file in sorted((path / VECTORS).glob("*.npy")):
        try:
            shape, _ = npy_header(file)
        except MotionFileError:
            continue
        for codec in codecs:
            if shape[-1:] == (codec.width,):
                return codec
        widths.add(shape[-1:])
    known = ", ".join(f"{codec.width} ({codec.name})" for codec in codecs)
    raise ValueError(
        f"{path / VECTORS} holds no features of a known width: found {sorted(widths) or 'no .npy files'}; known are {known}"
    )


def _error(detail: str, reason: str) -> Exception:
    from prefopt.motion.arrays import MotionFileError

    return MotionFileError(detail, reason)
