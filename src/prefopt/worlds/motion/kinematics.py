"""Motions of the motion world, made from programs: where feet, hands and the root are, and knees and elbows in between.

A foot that stands keeps its place on the floor while the root goes on, also along an arc, then swings to where it stands next.

Legend of shape suffixes: B motions, F = 32 frames, S = 2 sides (left, right), 3 a place: to the left of the root, above the floor, in
front of the root; D = 36 features. Metres and frames; heights of arms are above the root.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefopt.motion.stick import STICK
from prefopt.worlds.base import seed_of
from prefopt.worlds.motion.task import MOVES, SIDES, Program, parse_caption

FRAMES = 32
"""4 s."""
WALK, BACK, SIDESTEP = 0.08, 0.06, 0.06
"""Metres a frame at a factor of 1."""
FACTORS = {"": (0.8, 1.2), "slowly": (0.65, 0.72), "quickly": (1.35, 1.6)}
"""Bounds of the random factor of a motion's speed."""
CIRCLE = (0.85, 1.1)
"""Bounds of how much of a full turn is made."""
CYCLES, SIDE_CYCLES = 2.5, 4.0
"""Of the gait in a motion, at a factor of 1; steps become longer and quicker alike. Shorter ones to the side, or legs would cross."""
LIFT = 0.12
JUMP, SQUAT = 0.25, 0.35
HEIGHT, NECK, HEAD = 0.9, 0.5, 0.72
FOOT, STANCE, BONE = 0.03, 0.12, 0.46
"""Height of a standing foot, how far each is to its side, length of thigh and shank."""
ARM = 0.36
"""Length of upper arm and forearm."""
RAISED, DOWN = (0.42, 0.82), (0.25, -0.1)
"""Where a hand is: to its side, and above the root."""
WAVE = 0.2
WAVE_TIME = (0.15, 0.85)
RISE, FALL = 0.15, 0.1
"""Shares of the motion in which an arm goes up and down again."""
ARM_SWING = 0.6
NOISE = (0.004, 0.004, 0.004, 0.005, *(0.008,) * 30, 0.0, 0.0)
"""Standard deviation of the white noise of each feature."""


class Motions(NamedTuple):
    """Motions and what is said of them.

    Attributes:
        captions: of each.
        features_BFD: float32, in physical units.
        lengths_B: int64 frames of each: all have 32.
    """

    captions: list[str]
    features_BFD: Tensor
    lengths_B: Tensor


def moved(captions: Sequence[str], stream: str) -> Motions:
    """A motion for each caption that does what it says; motion k depends on (`stream`, k) and its caption alone.

    Raises:
        ValueError: no caption of this world.
    """
    features_BFD = generate([parse_caption(caption) for caption in captions], stream)
    return Motions(list(captions), features_BFD, torch.full((len(captions),), FRAMES))


class Style(NamedTuple):
    """What differs between motions of a program, (B,) each."""

    factor: Tensor
    circle: Tensor
    phase: Tensor


def generate(programs: Sequence[Program], stream: str) -> Tensor:
    """(B, 32, 36) features in physical units, float32.

    Args:
        programs: what is done.
        stream: motion k depends on (`stream`, k), its program and nothing else.
    """
    key = seed_of(stream)
    u_B3 = np.empty((len(programs), 3))
    noise_BFD = np.empty((len(programs), FRAMES, STICK.width), dtype=np.float32)
    for k in range(len(programs)):
        rng = np.random.default_rng([key, k])
        u_B3[k] = rng.random(3)
        noise_BFD[k] = rng.standard_normal(noise_BFD.shape[1:], dtype=np.float32)
    u_3B = torch.from_numpy(u_B3).T
    low_B, high_B = torch.tensor([FACTORS[program.speed] for program in programs]).double().reshape(-1, 2).T
    style = Style(low_B + (high_B - low_B) * u_3B[0], CIRCLE[0] + (CIRCLE[1] - CIRCLE[0]) * u_3B[1], u_3B[2])
    clean_BFD = clean(programs, style).float()
    return clean_BFD + torch.tensor(NOISE) * torch.from_numpy(noise_BFD)


