"""Recorded motions as the page's player takes them: whole numbers of a thousandth of a metre, and stills for paper.

Legend: F frames, J joints.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from prefopt.motion.camera import Array, View, checked, sides, view_of
from prefopt.motion.drawing import Palette, strip_svg
from prefopt.motion.skeleton import SKELETONS, Skeleton
from prefopt.report.account import EMPTY
from prefopt.report.format import finite, items

FASTEST = 20.0
"""Frames a second of the page; of faster motions frames are left out."""
UNIT = 0.001
"""Metres, of a whole number."""
LARGEST = 32_767
PALETTE = Palette(
    "var(--c-a)", "var(--c-b)", "var(--ink-2)", "var(--line-strong)", "var(--ink-3)", "var(--surface)"
)


@dataclass(frozen=True)
class Shape:
    """What a record says of all its motions: skeleton, frames a second, and whether left and right are known."""

    skeleton: Skeleton
    fps: float

    @property
    def sided(self) -> bool:
        """Whether joints are known to be left or right ones."""
        return any(side != "middle" for side in sides(self.skeleton))


@dataclass(frozen=True)
class Take:
    """One motion: what moves, what stands still, or why there is nothing to see."""

    name: str
    kind: str = ""
    score: float | None = None
    frames: int = 0
    fps: float = 0.0
    motion: str = ""
    unit: float = UNIT
    stills: Markup = EMPTY
    problem: str = ""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.fps if self.fps else 0.0

    @property
    def weight(self) -> int:
        """Bytes in the page."""
        return len(self.motion) + len(self.stills)


@dataclass(frozen=True)
class Player:
    """Takes that are played together, at one scale."""

    prompt: str
    takes: Sequence[Take]
    fps: float
    skeleton: Skeleton
    view: View
    seed: Any = None

    @property
    def sides(self) -> str:
        """l, r or m of each joint."""
        return "".join(side[0] for side in sides(self.skeleton))

    @property
    def head(self) -> int:
        """Number of the joint that is the head; -1 where none is called so."""
        joints = self.skeleton.joints
        return joints.index("head") if "head" in joints else -1

    @property
    def plays(self) -> bool:
        """Whether any take has something to show."""
        return any(take.motion for take in self.takes)

    @property
    def ends(self) -> tuple[float, float] | None:
        """Scores of the first and the last take."""
        if len(self.takes) < 2:
            return None
        first, last = self.takes[0].score, self.takes[-1].score
        return None if first is None or last is None else (first, last)

    @property
    def change(self) -> float | None:
        """Score of the last take minus that of the first."""
        return None if self.ends is None else self.ends[1] - self.ends[0]

    @property
    def weight(self) -> int:
        """Bytes in the page."""
        return sum(take.weight for take in self.takes)


def shape_of(facts: Any) -> Shape | None:
    """The skeleton and the speed that a record has beside its motions; None where it has not."""
    if not isinstance(facts, Mapping):
        return None
    fps, parents = finite(facts.get("fps")), [finite(x) for x in items(facts.get("parents"))]
    known = SKELETONS.get(str(facts.get("codec")))
    if fps is None or fps <= 0:
        return None
    if known is not None and (not parents or parents == list(known.parents)):
        return Shape(known, fps)
    try:
        whole = tuple(int(x) for x in parents if x is not None)
        names = tuple(f"joint {n}" for n in range(len(parents)))
        return Shape(Skeleton(str(facts.get("codec")), names, whole, (), ()), fps)
    except (ValueError, IndexError):
        return None


def player(
    prompt: str, recorded: Sequence[tuple[str, str, Any, float | None]], shape: Shape | None, seed: Any = None
) -> Player | None:
    """Motions of one prompt, side by side.

    Args:
        prompt: their text.
        recorded: (name, kind, positions as the record has them, score) of each.
        shape: of all of them.
        seed: of the noise that they were drawn from.

    Returns:
        The player; None where the record does not say how joints hang together.
    """
    if shape is None:
        return None
    skeleton = shape.skeleton
    stride = math.ceil(shape.fps / FASTEST)
    fps = shape.fps / stride
    found: list[Array | str] = []
    for _, _, positions, _ in recorded:
        try:
            found.append(checked(positions, skeleton)[::stride])
        except (ValueError, TypeError):
            found.append(
                "no motion was recorded" if positions is None else "the recorded motion cannot be drawn"
            )
    motions = [motion for motion in found if not isinstance(motion, str)]
    view = view_of(motions) if motions else View(1.0, 1.0)
    takes = []
    for (name, kind, _, score), motion in zip(recorded, found, strict=True):
        if isinstance(motion, str):
            takes.append(Take(name, kind, score, problem=motion))
            continue
        text, unit = encoded(motion)
        title = f"{name}: {prompt}, poses along time"
        stills = Markup(strip_svg(motion, skeleton, fps, palette=PALETTE, view=view, title=title))
        takes.append(Take(name, kind, score, len(motion), fps, text, unit, stills))
    return Player(prompt, takes, fps, skeleton, view, seed)


def encoded(positions_FJ3: Array) -> tuple[str, float]:
    """Positions as base64 of little-endian 16-bit numbers, frame by frame, joint by joint; and metres of one.

    A millimetre, or more where a motion goes farther than 32 m.
    """
    largest = float(np.abs(positions_FJ3).max())
    unit = max(UNIT, largest / LARGEST)
    whole = np.rint(positions_FJ3 / unit).astype("<i2")
    return base64.b64encode(whole.tobytes()).decode(), unit


def decoded(text: str, unit: float, joints: int) -> Array:
    """(F, J, 3) metres of what `encoded` gives, as the script reads it."""
    whole = np.frombuffer(base64.b64decode(text), dtype="<i2")
    positions: Array = whole.reshape(-1, joints, 3).astype(np.float64) * unit
    return positions
