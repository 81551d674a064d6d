"""What a camera sees of a stick figure: bones and floor in pixels. The player of the report computes the same.

The camera stands before the figure (of heading 0), to its left and above it, and goes with its root, so that the floor moves: lines half a metre
apart.

Legend: F frames, J joints, N points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prefopt.motion.skeleton import Skeleton

Array = NDArray[np.float64]

YAW, PITCH = 0.6, 0.22
"""Of the camera, radians."""
DISTANCE = 4.2
"""Of the camera from the figure, in radii of what it reaches."""
FILLED = 0.42
"""Share of the square's side that reach takes; the rest is for the head and the camera's perspective."""
SPACING = 0.5
"""Metres between lines of the floor."""


class View(NamedTuple):
    """What a camera has to show: how far joints are from the root's upright line, and half the figure's height."""

    reach: float
    middle: float


class Stroke(NamedTuple):
    """A bone, or where `radius` is not 0 the head."""

    side: str
    start: tuple[float, float]
    end: tuple[float, float]
    width: float
    radius: float
    depth: float


def view_of(motions: Sequence[Array]) -> View:
    """A view in which all of these motions fit, at one scale."""
    top = max(float(motion[..., 1].max()) for motion in motions)
    middle = max(top, 0.1) / 2
    reach = 0.1
    for motion in motions:
        around = motion - np.stack(
            [motion[:, :1, 0], np.full_like(motion[:, :1, 0], middle), motion[:, :1, 2]], -1
        )
        reach = max(reach, float(np.linalg.norm(around, axis=-1).max()))
    return View(reach, middle)


def project(points_N3: Array, centre_3: Array, view: View, size: float) -> Array:
    """(N, 3) pixels from the left, pixels from the top, and depth (metres towards the camera) of points in metres."""
    x, y, z = (points_N3 - centre_3).T
    x, z = math.cos(YAW) * x - math.sin(YAW) * z, math.sin(YAW) * x + math.cos(YAW) * z
    y, z = math.cos(PITCH) * y - math.sin(PITCH) * z, math.cos(PITCH) * z + math.sin(PITCH) * y
    away = DISTANCE * view.reach
    scale = FILLED * size / view.reach * away / np.maximum(away - z, 0.05 * away)
    return np.stack([size / 2 + scale * x, size / 2 - scale * y, z], -1)


def centre_of(pose_J3: Array, view: View) -> Array:
    """What the camera looks at: on the root's upright line."""
    return np.array([pose_J3[0, 0], view.middle, pose_J3[0, 2]])


def sides(skeleton: Skeleton) -> list[str]:
    """left, right or middle of each joint, by its name."""
    return [{"l_": "left", "r_": "right"}.get(name[:2], "middle") for name in skeleton.joints]


def figure(pose_J3: Array, skeleton: Skeleton, view: View, size: float) -> list[Stroke]:
    """What is drawn of a pose, the farthest first."""
    seen_J3 = project(pose_J3, centre_of(pose_J3, view), view, size)
    thick = 0.03 * size
    strokes = []
    for joint, (parent, side) in enumerate(zip(skeleton.parents, sides(skeleton), strict=True)):
        if parent < 0:
            continue
        a, b = seen_J3[parent], seen_J3[joint]
        strokes.append(Stroke(side, (a[0], a[1]), (b[0], b[1]), thick, 0.0, (a[2] + b[2]) / 2))
    if "head" in skeleton.joints:
        x, y, depth = seen_J3[skeleton.joints.index("head")]
        strokes.append(Stroke("middle", (x, y), (x, y), thick, 0.05 * size, depth))
    return sorted(strokes, key=lambda stroke: stroke.depth)


def floor_lines(
    pose_J3: Array, view: View, size: float, share: float = 1.0
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Lines of the floor around the root, which stay where they are in the world; of a `share` of the picture."""
    half = share * view.reach
    spacing = SPACING * max(1, math.ceil(half / (6 * SPACING)))
    lines = []
    for axis in (0, 2):
        other = 2 - axis
        at, across = pose_J3[0, axis], pose_J3[0, other]
        for k in range(math.ceil((at - half) / spacing), math.floor((at + half) / spacing) + 1):
            # a disc: what stands at its edge comes and goes without a jump
            extent = math.sqrt(max(half**2 - (k * spacing - at) ** 2, 0.0))
            ends = np.zeros((2, 3))
            ends[:, axis] = k * spacing
            ends[:, other] = (across - extent, across + extent)
            a, b = project(ends, centre_of(pose_J3, view), view, size)
            lines.append(((a[0], a[1]), (b[0], b[1])))
    return lines


def trail(motion_FJ3: Array, n: int, view: View, size: float) -> list[tuple[float, float]]:
    """Where the root came along on the floor until frame `n`, as the camera of that frame sees it."""
    way_F3 = motion_FJ3[: n + 1, 0] * np.array([1.0, 0.0, 1.0])
    seen_F3 = project(way_F3, centre_of(motion_FJ3[n], view), view, size)
    return [(x, y) for x, y, _ in seen_F3]


def checked(positions: ArrayLike, skeleton: Skeleton) -> Array:
    """The positions as an array, if they can be drawn.

    Raises:
        ValueError: another shape, no frames, numbers that are not finite.
    """
    detached: Any = positions
    if hasattr(detached, "detach"):
        detached = detached.detach().cpu()
    array = np.asarray(detached, dtype=np.float64)
    if array.ndim != 3 or array.shape[1:] != (len(skeleton), 3) or not len(array):
        raise ValueError(
            f"positions of the shape {array.shape}; needed (frames, {len(skeleton)}, 3) of the skeleton {skeleton.name}, one frame or "
            "more: features are turned into positions by their codec"
        )
    finite_F = np.isfinite(array).all((1, 2))
    if not finite_F.all():
        raise ValueError(
            f"{int((~finite_F).sum())} of {len(array)} frames hold numbers that are not finite, the first is frame "
            f"{int((~finite_F).argmax())}: there is nothing to draw there"
        )
    return array
