"""Positions of joints from turns and bones, bones from positions, and figures with other bones.

Legend: F frames, J joints; leading axes are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefopt.motion.humanml3d import HUMANML3D, JointCodec

ADULT_J3 = torch.tensor(
    [
        (0.0, 0.0, 0.0),
        *((0.065, -0.085, -0.005), (-0.065, -0.085, -0.005), (0.0, 0.115, -0.025)),
        *((0.04, -0.385, 0.0), (-0.04, -0.385, 0.0), (0.0, 0.135, 0.0)),
        *((-0.01, -0.41, -0.035), (0.01, -0.41, -0.035), (0.0, 0.055, 0.005)),
        *((0.03, -0.06, 0.125), (-0.03, -0.06, 0.125), (0.0, 0.215, -0.035)),
        *((0.075, 0.12, -0.02), (-0.075, 0.12, -0.02), (0.0, 0.085, 0.05)),
        *((0.115, 0.04, -0.01), (-0.115, 0.04, -0.01)),
        *((0.26, -0.01, -0.02), (-0.26, -0.01, -0.02), (0.25, 0.01, 0.0), (-0.25, 0.01, 0.0)),
    ],
    dtype=torch.float64,
)
"""Bones of an adult of middle size to HumanML3D's 22 joints, metres, y upwards: standing, facing +Z, the arms out to the sides.

Rounded figures of this project's own, close to a mean human body; they stem from no body model."""


def forward_kinematics(
    parents: Sequence[int], offsets_J3: Tensor, R_FJ33: Tensor, root_F3: Tensor
) -> tuple[Tensor, Tensor]:
    """Where joints are, by their turns.

    Args:
        parents: of each joint, -1 for the root; a joint stands behind its parent.
        offsets_J3: (..., F or nothing, J, 3) from the parent to each joint in the parent's own frame; the root's is not used.
        R_FJ33: (..., F, J, 3, 3) turn of each joint against its parent's.
        root_F3: (..., F, 3) where the root is.

    Returns:
        (..., F, J, 3) positions and (..., F, J, 3, 3) turns against the world.
    """
    offsets_FJ3 = offsets_J3.expand(*R_FJ33.shape[:-2], 3)
    positions, turns = [root_F3], [R_FJ33[..., 0, :, :]]
    for n, parent in enumerate(parents[1:], 1):
        positions.append(positions[parent] + (turns[parent] @ offsets_FJ3[..., n, :, None])[..., 0])
        turns.append(turns[parent] @ R_FJ33[..., n, :, :])
    return torch.stack(positions, -2), torch.stack(turns, -3)


def bones(parents: Sequence[int], positions_J3: Tensor) -> Tensor:
    """(..., J, 3) from each joint's parent to the joint; 0 for the root."""
    out = torch.zeros_like(positions_J3)
    out[..., 1:, :] = positions_J3[..., 1:, :] - positions_J3[..., list(parents[1:]), :]
    return out


def joined(parents: Sequence[int], bones_J3: Tensor, root_3: Tensor) -> Tensor:
    """(..., J, 3) positions of a root and of bones as they lie in the world: the inverse of `bones`."""
    positions = [root_3]
    for n, parent in enumerate(parents[1:], 1):
        positions.append(positions[parent] + bones_J3[..., n, :])
    return torch.stack(positions, -2)


def to_reference(positions_FJ3: Tensor, offsets_J3: Tensor, codec: JointCodec = HUMANML3D) -> Tensor:
    """The same motion by a figure with other bones, as the data sets' features were made.

    Bones keep their directions and take the lengths of `offsets_J3`; the root's way is scaled by the ratio of the legs'
    lengths, the figure's own being taken from the first frame.

    Args:
        positions_FJ3: (..., F, J, 3), in any unit.
        offsets_J3: (J, 3) bones of the reference, in metres; only their lengths matter. `ADULT_J3`, or
            `bones(parents, positions[0])` of a motion whose proportions are wanted (the data set took those of its
            clip 000021).
        codec: whose joints.

    Returns:
        (..., F, J, 3) in metres.

    Raises:
        ValueError: another number of joints; a leg of length 0.

    Example:
        >>> standing = joined(HUMANML3D.skeleton.parents, ADULT_J3, torch.tensor([0.0, 0.94, 0.0]).double())
        >>> twice = to_reference(2 * standing[None], ADULT_J3)
        >>> bool((twice[0] - standing).abs().max() < 1e-12)
        True
    """
    parents, J = codec.skeleton.parents, len(codec.skeleton)
    if positions_FJ3.shape[-2:] != (J, 3) or offsets_J3.shape != (J, 3):
        raise ValueError(
            f"positions of shape {tuple(positions_FJ3.shape)} and bones of shape {tuple(offsets_J3.shape)}; the skeleton "
            f"{codec.skeleton.name!r} has {J} joints: needed (frames, {J}, 3) and ({J}, 3)"
        )
    own_FJ3 = bones(parents, positions_FJ3)
    lengths_J = offsets_J3.to(positions_FJ3).norm(dim=-1)
    leg = list(codec.leg)
    own_leg = own_FJ3[..., 0, leg, :].norm(dim=-1).sum(-1)
    if bool((own_leg <= 0).any()):
        raise ValueError("a leg has length 0 in the first frame: needed a figure with legs, to scale it by")
    ratio = (lengths_J[leg].sum() / own_leg)[..., None, None]
    new_FJ3 = torch.nn.functional.normalize(own_FJ3, dim=-1) * lengths_J[:, None]
    return joined(parents, new_FJ3, positions_FJ3[..., 0, :] * ratio)


def resampled(x_FJ3: Tensor, fps: float, to_fps: float) -> Tensor:
    """(F', ...) what moves at another rate: on straight lines between the frames, from the first one on, to the last at most.

    From 120 to 20 frames a second this is every sixth frame. Nothing is smoothed before.

    Raises:
        ValueError: a rate of 0 or below; no frames.
    """
    if not fps > 0 or not to_fps > 0 or not len(x_FJ3):
        raise ValueError(
            f"{len(x_FJ3)} frames, {fps} a second, are asked for at {to_fps}; needed numbers above 0"
        )
    last = len(x_FJ3) - 1
    # 1e-6: the last frame of 1/0.0333333 a second is not lost to rounding
    at_F = torch.arange(int(last / fps * to_fps + 1e-6) + 1, dtype=torch.float64) * fps / to_fps
    before_F = at_F.add(1e-6).floor().long().clamp(max=last)
    share_F = (at_F - before_F).clamp(0, 1).to(x_FJ3).reshape(-1, *[1] * (x_FJ3.dim() - 1))
    after_F = (before_F + 1).clamp(max=last)
    return x_FJ3[before_F] + share_F * (x_FJ3[after_F] - x_FJ3[before_F])
