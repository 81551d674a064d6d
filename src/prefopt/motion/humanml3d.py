"""The features of HumanML3D (263 a frame) and of KIT-ML (251), from positions of joints and back (arXiv 2204.14109).

Legend: F frames, J joints, D = 12 J - 1 features; any leading axes. The features of a frame:

| block | size | is |
|---|---|---|
| turn | 1 | half of the change of the heading until the next frame, radians, to the right positive |
| walk | 2 | the root's way to the next frame, x and z, in the next frame's heading |
| height | 1 | of the root |
| places | 3 (J - 1) | the other joints, x and z from the root, y from the floor, in the frame's heading |
| turns | 6 (J - 1) | of each bone against the one before it in its chain, in 6-D; the twist is unknown |
| speeds | 3 J | ways of the joints to the next frame, in the frame's heading |
| contacts | 4 | 1 for a foot that stays where it is: left ankle, left toe, right ankle, right toe (KIT: right first) |

What is peculiar is so in the data sets' files, and kept, because models and evaluators have learned it:

* The heading is smoothed over 20 frames (the standard deviation of the Gauss curve), but that of the first frame is +Z, as decoding
  takes it to be: the first turn is a jump from the one to the other.
* The line across the body from which headings follow is that of the shoulders minus that of the hips. Plus is meant, and is
  used where the first frame is turned to +Z; the data set's author knows and could not change it any more.
* Arms' first bones (the collars') are turned against the heading, not against the chest.
* KIT-ML counts in units of 1/640 m, and its feet are still if they move by less than about a third of a millimetre.

One thing is not kept: in the published files the turn has the wrong sign in a frame where the heading passes
straight backwards (-Z), because a quaternion jumps to its negative there. Here it is the turn.

Positions -> features -> positions gives the canonical motion (on the floor, over the origin, facing +Z) exactly, less its last
frame. Features -> positions -> features gives them up to 80 frames before the end, and behind that differs as far as the lost
frame changes the smoothed heading: nothing where the figure does not turn, a few hundredths where it does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv1d, normalize, pad

from prefopt.motion import rotations, skeleton
from prefopt.motion.skeleton import Skeleton

SMOOTHING_FRAMES = 20.0


@dataclass(frozen=True)
class JointCodec:
    """Features of one of the two data sets.

    Attributes:
        name, skeleton, fps: see `prefopt.motion.codec.Codec`.
        rest: direction of the bone to each joint in the pose without turns, as letters: "+x" is to the figure's left, "+y" up,
            "+z" forward.
        across: what the data set's script takes for right hip, left hip, right shoulder, left shoulder.
        leg: knee and ankle of the leg by whose length figures are scaled.
        still: square of the way to the next frame below which a foot has contact, in units squared.
        unit: metres of a unit of the features.
    """

    name: str
    skeleton: Skeleton
    fps: float
    rest: tuple[str, ...]
    across: tuple[int, int, int, int]
    leg: tuple[int, int]
    still: float
    unit: float

    @property
    def width(self) -> int:
        """D, features a frame."""
        return 12 * len(self.skeleton) - 1

    @property
    def blocks(self) -> dict[str, slice]:
        """Where each block of the table above lies among the features."""
        J = len(self.skeleton)
        sizes = {
            **{"turn": 1, "walk": 2, "height": 1},
            **{"places": 3 * (J - 1), "turns": 6 * (J - 1), "speeds": 3 * J, "contacts": 4},
        }
        ends = torch.tensor(list(sizes.values())).cumsum(0).tolist()
        return {name: slice(end - sizes[name], end) for name, end in zip(sizes, ends, strict=True)}

    @property
    def rest_J3(self) -> Tensor:
        """(J, 3) `rest` as vectors of length 1; 0 for the root. float64."""
        sign, axis = {"+": 1.0, "-": -1.0}, "xyz"
        out = torch.zeros(len(self.rest), 3, dtype=torch.float64)
        for n, way in enumerate(self.rest[1:], 1):
            out[n, axis.index(way[1])] = sign[way[0]]
        return out

    def positions(self, features_FD: Tensor) -> Tensor:
        """(..., F, J, 3) positions in metres, the first frame over the origin; each frame needs only those before it.

        Raises:
            ValueError: another width.
        """
        self._check(features_FD, self.width, "features")
        blocks = self.blocks
        turn_F, walk_F2 = features_FD[..., 0], features_FD[..., blocks["walk"]]
        # what stands in a frame is the way to the next one
        half_F = pad(turn_F[..., :-1].cumsum(-1), (1, 0))
        step_F2 = pad(walk_F2[..., :-1, :], (0, 0, 1, 0))
        root_F2 = _turned(step_F2, -2 * half_F).cumsum(-2)
        places_Fj3 = features_FD[..., blocks["places"]].unflatten(-1, (-1, 3))
        planar_Fj2 = _turned(places_Fj3[..., ::2], -2 * half_F[..., None]) + root_F2[..., None, :]
        joints_Fj3 = torch.stack([planar_Fj2[..., 0], places_Fj3[..., 1], planar_Fj2[..., 1]], -1)
        root_F3 = torch.stack([root_F2[..., 0], features_FD[..., 3], root_F2[..., 1]], -1)
        return torch.cat([root_F3[..., None, :], joints_Fj3], -2) * self.unit

    def features(self, positions_FJ3: Tensor) -> Tensor:
        """(..., F - 1, D) features of positions in metres, y upwards, of motions without padding.

        The figure is first put on the floor, over the origin and turned to +Z (`canonical`); its bones keep their lengths
        (`prefopt.motion.kinematics.to_reference` gives it others).

        Raises:
            ValueError: fewer than 2 frames, other joints.
        """
        x_FJ3 = self.canonical(positions_FJ3) / self.unit
        phi_F = -self._heading(x_FJ3)
        local_FJ3 = x_FJ3.clone()
        local_FJ3[..., ::2] -= x_FJ3[..., :1, ::2]
        local_FJ3 = _turned_about_y(local_FJ3, phi_F[..., None])
        way_FJ3 = x_FJ3[..., 1:, :, :] - x_FJ3[..., :-1, :, :]
        change_F = phi_F[..., 1:] - phi_F[..., :-1]
        change_F = torch.remainder(change_F + math.pi, 2 * math.pi) - math.pi
        contacts_F4 = (way_FJ3[..., list(self.skeleton.feet), :].square().sum(-1) < self.still).to(
            x_FJ3.dtype
        )
        now = slice(None, -1)
        return torch.cat(
            [
                change_F[..., None] / 2,
                _turned(way_FJ3[..., 0, ::2], phi_F[..., 1:]),
                x_FJ3[..., now, 0, 1:2],
                local_FJ3[..., now, 1:, :].flatten(-2),
                self._turns(x_FJ3, phi_F)[..., now, :, :].flatten(-2),
                _turned_about_y(way_FJ3, phi_F[..., now, None]).flatten(-2),
                contacts_F4,
            ],
            -1,
        )

    def canonical(self, positions_FJ3: Tensor) -> Tensor:
        """(..., F, J, 3) the motion with its lowest point on the floor, its first frame over the origin and facing +Z.

        Raises:
            ValueError: fewer than 2 frames, other joints.
        """
        if positions_FJ3.shape[-1] != 3 or positions_FJ3.dim() < 3:
            raise ValueError(
                f"positions have the shape {tuple(positions_FJ3.shape)}; needed (frames, joints, 3)"
            )
        self._check(positions_FJ3, len(self.skeleton), "joints", axis=-2)
        if positions_FJ3.shape[-3] < 2:
            raise ValueError(
                f"a motion of {positions_FJ3.shape[-3]} frames has no velocities: needed 2 at the least"
            )
        r_hip, l_hip, r_shoulder, l_shoulder = self.across
        first_J3 = positions_FJ3[..., 0, :, :]
        across_3 = first_J3[..., r_hip, :] - first_J3[..., l_hip, :]
        across_3 = across_3 + first_J3[..., r_shoulder, :] - first_J3[..., l_shoulder, :]
        x_FJ3 = positions_FJ3.clone()
        x_FJ3[..., 1] -= positions_FJ3[..., 1].amin((-2, -1), keepdim=True)
        x_FJ3[..., ::2] -= first_J3[..., None, :1, ::2]
        return _turned_about_y(x_FJ3, -_facing(across_3)[..., None, None])

    def _heading(self, x_FJ3: Tensor) -> Tensor:
        """(..., F) the heading in every frame of a canonical motion: radians from +Z towards +X."""
        r_hip, l_hip, r_shoulder, l_shoulder = self.across
        shoulders_F3 = x_FJ3[..., r_shoulder, :] - x_FJ3[..., l_shoulder, :]
        hips_F3 = x_FJ3[..., r_hip, :] - x_FJ3[..., l_hip, :]
        heading_F = _facing(normalize(shoulders_F3 - hips_F3, dim=-1), smoothed=True)
        return torch.cat([torch.zeros_like(heading_F[..., :1]), heading_F[..., 1:]], -1)

    def _turns(self, x_FJ3: Tensor, phi_F: Tensor) -> Tensor:
        """(..., F, J - 1, 6) turn of each bone from its rest against the bone before it; against the heading at a chain's start."""
        parents = torch.tensor(self.skeleton.parents[1:], device=x_FJ3.device)
        arc_FJ4 = torch.zeros(*x_FJ3.shape[:-1], 4, dtype=x_FJ3.dtype, device=x_FJ3.device)
        arc_FJ4[..., 0, 0], arc_FJ4[..., 0, 2] = (phi_F / 2).cos(), (phi_F / 2).sin()
        bones_Fj3 = x_FJ3[..., 1:, :] - x_FJ3[..., parents, :]
        arc_FJ4[..., 1:, :] = rotations.shortest_arc(self.rest_J3[1:].to(x_FJ3), bones_Fj3)
        starts = {chain[1] for chain in self.skeleton.chains}
        before = [0 if n in starts else parent for n, parent in enumerate(self.skeleton.parents)][1:]
        local_Fj4 = rotations.multiply(rotations.conjugate(arc_FJ4[..., before, :]), arc_FJ4[..., 1:, :])
        return rotations.to_6d(rotations.matrix(local_Fj4))

    def _check(self, x: Tensor, size: int, what: str, axis: int = -1) -> None:
        if x.shape[axis] != size:
            raise ValueError(f"{x.shape[axis]} {what} for the codec {self.name!r}, which has {size}")


