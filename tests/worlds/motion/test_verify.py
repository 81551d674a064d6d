"""The motion world's motions and its rules: what was made is right in every word, and what another program made is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prefopt.motion.stick import STICK
from prefopt.worlds.motion import task
from prefopt.worlds.motion.kinematics import ARM, BONE, FRAMES, NOISE, Style, clean, generate
from prefopt.worlds.motion.task import EVERY, Program
from prefopt.worlds.motion.verify import HANDS, WORDS, verdicts

MANY = [program for program in EVERY for _ in range(15)]
JOINT = {name: n for n, name in enumerate(STICK.skeleton.joints)}


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return generate(MANY, "tests")


def shares(programs, features) -> dict[str, float]:
    return {name: x.nanmean().item() for name, x in verdicts(programs, features).items()}


def test_all_that_is_made_is_right_in_every_word(truth):
    found = verdicts(MANY, truth)
    assert len(MANY) == 1575
    assert found["pass"].tolist() == [1] * len(MANY)
    assert found["attr"].tolist() == [1] * len(MANY)
    asked = {name: (~found[name].isnan()).tolist() for name in WORDS}
    for k, program in enumerate(MANY):
        counted = program.move in ("jump", "squat")
        assert asked["move"][k]
        assert asked["direction"][k] == (program.move not in ("stand", "jump", "squat"))
        assert asked["gesture"][k] == (not counted)
        assert asked["side"][k] == (program.gesture != "none")
        assert asked["count"][k] == (program.times > 0)
        assert asked["speed"][k] == bool(program.speed)


def test_positions_say_the_same(truth):
    assert shares(MANY, STICK.features(STICK.positions(truth)))["pass"] == 1


def test_another_program_is_wrong_in_what_differs_and_right_in_all_else():
    asked, done, changed = [], [], []
    for program in EVERY:
        for attribute, others in task.neighbours(program).items():
            for other in others:
                asked.append(program)
                done.append(other)
                changed.append(attribute)
    found = verdicts(asked, generate(done, "others"))
    table = torch.stack([found[word] for word in WORDS])
    assert (table == 0).sum(0).tolist() == [1] * len(asked)
    assert [WORDS[n] for n in table.nan_to_num(1.0).argmin(0)] == changed
    assert not found["pass"].any()
    torch.testing.assert_close(found["attr"], table.nanmean(0))


def test_no_program_does_what_another_asks_for():
    """Every pair of programs, whose captions do not leave open what the other says."""
    made = generate(EVERY, "pairs")
    for program in EVERY:
        passes = verdicts([program] * len(EVERY), made)["pass"].tolist()
        for j, other in enumerate(EVERY):
            assert passes[j] == (other._replace(speed=program.speed and other.speed) == program), (
                program,
                other,
            )


def test_a_motion_depends_on_its_number_and_program_alone(truth):
    assert torch.equal(generate(MANY[:40], "tests"), truth[:40])
    changed = [*MANY[:3], Program("jump", times=3), *MANY[4:9]]
    again = generate(changed, "tests")
    assert torch.equal(again[4:], truth[4:9])
    assert not torch.equal(again[3], truth[3])
    assert not torch.equal(generate(MANY[:2], "other"), truth[:2])
    assert not torch.equal(truth[0], truth[1])  # of one program
    assert generate([], "tests").shape == (0, FRAMES, 36)


def clean_of(program: Program, factor: float = 1.0, circle: float = 1.0, phase: float = 0.1) -> torch.Tensor:
    style = Style(*(torch.tensor([x]).double() for x in (factor, circle, phase)))
    return clean([program], style)[0]


@pytest.mark.parametrize("move", ["forward", "backward", "clockwise", "counterclockwise", "left", "right"])
def test_feet_that_stand_keep_their_place(move):
    features = clean_of(Program(move))
    positions = STICK.positions(features)
    feet = positions[:, [JOINT["l_foot"], JOINT["r_foot"]]]
    stands = features[:-1, 34:].bool()
    travelled = feet.diff(dim=0).norm(dim=-1)
    assert travelled[stands].max() < 0.012
    assert travelled[~stands].mean() > 0.1
    assert 0.3 < features[:, 34:].mean() < 0.5  # until the next frame, which halves of short stances do not
    assert positions[:, 0, [0, 2]].diff(dim=0).norm(dim=-1).max() < 0.09


@pytest.mark.parametrize(
    "program", [Program("forward", "wave", "left", 2), Program("squat", times=2), Program("jump", times=1)]
)
def test_bones_keep_their_lengths(program):
    positions = STICK.positions(clean_of(program))
    for child, parent in enumerate(STICK.skeleton.parents[1:], 1):
        name = STICK.skeleton.joints[child]
        length = (positions[:, child] - positions[:, parent]).norm(dim=-1)
        expected = {"knee": BONE, "foot": BONE, "elbow": ARM, "hand": ARM}.get(name[2:], length[0].item())
        torch.testing.assert_close(length, torch.full_like(length, expected), atol=1e-6, rtol=0)


def test_noise_is_as_strong_as_told(truth):
    programs = [Program("stand")] * 300
    made = generate(programs, "noise")
    spread = (made - made.mean(0)).std((0, 1))
    np.testing.assert_allclose(spread, NOISE, rtol=0.05)


# -- the rules, on motions made by hand -----------------------------------------------------------------------


def still(frames: int = 32) -> torch.Tensor:
    """(F, 36) of a figure that stands with its arms down."""
    return clean_of(Program("stand"))[:1].repeat(frames, 1)


def judged(program: Program, features: torch.Tensor, word: str) -> float:
    return verdicts([program], features[None])[word].item()


def test_jumps_are_counted_with_hysteresis():
    motion = still()
    motion[:, 3] = 0.9
    for k, lift in ((3, 0.13), (5, 0.1), (6, 0.13), (8, 0.04), (9, 0.13), (20, 0.04), (25, 0.119)):
        motion[k:, 3] = 0.9 + lift
    assert judged(Program("jump", times=2), motion, "count") == 1
    assert judged(Program("jump", times=1), motion, "count") == 0
    motion[20:, 3] = 0.95 + 0.001  # never landed
    motion[25:, 3] = 0.9 + 0.2
    assert judged(Program("jump", times=2), motion, "count") == 1
    assert judged(Program("squat", times=1), motion, "move") == 0
    motion[:, 1] = 0.026  # goes .83 m
    assert judged(Program("jump", times=2), motion, "move") == 0


def test_waves_are_counted_of_the_hand_that_is_up():
    program = Program("stand", "wave", "right", 2)
    motion = still()
    motion[:, HANDS[1] + 1] = 0.9 + 0.7
    sway = torch.full((32,), -0.42)
    sway[4:8] -= 0.11  # outwards, which for the right hand is negative
    sway[8:12] += 0.09
    sway[12:16] -= 0.11  # has not been back
    sway[16:20] += 0.11
    sway[20:24] -= 0.11
    motion[:, HANDS[1]] = sway
    assert [judged(program, motion, word) for word in ("gesture", "side", "count", "pass")] == [1, 1, 1, 1]
    assert judged(program._replace(times=3), motion, "count") == 0
    assert judged(program._replace(side="left"), motion, "side") == 0
    assert judged(program._replace(side="left"), motion, "count") == 1
    assert judged(Program("stand", "raise", "right"), motion, "gesture") == 0
    assert judged(Program("stand"), motion, "gesture") == 0
    both = motion.clone()
    both[:, HANDS[0] + 1] = 0.9 + 0.7
    assert [judged(program, both, word) for word in ("gesture", "side", "count")] == [0, 0, 0]
    short = motion.clone()
    short[14:, HANDS[1] + 1] = 0.9 + 0.5  # up in 14 frames of 32: neither up nor down
    assert [judged(program, short, word) for word in ("gesture", "side")] == [0, 0]
    assert judged(Program("stand"), short, "gesture") == 0


@pytest.mark.parametrize(
    ("program", "right", "wrong"),
    [
        (Program("forward"), {1: 1.51}, {1: 1.49}),
        (Program("forward"), {1: 2, 2: 0.79, 0: 1.19}, {1: 2, 2: 0.81}),
        (Program("forward"), {1: 2}, {1: 2, 0: -1.21}),
        (Program("backward"), {1: -1.01}, {1: -0.99}),
        (Program("left"), {2: 1.01}, {2: -2}),
        (Program("right"), {2: -1.01, 1: 0.79}, {2: -1.01, 1: 0.81}),
        (Program("clockwise"), {1: 1.21, 0: -4.21}, {1: 1.21, 0: 4.21}),
        (Program("clockwise"), {1: 1.21, 0: -8.49}, {1: 1.21, 0: -8.51}),
        (Program("counterclockwise"), {1: 1.21, 0: 4.21}, {1: 1.19, 0: 4.21}),
        (Program("stand"), {1: 0.59, 2: -0.59, 0: 1.19}, {1: 0.61}),
    ],
)
def test_the_bounds_of_moves(program, right, wrong):
    for totals, expected in ((right, 1), (wrong, 0)):
        motion = still()
        for channel, total in totals.items():
            motion[:, channel] = total / len(motion)
        assert judged(program, motion, "pass") == expected


@pytest.mark.parametrize(("factor", "slow", "quick"), [(0.45, 0, 0), (0.7, 1, 0), (1.0, 0, 0), (1.4, 0, 1)])
def test_the_bounds_of_speeds(factor, slow, quick):
    for move, pace in (("forward", 0.08), ("backward", -0.06)):
        motion = still(48)
        motion[:, 1] = pace * factor
        assert judged(Program(move, speed="slowly"), motion, "speed") == slow
        assert judged(Program(move, speed="quickly"), motion, "speed") == quick


def test_motions_with_numbers_that_are_not_finite_are_right_in_nothing(truth):
    broken = truth[:4].clone()
    broken[1, 3, 7] = math.nan
    broken[2, 3, 34] = math.inf
    found = verdicts(MANY[:4], broken)
    assert found["attr"].tolist() == [1, 0, 0, 1]
    assert found["pass"].tolist() == [1, 0, 0, 1]
    assert found["side"].isnan().all()  # it was not asked for


def test_what_is_no_motion_is_refused():
    for wrong in (torch.zeros(2, 32, 36), torch.zeros(1, 32, 35), torch.zeros(32, 36)):
        with pytest.raises(ValueError, match="for 1 captions; needed one motion each"):
            verdicts([Program("stand")], wrong)
    with pytest.raises(ValueError, match="has 7 frames; needed 8"):
        verdicts([Program("stand")], torch.zeros(1, 7, 36))
