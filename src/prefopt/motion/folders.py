"""Folders of HumanML3D and KIT-ML as they are published.

    train.txt, val.txt, test.txt, ...   ids of the clips of a split, one a line; mirrored clips are "M000021"
    new_joint_vecs/ID.npy               features
    texts/ID.txt                        captions (`captions.py`)
    Mean.npy, Std.npy                   statistics of the features

A clip of which nothing can be used is never lost silently: it is among `dropped`, with the reason. Features are
read only when a clip is asked for; until then a file's header says how many frames there are.

Legend: F frames, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from prefopt.motion.arrays import MotionFileError, misfit, npy_header, read_npy
from prefopt.motion.captions import Caption, read_captions
from prefopt.motion.clips import UNIT_FRAMES, MotionClip, read_clip
from prefopt.motion.codec import Codec
from prefopt.motion.humanml3d import JointCodec
from prefopt.motion.stats import MotionStats

BOUNDS = {"humanml3d": (40, 199), "kit": (24, 199)}
"""Frames that a clip must and may have, by the name of the codec."""


class Dropped(NamedTuple):
    """A clip, or one caption of it, that cannot be used."""

    id: str
    reason: str
    """One word, see `MotionFileError`."""
    detail: str
    """The sentence for a reader."""


class MotionFolder(NamedTuple):
    """The clips of a split."""

    clips: list[MotionClip]
    """In the order of the split file; parts of a motion with their own captions behind the whole one, their ids "ID:LINE"."""
    dropped: list[Dropped]
    shortened: list[Dropped]
    """Parts that were to end behind the motion, and are kept up to its end; the reason is "wrong_span"."""


def read_folder(
    folder: Path,
    codec: Codec,
    split: str = "train",
    *,
    shortest: int | None = None,
    longest: int | None = None,
) -> MotionFolder:
    """The clips of a split.

    Args:
        folder: see above.
        codec: of its features; times of captions become frames at its rate.
        split: name of a list of ids, without ".txt".
        shortest, longest: frames that a clip, or a part of one, must and may have; by default what the field takes for the
            data set, `BOUNDS`, and 4 to 199 frames for other codecs. Training takes 196 frames at most (`clips.crop`).

    Raises:
        FileNotFoundError: no such folder or split; names what is there.
        ValueError: a list that is not UTF-8 or empty; no clip of it can be used.
    """
    ids = _read_split(folder, split)
    default = BOUNDS.get(codec.name, (UNIT_FRAMES, 199))
    bounds = default[0] if shortest is None else shortest, default[1] if longest is None else longest
    out = MotionFolder([], [], [])
    seen: set[str] = set()
    for number, id in ids:
        if id in seen:
            out.dropped.append(
                Dropped(
                    id, "duplicate_id", f"{folder / split}.txt, line {number}: {id!r} is there a second time"
                )
            )
            continue
        seen.add(id)
        try:
            _read_one(folder, id, codec, bounds, out)
        except MotionFileError as error:
            out.dropped.append(Dropped(id, error.reason, str(error)))
    if not out.clips:
        first = out.dropped[0]
        raise ValueError(
            f"{folder}: none of the {len(seen)} clips of {split}.txt can be used. The first, {first.id!r}: {first.detail}"
        )
    return out


def _read_split(folder: Path, split: str) -> list[tuple[int, str]]:
    """Numbers of lines and ids of a split file."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: needed one with new_joint_vecs, texts and train.txt")
    for name in ("new_joint_vecs", "texts"):
        if not (folder / name).is_dir():
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
            raise FileNotFoundError(
                f"{folder} has no folder {name}, which holds the {'features' if name[0] == 'n' else 'captions'}; "
                f"in it: {there}"
            )
    path = folder / f"{split}.txt"
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        there = ", ".join(repr(one.stem) for one in sorted(folder.glob("*.txt"))) or "none"
        raise FileNotFoundError(
            f"{folder} has no split {split!r} ({path.name}); there are: {there}"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    ids = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not ids:
        raise ValueError(f"{path} is empty: needed one id a line")
    return ids


def _read_one(folder: Path, id: str, codec: Codec, bounds: tuple[int, int], out: MotionFolder) -> None:
    """Add the clips of one id, and what is wrong with them."""
    path = folder / "new_joint_vecs" / f"{id}.npy"
    shape, _ = npy_header(path)
    if problem := misfit(shape, codec):
        raise MotionFileError(f"{path} {problem}", "wrong_width")
    _check_length(
        shape[0], str(path), bounds, codec
    )  # as the field's loaders do, also where only parts are told of
    captions, wrong = read_captions(folder / "texts" / f"{id}.txt")
    out.dropped.extend(Dropped(f"{id}:{line}", error.reason, str(error)) for line, error in wrong)
    whole = [caption for caption in captions if caption.end_s == 0]
    if whole:
        out.clips.append(_clip(id, whole, path, codec, 0, shape[0]))
    for caption in captions:
        if caption.end_s == 0:
            continue
        part_id = f"{id}:{caption.line}"
        where = f"{folder / 'texts' / id}.txt, line {caption.line}"
        told = f"{where}: the part from {caption.start_s:g} s to {caption.end_s:g} s"
        start, end = int(caption.start_s * codec.fps), int(caption.end_s * codec.fps)
        has = f"the motion has {shape[0]} frames, {shape[0] / codec.fps:g} s"
        try:
            if start >= shape[0]:
                raise MotionFileError(f"{told} begins behind the end: {has}", "wrong_span")
            _check_length(min(end, shape[0]) - start, told, bounds, codec)
        except MotionFileError as error:
            out.dropped.append(Dropped(part_id, error.reason, str(error)))
            continue
        if end > shape[0]:
            out.shortened.append(
                Dropped(part_id, "wrong_span", f"{told} ends behind the end, and is kept up to it: {has}")
            )
        out.clips.append(_clip(part_id, [caption], path, codec, start, min(end, shape[0])))


def _clip(id: str, captions: Sequence[Caption], path: Path, codec: Codec, start: int, end: int) -> MotionClip:
    texts = tuple(caption.text for caption in captions)
    return MotionClip(id, texts, path, codec.name, start, end, tuple(one.tokens for one in captions))


def _check_length(frames: int, what: str, bounds: tuple[int, int], codec: Codec) -> None:
    shortest, longest = bounds
    if shortest <= frames <= longest:
        return
    asked = f"{shortest} to {longest} frames are asked for"
    raise MotionFileError(
        f"{what} has {frames} frames ({frames / codec.fps:g} s); {asked}",
        "too_short" if frames < shortest else "too_long",
    )


# -- statistics ----------------------------------------------------------------------------------------------


def read_stats(folder: Path, codec: Codec, name: str = "") -> MotionStats:
    """The statistics of Mean.npy and Std.npy.

    Args:
        folder: where they are.
        codec: of the features.
        name: whose they are, for errors; the folder's name by default.

    Raises:
        FileNotFoundError: one is not there.
        ValueError: damaged, of another width, not finite, a deviation of 0 or below.
    """
    arrays = []
    for what in ("Mean", "Std"):
        path = folder / f"{what}.npy"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is not there: copy the one that belongs to the data, or measure the clips (`measured_stats`)"
            )
        array = read_npy(path)
        if array.shape != (codec.width,):
            raise ValueError(
                f"{path} has the shape {array.shape}; the codec {codec.name!r} needs ({codec.width},)"
            )
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{path} holds values of the type {array.dtype}; needed real numbers")
        arrays.append(torch.from_numpy(array.astype("float32")))
    try:
        return MotionStats.of(codec.name, *arrays, fps=codec.fps, name=name or folder.name)
    except ValueError as error:
        raise ValueError(f"{folder / 'Mean.npy'} and {folder / 'Std.npy'}: {error}") from None