def _turned(planar_2: Tensor, angle: Tensor) -> Tensor:
    """(..., 2) x and z of vectors turned about y."""
    cos, sin = angle.cos(), angle.sin()
    x, z = planar_2.unbind(-1)
    return torch.stack([cos * x + sin * z, cos * z - sin * x], -1)


def _turned_about_y(x_3: Tensor, angle: Tensor) -> Tensor:
    planar_2 = _turned(x_3[..., ::2], angle)
    return torch.stack([planar_2[..., 0], x_3[..., 1], planar_2[..., 1]], -1)


def _facing(across_3: Tensor, smoothed: bool = False) -> Tensor:
    """(...) angle from +Z, towards +X, of the direction that is forward of a line from left to right."""
    # up x across
    forward_2 = torch.stack([across_3[..., 2], -across_3[..., 0]], -1)
    if smoothed:
        forward_2 = _smoothed(forward_2)
    return torch.atan2(forward_2[..., 0], forward_2[..., 1])


def _smoothed(x_F2: Tensor) -> Tensor:
    """Along the frames by a Gauss curve that is cut at 4 standard deviations; ends are continued as they are."""
    radius = int(4 * SMOOTHING_FRAMES + 0.5)
    at = torch.arange(-radius, radius + 1, dtype=x_F2.dtype, device=x_F2.device)
    weights = (-0.5 * (at / SMOOTHING_FRAMES).square()).exp()
    rows = x_F2.transpose(-1, -2).reshape(-1, 1, x_F2.shape[-2])
    out = conv1d(pad(rows, (radius, radius), mode="replicate"), (weights / weights.sum())[None, None])
    return out.reshape(*x_F2.shape[:-2], 2, -1).transpose(-1, -2)


HUMANML3D = JointCodec(
    "humanml3d",
    skeleton.HUMANML3D,
    20.0,
    (
        *("", "+x", "-x", "+y", "-y", "-y", "+y", "-y", "-y", "+y", "+z", "+z", "+y", "+x", "-x", "+z"),
        *("-y", "-y", "-y", "-y", "-y", "-y"),
    ),
    (2, 1, 17, 16),
    (5, 8),
    0.002,
    1.0,
)
"""22 joints, 263 features, 20 frames a second, metres."""

KIT = JointCodec(
    "kit",
    skeleton.KIT,
    12.5,
    (
        *("", "+y", "+y", "+y", "+y", "+x", "-y", "-y", "-x", "-y", "-y"),
        *("+x", "-y", "-y", "+z", "+z", "-x", "-y", "-y", "+z", "+z"),
    ),
    (11, 16, 5, 8),
    (17, 18),
    0.05,
    0.75 / 480,
)
"""21 joints, 251 features, 12.5 frames a second; features in units of 0.75 m / 480, positions in metres."""