def clean(programs: Sequence[Program], style: Style) -> Tensor:
    """(B, F, D) features without noise, float64."""
    is_ = {
        move: torch.tensor([program.move == move for program in programs], dtype=torch.bool) for move in MOVES
    }
    count_B1 = torch.tensor([float(program.times) for program in programs]).double()[:, None]
    circles = is_["clockwise"] | is_["counterclockwise"]
    forward_B = style.factor * (WALK * (is_["forward"] | circles) - BACK * is_["backward"].double())
    left_B = style.factor * SIDESTEP * (is_["left"].double() - is_["right"].double())
    turn_B = style.circle * 2 * math.pi / FRAMES
    turn_B = turn_B * (is_["counterclockwise"].double() - is_["clockwise"].double())

    time_F = (torch.arange(FRAMES).double() + 0.5) / FRAMES
    beat_BF = 2 * math.pi * count_B1 * time_F
    rise_BF = JUMP * beat_BF.sin().clamp(min=0) * is_["jump"][:, None]
    sink_BF = SQUAT * (1 - beat_BF.cos()) / 2 * is_["squat"][:, None]
    height_BF = HEIGHT + rise_BF - sink_BF

    feet_BFS3, stands_BFS = _feet(forward_B, left_B, turn_B, style, rise_BF)
    hands_BFS3 = _hands(programs, time_F, feet_BFS3)
    hands_BFS3[..., 1] += height_BF[..., None]
    root_BF13 = torch.stack((torch.zeros_like(height_BF), height_BF, torch.zeros_like(height_BF)), -1)[
        :, :, None
    ]
    neck_BF13, head_BF13 = (root_BF13 + torch.tensor((0.0, up, 0.0)) for up in (NECK, HEAD))
    ahead_S3 = torch.tensor(((0.0, 0.0, 1.0), (0.0, 0.0, 1.0)))
    outward_S3 = torch.tensor(((1.0, 0.0, -0.3), (-1.0, 0.0, -0.3)))
    knees_BFS3 = _bent(root_BF13, feet_BFS3, BONE, ahead_S3)
    elbows_BFS3 = _bent(neck_BF13, hands_BFS3, ARM, outward_S3)
    # left knee, left foot, right knee, right foot
    legs_BFJ3 = torch.stack((knees_BFS3, feet_BFS3), 3).flatten(2, 3)
    arms_BFJ3 = torch.stack((elbows_BFS3, hands_BFS3), 3).flatten(2, 3)
    joints_BFJ3 = torch.cat((neck_BF13, head_BF13, legs_BFJ3, arms_BFJ3), 2)
    ways = [x[:, None].expand(-1, FRAMES) for x in (turn_B, forward_B, left_B)]
    root_BFD = torch.stack((*ways, height_BF), -1)
    return torch.cat((root_BFD, joints_BFJ3.flatten(2), stands_BFS.double()), -1)


