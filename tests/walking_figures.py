"""Motions of figures with smooth random turns."""

import torch

from prefopt.motion import rotations
from prefopt.motion.humanml3d import HUMANML3D, KIT, JointCodec
from prefopt.motion.kinematics import ADULT_J3, forward_kinematics


def smooth(shape: tuple[int, ...], frames: int, generator: torch.Generator) -> torch.Tensor:
    """(F, *shape) sums of three slow waves, about 1 in size."""
    t = torch.arange(frames, dtype=torch.float64) / 20
    out = torch.zeros(frames, *shape, dtype=torch.float64)
    for _ in range(3):
        speed = torch.rand(shape, generator=generator, dtype=torch.float64) * 4
        phase = torch.rand(shape, generator=generator, dtype=torch.float64) * 6.3
        out += torch.sin(t.reshape(-1, *[1] * len(shape)) * speed + phase) / 3
    return out


def kit_bones() -> torch.Tensor:
    """(21, 3) bones in metres, of a figure as in KIT's files: what is named left lies at negative x."""
    lengths = torch.tensor(
        [0, 0.06, 0.25, 0.2, 0.1, *[0.2, 0.28, 0.25] * 2, *[0.1, 0.4, 0.4, 0.06, 0.15] * 2]
    ).double()
    offsets = KIT.rest_J3 * lengths[:, None]
    offsets[[5, 8, 11, 16], 0] *= -1
    return offsets


def wander(
    frames: int = 60, seed: int = 0, turning: float = 0.0, codec: JointCodec = HUMANML3D
) -> torch.Tensor:
    """(F, J, 3) a figure that walks and moves all its joints, and turns by `turning` radians a frame on the whole."""
    generator = torch.Generator().manual_seed(seed)
    offsets = ADULT_J3 if codec is HUMANML3D else kit_bones()
    turns = smooth((len(offsets), 3), frames, generator) * 0.5
    turns[:, 0] *= 0.3
    R = rotations.from_axis_angle(turns)
    heading = turning * torch.arange(frames, dtype=torch.float64) + 0.4
    R[:, 0] = rotations.about("Y", heading) @ R[:, 0]
    step = torch.stack([heading.sin(), torch.zeros_like(heading), heading.cos()], -1) * 0.05
    root = step.cumsum(0) + smooth((3,), frames, generator) * 0.1 + torch.tensor([1.0, 0.9, -2.0])
    return forward_kinematics(codec.skeleton.parents, offsets, R, root)[0]
