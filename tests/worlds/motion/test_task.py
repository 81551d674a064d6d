"""The motion world's captions: what they ask for, their mirror images, and programs next to each other."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from prefopt.worlds.motion import task
from prefopt.worlds.motion.task import Program, caption_of, parse_caption, swapped


def test_there_are_69_programs_and_36_more_with_speed():
    assert len(task.PROGRAMS) == len(set(task.PROGRAMS)) == 7 * 9 + 3 + 3
    assert len(task.EVERY) == len(set(task.EVERY)) == 69 + 2 * 9 * 2
    assert set(task.PROGRAMS) < set(task.EVERY)
    assert all(task.EVERY[number] == program for program, number in task.NUMBERS.items())


def test_every_caption_says_one_thing():
    captions = task.captions()
    assert len(captions) == 6 * len(task.EVERY)
    assert Counter(captions.values()) == dict.fromkeys(task.EVERY, 6)
    assert all(parse_caption(caption) == program for caption, program in captions.items())
    assert {word for caption in captions for word in caption.split()} == set(task.WORDS)
    assert len(task.WORDS) == 38
    assert max(len(caption.split()) for caption in captions) == 14


def test_captions_in_words():
    program = Program("clockwise", "wave", "right", 3)
    assert (
        caption_of(program, 2, 1) == "the figure goes around clockwise and waves the right hand three times"
    )
    assert parse_caption("  Someone stays in place and raises the LEFT arm ") == Program(
        "stand", "raise", "left"
    )
    assert parse_caption("a person goes backward quickly") == Program("backward", speed="quickly")
    assert parse_caption("a person crouches once") == Program("squat", times=1)
    for wrong in (
        "a person walks",
        "a person jumps",
        "a person jumps four times",
        "a person steps to the left slowly",
        "",
    ):
        with pytest.raises(ValueError, match="not a caption of the motion world"):
            parse_caption(wrong)


def test_exchanging_sides_and_directions_twice_changes_nothing():
    opposite = {"forward": "backward", "clockwise": "counterclockwise", "left": "right"}
    opposite |= {b: a for a, b in opposite.items()}
    changed = 0
    for caption, program in task.captions().items():
        other = swapped(caption)
        assert swapped(other) == caption
        expected = program._replace(
            move=opposite.get(program.move, program.move), side=opposite.get(program.side, "")
        )
        assert parse_caption(other) == expected
        assert task.has_sides(caption) == (other != caption)
        changed += other != caption
    assert changed == 6 * (len(task.EVERY) - 7)  # standing still, and what is counted, has no side


def test_splits_share_programs_but_no_caption():
    found = {split: task.draw_captions(15_000, split, random.Random(0)) for split in ("train", "test")}
    assert not set(found["train"]) & set(found["test"])
    for captions in found.values():
        assert {parse_caption(caption) for caption in captions} == set(task.EVERY)
    assert len(set(found["test"])) == len(task.EVERY)
    for subject in task.SUBJECTS:  # no word is in one split alone
        assert len({c for c in found["test"] if c.startswith(subject)}) >= 30
    assert {word for caption in found["test"] for word in caption.split()} == set(task.WORDS)
    assert len(set(found["train"])) == 5 * len(task.EVERY)


def test_programs_come_in_turn():
    captions = task.draw_captions(69 * 4, "train", random.Random(1))
    assert task.draw_captions(80, "train", random.Random(1)) == captions[:80]
    programs = [parse_caption(caption)._replace(speed="") for caption in captions]
    for turn in range(4):
        assert set(programs[69 * turn : 69 * (turn + 1)]) == set(task.PROGRAMS)
    assert programs[:69] != programs[69:138]
    paced = [parse_caption(c) for c in captions if parse_caption(c).move in task.PACED]
    assert 0.15 < sum(bool(p.speed) for p in paced) / len(paced) < 0.5
    assert not any(parse_caption(c).speed for c in captions if parse_caption(c).move not in task.PACED)


def test_neighbours_differ_in_what_they_say():
    fields = {"side": "side", "count": "times", "direction": "move", "speed": "speed", "move": "move"}
    for program in task.EVERY:
        near = task.neighbours(program)
        for attribute, others in near.items():
            for other in others:
                assert other in task.NUMBERS
                differing = [n for n in Program._fields if getattr(other, n) != getattr(program, n)]
                assert differing == [fields[attribute]]
        assert "side" in near or program.gesture == "none"
        assert ("count" in near) == (program.times > 0)
        assert ("direction" in near) == (program.move not in ("stand", "jump", "squat"))
        assert ("speed" in near) == bool(program.speed)
    assert list(task.neighbours(Program("stand"))) == ["move"]
