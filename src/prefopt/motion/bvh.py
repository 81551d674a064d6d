"""BVH files read: any hierarchy, any order of channels, positions of joints out of it.

Numbers stay in the file's own unit of length, which a BVH file doesn't tell (`retarget.py` makes metres of them). What
the format leaves open is read as most programs read it: position channels stand in the place of a joint's OFFSET, of
axes that have none the OFFSET stays; rotations are about the turned axes, in the order of the channels, in degrees.

Own code: there are small packages that read BVH, none of them settled, and the faults of a file are to be told by line.
Legend: F frames, J joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prefopt.motion import rotations
from prefopt.motion.arrays import MotionFileError
from prefopt.motion.kinematics import forward_kinematics

KINDS = {f"{axis}{kind}": (axis, kind) for axis in "XYZ" for kind in ("position", "rotation")}


@dataclass(frozen=True, eq=False)
class BvhMotion:
    """What a BVH file holds.

    Attributes:
        joints: names, in the file's order; End Sites are none.
        parents: of each joint, -1 for the root.
        offsets_J3: the pose without turns: from the parent to each joint, in the file's unit.
        positions_FJ3: in the file's unit; float64.
        fps: frames a second.
        tips: (F, 3) where the End Site of a joint is, by the joint's name.
    """

    joints: tuple[str, ...]
    parents: tuple[int, ...]
    offsets_J3: Tensor
    positions_FJ3: Tensor
    fps: float
    tips: dict[str, Tensor]


@dataclass
class _Joint:
    name: str
    parent: int
    offset: tuple[float, ...] | None = None
    channels: list[str] = field(default_factory=list)
    tip: tuple[float, ...] | None = None


def read_bvh(path: Path) -> BvhMotion:
    """The motion of a BVH file.

    Raises:
        MotionFileError: no such file ("missing_motion"); no BVH file, or one with faults, told by line ("broken_motion");
            numbers that are not finite ("not_finite").
    """
    lines = _lines(path)
    try:
        joints, behind = _hierarchy(lines)
        frame_s, values_FC = _motion(lines, behind, sum(len(joint.channels) for joint in joints))
    except MotionFileError as error:
        raise MotionFileError(f"{path}, {error}", error.reason) from None
    positions_FJ3, turns_FJ33 = _positions(joints, torch.from_numpy(values_FC))
    tips = {
        joint.name: positions_FJ3[:, n]
        + turns_FJ33[:, n] @ torch.tensor(joint.tip, dtype=positions_FJ3.dtype)
        for n, joint in enumerate(joints)
        if joint.tip is not None
    }
    offsets_J3 = torch.tensor([joint.offset for joint in joints], dtype=torch.float64)
    fps = 1 / frame_s
    if abs(fps - round(fps)) < 1e-4 * fps:  # files have six digits or so of 1/30
        fps = float(round(fps))
    names, parents = tuple(joint.name for joint in joints), tuple(joint.parent for joint in joints)
    return BvhMotion(names, parents, offsets_J3, positions_FJ3, fps, tips)


def _lines(path: Path) -> list[tuple[int, str]]:
    """Numbers and words of lines that say something; braces on lines of their own."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MotionFileError(f"{path} is not there", "missing_motion") from None
    if b"\0" in content[:4096]:
        fbx = ": an FBX file? Export it as BVH, with Blender for example" if b"FBX" in content[:64] else ""
        raise MotionFileError(f"{path} is binary and no BVH file{fbx}", "broken_motion")
    # names may be in any encoding; what matters is plain ASCII
    text = content.decode("utf-8-sig", errors="replace")
    rows = (line.replace("{", "\n{\n").replace("}", "\n}\n") for line in text.splitlines())
    return [
        (n, part.strip()) for n, row in enumerate(rows, 1) for part in row.split("\n") if part.strip()
    ] or [(1, "")]


def _hierarchy(lines: Sequence[tuple[int, str]]) -> tuple[list[_Joint], int]:
    """The joints, and where the motion begins among the lines."""
    if lines[0][1].upper() != "HIERARCHY":
        raise MotionFileError(
            f"line {lines[0][0]}: {lines[0][1][:40]!r}; a BVH file begins with HIERARCHY", "broken_motion"
        )
    joints: list[_Joint] = []
    open_: list[int] = []  # indices of joints whose braces are open; -1: an End Site
    new = False  # a name that waits for its brace
    for at, (number, line) in enumerate(lines[1:], 1):
        word, rest = [*line.split(None, 1), ""][:2]
        word = word.upper()
        if word == "MOTION":
            if open_ or new:
                raise _fault(number, f"MOTION before the brace of {_called(joints, open_)} is closed")
            if not joints:
                raise _fault(number, "MOTION without a hierarchy before it")
            _check(joints, number)
            return joints, at + 1
        if word in ("ROOT", "JOINT"):
            if (word == "ROOT") != (not open_) or (word == "ROOT" and joints):
                what = "a second ROOT" if joints and not open_ else f"{word} {rest!r} in the wrong place"
                raise _fault(number, f"{what}; needed one ROOT, and every JOINT within it")
            if not rest:
                raise _fault(number, f"{word} without a name")
            if any(joint.name == rest for joint in joints):
                raise _fault(number, f"a second joint with the name {rest!r}; rename one")
            joints.append(_Joint(rest, open_[-1] if open_ else -1))
            open_.append(len(joints) - 1)
            new = True
        elif word == "END" and rest.upper() == "SITE" and open_ and open_[-1] >= 0:
            open_.append(-1)
            new = True
        elif word == "{" and new:
            new = False
        elif word == "}" and open_ and not new:
            open_.pop()
        elif word == "OFFSET" and open_ and not new:
            offset = _numbers(rest, number, "OFFSET", 3)
            if open_[-1] >= 0:
                joints[open_[-1]].offset = offset
            else:
                joints[open_[-2]].tip = offset
        elif word == "CHANNELS" and open_ and open_[-1] >= 0 and not new:
            joints[open_[-1]].channels = _channels(rest, number)
        else:
            raise _fault(number, f"{line[:60]!r} is not understood here")
    raise _fault(lines[-1][0], "the file ends before MOTION: it may be cut short")