def measured_stats(clips: Iterable[MotionClip], codec: Codec, name: str = "") -> MotionStats:
    """Statistics of all frames of clips; of HumanML3D's and KIT's features deviations are averaged within each block, as there.

    A block, or with other codecs a feature, that never changes gets a deviation of 1.

    Raises:
        ValueError: no frames; see also `read_clip`.
    """
    count = 0
    sum_D = square_D = torch.zeros(codec.width, dtype=torch.float64)
    shift_D: torch.Tensor | None = None  # sums of squares far from 0 would lose their digits
    for clip in clips:
        features_FD = read_clip(clip).double()
        shift_D = features_FD.mean(0) if shift_D is None else shift_D
        sum_D = sum_D + (features_FD - shift_D).sum(0)
        square_D = square_D + (features_FD - shift_D).square().sum(0)
        count += len(features_FD)
    if shift_D is None or not count:
        raise ValueError("no frames to measure: needed one clip at the least")
    std_D = (square_D / count - (sum_D / count).square()).clamp_min(0).sqrt()
    if isinstance(codec, JointCodec):
        for block in codec.blocks.values():
            std_D[block] = std_D[block].mean()
    std_D = torch.where(std_D > 1e-6, std_D, torch.ones_like(std_D))
    return MotionStats.of(
        codec.name, (shift_D + sum_D / count).float(), std_D.float(), fps=codec.fps, name=name
    )
