"""Features of a stick figure of 11 joints: what HumanML3D's are of 22 (arXiv 2204.14109), without rotations and velocities of joints.

A frame has 36 numbers: 0 the change of heading until the next frame (radians, counterclockwise seen from above), 1 and 2 the
way that the root goes until then, forward and to the left in the heading of the next frame (metres), 3 the root's height, 4:34 of each other
joint how far it is to the left of the root, how high above the floor, and how far in front of the root, 34:36 whether the left and the right foot
stand on the floor.

Legend of shape suffixes: F frames, J = 11 joints, D = 36 features; leading batch axes are kept. y is up; at heading 0 z is forward and x to the left.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prefopt.motion.skeleton import STICK as SKELETON
from prefopt.motion.skeleton import Skeleton

ROOT = 4
"""Features of the root, which come first."""
CONTACT_SPEED = 0.05
"""Metres a frame, of 1/8 s: a foot that goes less far, and lies low, stands."""
CONTACT_HEIGHT = 0.12


class StickCodec:
    """Features of `SKELETON`, see the head of the file."""

    name: str = "stick"
    skeleton: Skeleton = SKELETON
    width: int = 36
    fps: float = 8.0

    def positions(self, features_FD: Tensor) -> Tensor:
        """(..., F, 11, 3) positions in metres; the first root stands over the origin, its heading is z.

        Args:
            features_FD: (..., F, 36), in physical units.

        Raises:
            ValueError: another number of features.
        """
        if features_FD.shape[-1] != self.width:
            raise ValueError(
                f"features of width {features_FD.shape[-1]}; those of a stick figure are {self.width}"
            )
        heading_F, x_F, z_F = self._path(features_FD)
        joints_FJ3 = features_FD[..., ROOT:34].unflatten(-1, (len(SKELETON) - 1, 3))
        x_FJ, z_FJ = _turned(joints_FJ3[..., 0], joints_FJ3[..., 2], heading_F[..., None])
        joints_FJ3 = torch.stack((x_FJ + x_F[..., None], joints_FJ3[..., 1], z_FJ + z_F[..., None]), -1)
        root_F3 = torch.stack((x_F, features_FD[..., 3], z_F), -1)
        return torch.cat((root_F3[..., None, :], joints_FJ3), -2)

    def _path(self, features_FD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., F) heading, x and z of the root."""
        after_F = features_FD[..., 0].cumsum(-1)
        step_x_F, step_z_F = _turned(features_FD[..., 2], features_FD[..., 1], after_F)
        heading_F, x_F, z_F = (
            torch.nn.functional.pad(sums[..., :-1], (1, 0))
            for sums in (after_F, step_x_F.cumsum(-1), step_z_F.cumsum(-1))
        )
        return heading_F, x_F, z_F

    def features(self, positions_FJ3: Tensor) -> Tensor:
        """(..., F - 1, 36) features.

        The heading is where knees and elbows face together: across is from the right ones to the left ones.

        Args:
            positions_FJ3: (..., F, 11, 3) in metres, y upwards, at 8 frames a second.

        Raises:
            ValueError: other joints, or fewer than two frames.
        """
        if positions_FJ3.shape[-2:] != (len(SKELETON), 3) or positions_FJ3.shape[-3] < 2:
            raise ValueError(
                f"positions of the shape {tuple(positions_FJ3.shape)}; needed (frames, {len(SKELETON)}, 3) with two frames or more"
            )
        heading_F = _heading(positions_FJ3)
        change_F = heading_F.diff(dim=-1)
        change_F = torch.atan2(change_F.sin(), change_F.cos())
        root_F3 = positions_FJ3[..., 0, :]
        step_F3 = root_F3.diff(dim=-2)
        left_F, forward_F = _turned(step_F3[..., 0], step_F3[..., 2], -heading_F[..., 1:])
        local_FJ3 = positions_FJ3[..., 1:, :] - root_F3[..., None, :]
        left_FJ, front_FJ = _turned(local_FJ3[..., 0], local_FJ3[..., 2], -heading_F[..., None])
        joints_FJ3 = torch.stack((left_FJ, positions_FJ3[..., 1:, 1], front_FJ), -1)[..., :-1, :, :]
        feet_F23 = positions_FJ3[..., list(SKELETON.feet), :]
        stands_F2 = (feet_F23.diff(dim=-3).norm(dim=-1) < CONTACT_SPEED) & (
            feet_F23[..., :-1, :, 1] < CONTACT_HEIGHT
        )
        root_FD = torch.stack((change_F, forward_F, left_F, root_F3[..., :-1, 1]), -1)
        return torch.cat((root_FD, joints_FJ3.flatten(-2), stands_F2.to(root_FD)), -1)


def _turned(x: Tensor, z: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """x and z turned about y, counterclockwise seen from above."""
    return angle.cos() * x + angle.sin() * z, angle.cos() * z - angle.sin() * x


def _heading(positions_FJ3: Tensor) -> Tensor:
    """(..., F) angle from z to where the figure faces."""
    places = {name: n for n, name in enumerate(SKELETON.joints)}
    across_F3 = sum(
        positions_FJ3[..., places[f"l_{part}"], :] - positions_FJ3[..., places[f"r_{part}"], :]
        for part in ("knee", "elbow")
    )
    assert isinstance(across_F3, Tensor)
    return torch.atan2(-across_F3[..., 2], across_F3[..., 0])


STICK = StickCodec()
