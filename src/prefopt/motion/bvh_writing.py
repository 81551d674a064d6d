"""Positions of joints written as a BVH file, which Blender, Maya, MotionBuilder and others open.

Turns follow from positions, which do not tell how a bone is twisted about itself:

* A joint from which several bones start (pelvis, chest) is turned so that these fit best, so that the figure's heading and
  lean are there. What they do not fit, their joints' position channels make up for.
* Any other joint is turned by the shortest arc, against the joint before it, from the bone's rest direction to where the next
  joint is: twist 0.
* Bones between have one length, the mean over the frames. Where it varies in the motion (a model's output), joints lie off
  by as much, and the next bone is aimed from there: with noise of 5 mm a joint, 4 mm on average and not 6.

The pose without turns is a figure that stands with its arms out to the sides for HumanML3D's joints, and the first frame's for
others. Legend: F frames, J joints.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from prefopt.files import write_whole
from prefopt.motion import rotations
from prefopt.motion.kinematics import ADULT_J3, bones
from prefopt.motion.skeleton import HUMANML3D, Skeleton

RESTS_J3 = {HUMANML3D.name: ADULT_J3}
TOWARDS_PARENT = 1e-6


def write_bvh(path: Path, positions_FJ3: Tensor, skeleton: Skeleton, fps: float, unit: float = 1.0) -> float:
    """Write a motion.

    Args:
        path: of the file; its folder must be there.
        positions_FJ3: (F, J, 3) metres, y upwards, of one motion without padding.
        skeleton: whose joints; they bear its names.
        fps: frames a second.
        unit: metres of a unit of the file: 1.0, or 0.01 where a program expects centimetres.

    Returns:
        The greatest distance of a joint in the file from where it was to be, in metres. It is 0 where bones keep their
        lengths; the six decimals in the file add about 2e-6.

    Raises:
        ValueError: other shapes, no frames, numbers that are not finite, a rate of 0 or below.
        WriteError: it cannot be written.

    Example:
        >>> import tempfile
        >>> from prefopt.motion.kinematics import joined
        >>> still = joined(HUMANML3D.parents, ADULT_J3, torch.zeros(5, 3, dtype=torch.float64))
        >>> write_bvh(Path(tempfile.mkdtemp()) / "still.bvh", still, HUMANML3D, fps=20) < 1e-6
        True
    """
    x_FJ3 = positions_FJ3.detach().cpu().double()
    if x_FJ3.dim() != 3 or x_FJ3.shape[1:] != (len(skeleton), 3) or not len(x_FJ3):
        raise ValueError(
            f"positions have the shape {tuple(positions_FJ3.shape)}; needed (frames, {len(skeleton)}, 3), 1 frame at the least"
        )
    if not bool(x_FJ3.isfinite().all()):
        frame = int((~x_FJ3.isfinite()).flatten(1).any(-1).nonzero()[0])
        raise ValueError(f"frame {frame} has positions that are not finite: {path} is not written")
    if not 0 < fps < math.inf or not 0 < unit < math.inf:
        raise ValueError(f"fps={fps} and unit={unit}; needed numbers above 0")
    fit = _Fit(x_FJ3, skeleton)
    write_whole(path, fit.text(fps, unit))
    return float((fit.positions_FJ3 - x_FJ3).norm(dim=-1).max())


class _Fit:
    """Turns and offsets that put joints where they are to be."""

    def __init__(self, x_FJ3: Tensor, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        parents = skeleton.parents
        self.children = [[n for n, p in enumerate(parents) if p == j] for j in range(len(parents))]
        own_FJ3 = bones(parents, x_FJ3)
        rest_J3 = normalize(RESTS_J3.get(skeleton.name, own_FJ3[0]), dim=-1)
        self.offsets_J3 = rest_J3 * own_FJ3.norm(dim=-1).mean(0)[:, None]
        F, J = x_FJ3.shape[:2]
        self.local_FJ33 = torch.eye(3, dtype=x_FJ3.dtype).repeat(F, J, 1, 1)
        self.world_FJ33 = self.local_FJ33.clone()
        self.places_FJ3 = self.offsets_J3.repeat(F, 1, 1)  # what position channels hold
        self.places_FJ3[:, 0] = x_FJ3[:, 0]
        self.positions_FJ3 = x_FJ3.clone()
        for n in range(J):
            self._turn(n, x_FJ3)

    def moves(self, n: int) -> bool:
        """Whether a joint has position channels."""
        parent = self.skeleton.parents[n]
        return parent < 0 or len(self.children[parent]) > 1

    def _turn(self, n: int, x_FJ3: Tensor) -> None:
        """Turn a joint that lies where it will, and place those that hang on it."""
        parent, children = self.skeleton.parents[n], self.children[n]
        before_F33 = self.world_FJ33[:, parent] if parent >= 0 else torch.eye(3, dtype=x_FJ3.dtype)
        wanted_Fc3 = x_FJ3[:, children] - self.positions_FJ3[:, n, None]
        if len(children) > 1:
            world_F33 = _best_turn(self.offsets_J3[children], wanted_Fc3, before_F33)
            self.local_FJ33[:, n] = before_F33.mT @ world_F33
            self.places_FJ3[:, children] = wanted_Fc3 @ world_F33
        elif children:
            there_F3 = (before_F33.mT @ wanted_Fc3[:, 0, :, None])[..., 0]
            arc_F4 = rotations.shortest_arc(self.offsets_J3[children[0]], there_F3)
            self.local_FJ33[:, n] = rotations.matrix(arc_F4)
        self.world_FJ33[:, n] = before_F33 @ self.local_FJ33[:, n]
        for child in children:
            way_F3 = (self.world_FJ33[:, n] @ self.places_FJ3[:, child, :, None])[..., 0]
            self.positions_FJ3[:, child] = self.positions_FJ3[:, n] + way_F3

    def text(self, fps: float, unit: float) -> str:
        """The file."""
        out = ["HIERARCHY", *self._joint(0, 0, unit), "MOTION", f"Frames: {len(self.places_FJ3)}"]
        out.append(f"Frame Time: {1 / fps:.8f}")
        angles_FJ3 = torch.rad2deg(rotations.to_euler_zxy(self.local_FJ33)).numpy()
        # programs draw straight lines between frames: from 179 to 181 degrees, not to -179
        angles_FJ3 = np.unwrap(angles_FJ3, axis=0, period=360)
        columns = []
        for n in self._order(0):
            if self.moves(n):
                columns.append(self.places_FJ3[:, n].numpy() / unit)
            columns.append(angles_FJ3[:, n])
        out += [" ".join(_number(value) for value in row) for row in np.concatenate(columns, 1)]
        return "\n".join(out) + "\n"

    def _order(self, n: int) -> list[int]:
        return [n, *(one for child in self.children[n] for one in self._order(child))]

    def _joint(self, n: int, depth: int, unit: float) -> list[str]:
        space, inner = "  " * depth, "  " * (depth + 1)
        offset = (self.offsets_J3[n] / unit).tolist() if n else [0.0, 0.0, 0.0]
        places = "Xposition Yposition Zposition " if self.moves(n) else ""
        lines = [
            f"{space}{'JOINT' if n else 'ROOT'} {self.skeleton.joints[n]}",
            f"{space}{{",
            f"{inner}OFFSET {' '.join(map(_number, offset))}",
            f"{inner}CHANNELS {6 if places else 3} {places}Zrotation Xrotation Yrotation",
        ]
        for child in self.children[n]:
            lines += self._joint(child, depth + 1, unit)
        if not self.children[n]:
            # programs show a bone up to here: half as long as the one before it
            tip = " ".join(map(_number, (self.offsets_J3[n] / unit / 2).tolist()))
            lines += [f"{inner}End Site", f"{inner}{{", f"{inner}  OFFSET {tip}", f"{inner}}}"]
        return [*lines, f"{space}}}"]


def _best_turn(rest_c3: Tensor, wanted_Fc3: Tensor, before_F33: Tensor) -> Tensor:
    """(F, 3, 3) turns that bring bones closest to where they are wanted (Kabsch, in least squares).

    Bones in one line leave a turn about it open: that of the joint before is taken.
    """
    spread_F33 = wanted_Fc3.mT @ rest_c3
    scale = spread_F33.flatten(1).norm(dim=-1)[:, None, None]
    U, _, Vh = torch.linalg.svd(spread_F33 + TOWARDS_PARENT * (scale + 1e-12) * before_F33)
    sign = torch.ones(len(U), 3, dtype=U.dtype)
    sign[:, 2] = torch.linalg.det(U @ Vh).sign()  # a turn, no mirror image
    return (U * sign[:, None]) @ Vh


def _number(value: float) -> str:
    """Six decimals, without a minus before zeros."""
    return f"{value + 0.0:.6f}" if abs(value) >= 5e-7 else "0.000000"
