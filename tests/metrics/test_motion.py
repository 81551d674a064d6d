"""Feet, jerk and floor, on motions whose numbers follow by hand."""

from __future__ import annotations

import math

import pytest
import torch

from prefopt.metrics.motion import floor_penetration, foot_skating, jerk

FPS = 10.0


def still(frames: int = 8, joints: int = 3) -> torch.Tensor:
    """(1, F, J, 3): joint 0 at 1 m, joints 1 and 2 on the floor."""
    positions = torch.zeros(1, frames, joints, 3)
    positions[..., 0, 1] = 1
    return positions


def lengths(*values: int) -> torch.Tensor:
    return torch.tensor(values)


def test_a_foot_that_slides_in_some_steps():
    """Of 7 steps, joint 1 slides .1 m in two and .04 m (.4 m/s, allowed) in one; joint 2 in one of the same."""
    motion = still()
    for foot, steps in ((1, {2: 0.1, 3: 0.1, 5: 0.04}), (2, {3: 0.2})):
        for step, slip in steps.items():
            motion[0, step:, foot, 2] += slip
    assert foot_skating(motion, lengths(8), (1, 2), FPS).tolist() == [pytest.approx(2 / 7)]
    assert foot_skating(motion, lengths(8), (2,), FPS).tolist() == [pytest.approx(1 / 7)]
    assert foot_skating(motion, lengths(8), (1,), FPS, speed=0.3).tolist() == [pytest.approx(3 / 7)]
    assert foot_skating(motion, lengths(8), (1, 2), FPS / 10).tolist() == [0.0]


def test_a_foot_in_the_air_does_not_slide():
    motion = still()
    motion[0, 4:, 1, 0] += 1
    assert foot_skating(motion, lengths(8), (1,), FPS).tolist() == [pytest.approx(1 / 7)]
    for frame in (3, 4):  # in the air where it leaves, or where it lands
        motion[0, :, 1, 1] = 0
        motion[0, frame, 1, 1] = 0.06
        assert foot_skating(motion, lengths(8), (1,), FPS).tolist() == [0.0]
    assert foot_skating(motion, lengths(8), (1,), FPS, height=0.07).tolist() == [pytest.approx(1 / 7)]
    assert foot_skating(motion - 0.2, lengths(8), (1,), FPS, floor=-0.2).tolist() == [0.0]


def test_a_falling_foot_is_no_sliding_one():
    motion = still()
    motion[0, 4:, 1, 1] -= 1
    assert foot_skating(motion, lengths(8), (1,), FPS).tolist() == [0.0]


def test_jerk_of_a_cubic_path():
    """x = t^3 of one joint of three: its third derivative is 6 everywhere."""
    t = torch.arange(8) / FPS
    motion = still()
    motion[0, :, 1, 0] = t**3
    motion[0, :, 2, 0] = 5 * t**2 + t  # constant acceleration has none
    assert jerk(motion.double(), lengths(8), FPS).tolist() == [pytest.approx(6 / 3, rel=1e-3)]
    assert jerk(motion, lengths(8), 2 * FPS).tolist() == [pytest.approx(8 * 6 / 3, rel=1e-3)]


def test_jerk_is_a_length():
    t = torch.arange(8, dtype=torch.float64) / FPS
    motion = torch.stack([t**3, 2 * t**3, -2 * t**3], -1)[None, :, None]
    assert jerk(motion, lengths(8), FPS).tolist() == [pytest.approx(6 * 3)]


def test_depth_of_the_lowest_joint():
    motion = still()
    motion[0, 2, 1, 1], motion[0, 2, 2, 1], motion[0, 3, 2, 1] = -0.2, -0.1, -0.6
    assert floor_penetration(motion, lengths(8)).tolist() == [pytest.approx(0.8 / 8)]
    assert floor_penetration(motion, lengths(8), floor=-0.2).tolist() == [pytest.approx(0.4 / 8)]


@pytest.mark.parametrize(
    "figure",
    [lambda p, n: foot_skating(p, n, (1, 2), FPS), lambda p, n: jerk(p, n, FPS), floor_penetration],
    ids=["skating", "jerk", "floor"],
)
def test_what_stands_behind_the_end_has_no_say(figure):
    generator = torch.Generator().manual_seed(0)
    motion = torch.rand(2, 8, 3, 3, generator=generator).double() * 0.2 - 0.1
    padded = torch.cat([motion, torch.full((2, 3, 3, 3), math.nan)], 1)
    padded[1, 5:] = 1e3
    whole = figure(padded, lengths(8, 5))
    assert whole.tolist() == pytest.approx(
        [float(figure(motion[:1], lengths(8))), float(figure(motion[1:, :5], lengths(5)))]
    )
    assert all(value > 0 for value in whole.tolist())
    assert figure(still(), lengths(8)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jerk(still()[0], lengths(8), FPS), "needed .motions, frames, joints, 3."),
        (lambda: jerk(still(), lengths(8, 8), FPS), "one length for each"),
        (lambda: jerk(still(), lengths(3), FPS), "motion 0 has the length 3: needed 4 to 8"),
        (lambda: floor_penetration(still(), lengths(9)), "needed 1 to 8"),
        (lambda: foot_skating(still(), lengths(1), (1,), FPS), "needed 2 to 8"),
        (lambda: foot_skating(still(), lengths(8), (3,), FPS), r"feet \[3\] of 3 joints"),
        (lambda: foot_skating(still(), lengths(8), (), FPS), "one or more"),
        (lambda: floor_penetration(still() * math.nan, lengths(8)), "motion 0 are not all finite"),
    ],
)
def test_what_has_no_number_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