def _called(joints: list[_Joint], open_: list[int]) -> str:
    return repr(joints[open_[-1]].name) if open_ and open_[-1] >= 0 else "an End Site"


def _check(joints: list[_Joint], number: int) -> None:
    for joint in joints:
        if joint.offset is None:
            raise _fault(number, f"joint {joint.name!r} has no OFFSET")
    if not any(joint.channels for joint in joints):
        raise _fault(number, "no joint has CHANNELS: nothing moves")


def _channels(rest: str, number: int) -> list[str]:
    declared, *names = rest.split() or [""]
    names = [name.lower().capitalize() for name in names]
    if not declared.isdigit() or int(declared) != len(names):
        raise _fault(
            number,
            f"CHANNELS declares {declared or 0} and names {len(names)}: {', '.join(names)}; needed as many as declared",
        )
    if unknown := [name for name in names if name not in KINDS]:
        raise _fault(number, f"unknown channel {unknown[0]!r}; known: {', '.join(KINDS)}")
    if len(set(names)) < len(names):
        raise _fault(number, f"a channel is named twice: {', '.join(names)}")
    return names


def _motion(lines: Sequence[tuple[int, str]], at: int, channels: int) -> tuple[float, np.ndarray]:
    """Seconds a frame, and the values, (F, C)."""
    head = {}
    for name, (number, line) in zip(("FRAMES", "FRAME TIME"), lines[at : at + 2], strict=False):
        key, _, value = line.partition(":")
        if " ".join(key.upper().split()) != name:
            raise _fault(number, f"{line[:40]!r}; needed `{name.title()}: ...` behind MOTION")
        head[name] = _numbers(value, number, name, 1)[0]
    if len(head) < 2:
        raise _fault(lines[-1][0], "the file ends behind MOTION: it may be cut short")
    frames, frame_s = head["FRAMES"], head["FRAME TIME"]
    if frames < 1 or frames != int(frames):
        raise _fault(lines[at][0], f"{frames:g} frames; needed a whole number, 1 or more")
    if frame_s <= 0:
        raise _fault(lines[at + 1][0], f"a frame lasts {frame_s:g} s; needed a number above 0")
    rows = lines[at + 2 :]
    words = [line.split() for _, line in rows]
    count = sum(map(len, words))
    if count != int(frames) * channels:
        for (number, _), row in zip(rows, words, strict=True):
            if len(row) != channels and len(rows) != 1:
                raise _fault(
                    number,
                    f"{len(row)} values; the joints have {channels} channels, and a frame is a line of as many",
                )
        raise _fault(
            rows[-1][0] if rows else lines[at][0],
            f"the file declares {int(frames)} frames and holds {count / channels:g}: is it cut short?",
        )
    try:
        values = np.array([word for row in words for word in row], dtype=np.float64)
    except ValueError:
        number, word = next(
            (n, w) for (n, _), row in zip(rows, words, strict=True) for w in row if not _is_number(w)
        )
        raise _fault(number, f"{word[:20]!r} is no number") from None
    if not np.isfinite(values).all():
        frame = int((~np.isfinite(values)).argmax()) // channels
        raise MotionFileError(f"frame {frame}: numbers that are not finite", "not_finite")
    return frame_s, values.reshape(int(frames), channels)


def _positions(joints: Sequence[_Joint], values_FC: Tensor) -> tuple[Tensor, Tensor]:
    F, at = len(values_FC), 0
    offsets, turns = [], []
    for joint in joints:
        offset_F3 = torch.tensor(joint.offset, dtype=torch.float64).repeat(F, 1)
        order, angles = "", []
        for channel in joint.channels:
            axis, kind = KINDS[channel]
            if kind == "position":
                offset_F3[:, "XYZ".index(axis)] = values_FC[:, at]
            else:
                order += axis
                angles.append(values_FC[:, at])
            at += 1
        offsets.append(offset_F3)
        empty = values_FC.new_zeros(F, 0)
        turns.append(rotations.from_euler(torch.deg2rad(torch.stack(angles, -1)) if angles else empty, order))
    offsets_FJ3 = torch.stack(offsets, 1)
    parents = [joint.parent for joint in joints]
    return forward_kinematics(parents, offsets_FJ3, torch.stack(turns, 1), offsets_FJ3[:, 0])


def _numbers(text: str, number: int, what: str, count: int) -> tuple[float, ...]:
    words = text.split()
    if len(words) != count or not all(_is_number(word) and math.isfinite(float(word)) for word in words):
        raise _fault(number, f"{what} {text.strip()[:40]!r}; needed {count} number{'s' if count > 1 else ''}")
    return tuple(float(word) for word in words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _fault(number: int, what: str) -> MotionFileError:
    return MotionFileError(f"line {number}: {what}", "broken_motion")