def _feet(
    forward_B: Tensor, left_B: Tensor, turn_B: Tensor, style: Style, rise_BF: Tensor
) -> tuple[Tensor, Tensor]:
    """(B, F, S, 3) feet, and (B, F, S) whether each stands until the next frame."""
    moves_B = (forward_B != 0) | (left_B != 0)
    cycles_B = torch.where(left_B != 0, SIDE_CYCLES, CYCLES) * style.factor.sqrt()
    half_B = FRAMES / cycles_B / 4  # frames from the middle of a stance to its end
    start_BS = style.phase[:, None] + torch.tensor((0.0, 0.5))
    phase_BFS = start_BS[:, None] + (cycles_B[:, None] * torch.arange(FRAMES + 1) / FRAMES)[..., None]
    phase_BFS = phase_BFS % 1
    swings_BFS = (phase_BFS >= 0.5) & moves_B[:, None, None]
    since_BFS = (4 * phase_BFS - 1) * half_B[:, None, None]  # frames since the middle of the stance
    forward, left, turn = (x[:, None, None] for x in (forward_B, left_B, turn_B))
    end_BFS = half_B[:, None, None].expand_as(since_BFS)
    standing, last, first = (
        torch.stack(_planted(forward, left, turn, frames)) for frames in (since_BFS, end_BFS, -end_BFS)
    )
    through_BFS = (2 * phase_BFS - 1).clamp(min=0)  # of the swing
    swinging = last + (first - last) * (1 - (math.pi * through_BFS).cos()) / 2
    left_BFS, front_BFS = torch.where(moves_B[:, None, None], swinging.where(swings_BFS, standing), last * 0)
    left_BFS = torch.where(moves_B[:, None, None], left_BFS, torch.tensor((STANCE, -STANCE)).double())
    up_BFS = FOOT + LIFT * (math.pi * through_BFS).sin() * swings_BFS
    feet_BFS3 = torch.stack((left_BFS, up_BFS, front_BFS), -1)[:, :-1]
    feet_BFS3[..., 1] += rise_BF[..., None]
    stands_BFS = ~(swings_BFS[:, :-1] | swings_BFS[:, 1:]) & (rise_BF < 0.01)[..., None]
    return feet_BFS3, stands_BFS


def _planted(forward: Tensor, left: Tensor, turn: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Where a foot is, to the left and in front, some frames after (or before) it stood beside the root."""
    angle = turn * frames
    ahead = frames * torch.sinc(angle / math.pi)  # of an arc of unit speed, ahead and aside
    aside = frames * (angle / 2).sin() * torch.sinc(angle / 2 / math.pi)
    to_left = torch.tensor((STANCE, -STANCE)) - left * ahead - forward * aside
    in_front = -forward * ahead + left * aside
    return to_left * angle.cos() - in_front * angle.sin(), to_left * angle.sin() + in_front * angle.cos()


def _hands(programs: Sequence[Program], time_F: Tensor, feet_BFS3: Tensor) -> Tensor:
    """(B, F, S, 3) hands, their heights above the root's."""
    side_S = torch.tensor((1.0, -1.0)).double()
    up_BS = torch.tensor([[p.side == side for side in SIDES] for p in programs]).reshape(-1, 2)
    waves_B = torch.tensor([float(p.times) if p.gesture == "wave" else 0.0 for p in programs]).double()
    ramp_F = torch.minimum(time_F / RISE, (1 - time_F) / FALL).clamp(0, 1)
    up_BFS = up_BS.double()[:, None] * (ramp_F * ramp_F * (3 - 2 * ramp_F))[None, :, None]
    begin, end = WAVE_TIME
    share_F = ((time_F - begin) / (end - begin)).clamp(0, 1)
    wave_BF = WAVE * (2 * math.pi * waves_B[:, None] * share_F).sin()
    out_BFS = DOWN[0] + (RAISED[0] + wave_BF[..., None] - DOWN[0]) * up_BFS
    swing_BFS = ARM_SWING * feet_BFS3[..., 2].flip(-1)  # each with the leg of the other side
    return torch.stack(
        (out_BFS * side_S, DOWN[1] + (RAISED[1] - DOWN[1]) * up_BFS, swing_BFS * (1 - up_BFS)), -1
    )


def _bent(near: Tensor, far: Tensor, bone: float, towards_S3: Tensor) -> Tensor:
    """The joint between two bones of equal length, bent towards a direction; straight where the ends are too far apart."""
    way = far - near
    distance = way.norm(dim=-1, keepdim=True)
    along = way / distance
    across = towards_S3 - (towards_S3 * along).sum(-1, keepdim=True) * along
    out = (bone**2 - distance.square() / 4).clamp(min=0).sqrt()
    return near + way / 2 + out * across / across.norm(dim=-1, keepdim=True)
