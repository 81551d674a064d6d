"""Whether a motion looks like that of a body: feet that slide, joints that jerk, a body below the floor.

Sanity figures of motions alone: they say nothing of a text, and all are 0 of a figure that stands still.

Legend: B motions, F frames, J joints, 3 = x, y (upwards), z in metres. What stands behind a motion's end has no say.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CONTACT_HEIGHT = 0.05
"""Metres above the floor below which a foot touches it."""
SLIDING_SPEED = 0.5
"""Metres a second above which a foot in contact skates: 2.5 cm a frame at 20 frames a second."""


def foot_skating(
    positions_BFJ3: Tensor,
    lengths_B: Tensor,
    feet: Sequence[int],
    fps: float,
    *,
    height: float = CONTACT_HEIGHT,
    speed: float = SLIDING_SPEED,
    floor: float = 0.0,
) -> Tensor:
    """Share of the steps from frame to frame in which a foot on the floor slides: below `height` in both, faster than `speed`.

    Source: the foot skating ratio of Guided Motion Diffusion (arXiv 2305.12577), whose 2.5 cm a frame is given as a speed, so
    that it means the same at other frame rates. Their code asks in addition that the mean speed over five frames is as high.

    Args:
        positions_BFJ3: positions.
        lengths_B: (B,) frames of each.
        feet: joints to look at; the field takes the toes (10 and 11 of HumanML3D).
        fps: frames a second.
        height: metres above the floor.
        speed: metres a second, horizontally.
        floor: its height.

    Returns:
        (B,) in [0, 1].

    Raises:
        ValueError: other shapes, numbers that are not finite, motions of fewer than 2 frames, joints that are not there.
    """
    positions_BFJ3 = _checked(positions_BFJ3, lengths_B, 2)
    if not feet or not all(0 <= foot < positions_BFJ3.shape[2] for foot in feet):
        raise ValueError(
            f"feet {list(feet)} of {positions_BFJ3.shape[2]} joints: needed one or more of their indices"
        )
    feet_BFJ3 = positions_BFJ3[:, :, list(feet)]
    low_BFJ = feet_BFJ3[..., 1] - floor < height
    speed_BFJ = feet_BFJ3[..., [0, 2]].diff(dim=1).norm(dim=-1) * fps
    slides_BF = (low_BFJ[:, 1:] & low_BFJ[:, :-1] & (speed_BFJ > speed)).any(-1)
    return _mean(slides_BF.double(), lengths_B - 1)


def jerk(positions_BFJ3: Tensor, lengths_B: Tensor, fps: float) -> Tensor:
    """Mean size of the third difference of the joints' positions, as a derivative: metres a second cubed.

    Generated motions of too little jerk are blurred, those of too much tremble: it is to be like that of real ones.

    Returns:
        (B,) in m/s^3.

    Raises:
        ValueError: other shapes, numbers that are not finite, motions of fewer than 4 frames.
    """
    positions_BFJ3 = _checked(positions_BFJ3, lengths_B, 4)
    jerk_BFJ = positions_BFJ3.diff(n=3, dim=1).norm(dim=-1) * fps**3
    return _mean(jerk_BFJ.mean(-1), lengths_B - 3)


def floor_penetration(positions_BFJ3: Tensor, lengths_B: Tensor, *, floor: float = 0.0) -> Tensor:
    """Mean depth of the lowest joint below the floor, 0 in frames in which none is: metres.

    Source: ground penetration of PhysDiff (arXiv 2212.02500), there of the vertices of a body.

    Returns:
        (B,) in metres.

    Raises:
        ValueError: other shapes, numbers that are not finite, motions without frames.
    """
    positions_BFJ3 = _checked(positions_BFJ3, lengths_B, 1)
    depth_BF = (floor - positions_BFJ3[..., 1].amin(-1)).clamp(min=0)
    return _mean(depth_BF, lengths_B)


def _mean(values_BF: Tensor, count_B: Tensor) -> Tensor:
    """Mean over the first `count` of each row."""
    count_B = count_B.to(values_BF.device)
    there_BF = torch.arange(values_BF.shape[1], device=values_BF.device) < count_B[:, None]
    return values_BF.where(there_BF, 0.0).sum(1) / count_B


def _checked(positions_BFJ3: Tensor, lengths_B: Tensor, least: int) -> Tensor:
    shape = tuple(positions_BFJ3.shape)
    if len(shape) != 4 or shape[-1] != 3 or lengths_B.shape != shape[:1]:
        raise ValueError(
            f"positions of the shape {shape} and lengths {tuple(lengths_B.shape)}: needed (motions, frames, joints, 3) and one "
            "length for each"
        )
    for index, length in enumerate(lengths_B.tolist()):
        if not least <= length <= shape[1]:
            raise ValueError(f"motion {index} has the length {length}: needed {least} to {shape[1]} frames")
        if not bool(positions_BFJ3[index, :length].isfinite().all()):
            raise ValueError(f"positions of motion {index} are not all finite: look for what made them")
    return positions_BFJ3.double()
