"""What is done in the motion world, and how it is said: 69 programs, their captions, and captions with every side and direction exchanged.

A program is a way to move (stand, walk, circle, sidestep) with what an arm does meanwhile (nothing, wave or rise), or some jumps or squats. Walking
forward or backward may be slow or quick besides.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from prefopt.worlds.base import Split

SUBJECTS = ("a person", "someone", "the figure")
VERBS = {
    "stand": ("stands still", "stays in place"),
    "forward": ("walks forward", "goes forward"),
    "backward": ("walks backward", "goes backward"),
    "clockwise": ("walks in a circle clockwise", "goes around clockwise"),
    "counterclockwise": ("walks in a circle counterclockwise", "goes around counterclockwise"),
    "left": ("steps to the left", "moves to the left"),
    "right": ("steps to the right", "moves to the right"),
    "jump": ("jumps", "hops"),
    "squat": ("squats", "crouches"),
}
"""Two wordings of each move."""
MOVES = tuple(VERBS)
COUNTED = ("jump", "squat")
"""Moves that are done some times, with the arms at rest."""
PACED = ("forward", "backward")
"""Moves that may be slow or quick."""
SPEEDS = ("slowly", "quickly")
SIDES = ("left", "right")
TIMES = ("once", "twice", "three times")
OPPOSITES = {
    word: other
    for pair in (("left", "right"), ("clockwise", "counterclockwise"), ("forward", "backward"))
    for word, other in (pair, pair[::-1])
}
SPEED_SHARE = 1 / 3
"""Of the captions of walking, those that say how fast."""


class Program(NamedTuple):
    """What is done.

    Attributes:
        move: of `MOVES`.
        gesture: "none", "wave" or "raise".
        side: of the arm of a gesture.
        times: how often it waves, jumps or squats.
        speed: of `SPEEDS`, or "" for any.
    """

    move: str
    gesture: str = "none"
    side: str = ""
    times: int = 0
    speed: str = ""


GESTURES = (
    ("none", "", 0),
    *(("wave", side, times) for side in SIDES for times in (1, 2, 3)),
    *(("raise", side, 0) for side in SIDES),
)
PROGRAMS = (
    *(Program(move, *gesture) for move in MOVES if move not in COUNTED for gesture in GESTURES),
    *(Program(move, times=times) for move in COUNTED for times in (1, 2, 3)),
)
"""All of them, but for speed."""


# -- captions ------------------------------------------------------------------------------------------------


def caption_of(program: Program, subject: int = 0, wording: int = 0) -> str:
    """A caption of a program.

    Args:
        program: what is done.
        subject: index into `SUBJECTS`.
        wording: which of the two of its move.

    Example:
        >>> caption_of(Program("forward", "wave", "left", 2, "slowly"))
        'a person walks forward slowly and waves the left hand twice'
    """
    words = [SUBJECTS[subject], VERBS[program.move][wording]]
    if program.move in COUNTED:
        words.append(TIMES[program.times - 1])
    if program.speed:
        words.append(program.speed)
    if program.gesture == "wave":
        words.append(f"and waves the {program.side} hand {TIMES[program.times - 1]}")
    elif program.gesture == "raise":
        words.append(f"and raises the {program.side} arm")
    return " ".join(words)


def paced(program: Program) -> Iterator[Program]:
    """The program at any speed, and at each that may be asked for."""
    yield program
    if program.move in PACED:
        for speed in SPEEDS:
            yield program._replace(speed=speed)


EVERY = tuple(fast for program in PROGRAMS for fast in paced(program))
"""All programs, with speed; a program's number is its place here."""
NUMBERS = {program: number for number, program in enumerate(EVERY)}


@cache
def captions() -> dict[str, Program]:
    """Every caption there is, and what it asks for."""
    return {
        caption_of(program, subject, wording): program
        for program in EVERY
        for subject in range(len(SUBJECTS))
        for wording in range(2)
    }


WORDS = tuple(
    dict.fromkeys(
        " ".join(
            [
                *SUBJECTS,
                *(said for both in VERBS.values() for said in both),
                *(*SPEEDS, *TIMES, "and waves the hand", "raises arm"),
            ]
        ).split()
    )
)
"""Of the captions."""


def parse_caption(caption: str) -> Program:
    """What a caption asks for.

    Raises:
        ValueError: no caption of this world.

    Example:
        >>> parse_caption("someone hops twice")
        Program(move='jump', gesture='none', side='', times=2, speed='')
    """
    program = captions().get(" ".join(caption.lower().split()))
    if program is None:
        raise ValueError(
            f"not a caption of the motion world: {caption!r}. Needed: who, a move, and perhaps how fast and what an arm does, for "
            f"example {caption_of(Program('forward', 'wave', 'left', 2))!r}; moves are {', '.join(MOVES)}"
        )
    return program


def swapped(caption: str) -> str:
    """The caption with left and right, clockwise and counterclockwise, forward and backward exchanged; twice is once.

    >>> swapped("a person steps to the left and raises the right arm")
    'a person steps to the right and raises the left arm'
    """
    return " ".join(OPPOSITES.get(word, word) for word in caption.split())


def has_sides(caption: str) -> bool:
    """Whether `swapped` changes the caption."""
    return not OPPOSITES.keys().isdisjoint(caption.split())


def split_of(program: Program, subject: int, wording: int) -> Split:
    """Where a caption belongs: one of the six of each program is "test"."""
    return "test" if 2 * subject + wording == NUMBERS[program] % 6 else "train"


def draw_captions(n: int, split: Split, rng: random.Random) -> list[str]:
    """`n` captions of a split; all programs (speed aside) have come once before any comes again."""
    found: list[str] = []
    while len(found) < n:
        for program in rng.sample(PROGRAMS, len(PROGRAMS)):
            if program.move in PACED and rng.random() < SPEED_SHARE:
                program = program._replace(speed=rng.choice(SPEEDS))
            wordings = [
                (subject, wording)
                for subject in range(len(SUBJECTS))
                for wording in range(2)
                if split_of(program, subject, wording) == split
            ]
            found.append(caption_of(program, *rng.choice(wordings)))
    return found[:n]


# -- neighbours ----------------------------------------------------------------------------------------------


def neighbours(program: Program) -> dict[str, list[Program]]:
    """Programs that differ in one attribute, by its name: side, count, direction and speed, as far as a program has them.

    >>> neighbours(Program("jump", times=2))
    {'count': [Program(move='jump', gesture='none', side='', times=1, speed=''), Program(move='jump', gesture='none', side='', times=3, speed='')]}
    """
    found: dict[str, list[Program]] = {}
    if program.side:
        found["side"] = [program._replace(side=OPPOSITES[program.side])]
    if program.times:
        found["count"] = [program._replace(times=times) for times in (1, 2, 3) if times != program.times]
    if program.move in OPPOSITES:
        found["direction"] = [program._replace(move=OPPOSITES[program.move])]
    if program.speed:
        found["speed"] = [program._replace(speed=speed) for speed in SPEEDS if speed != program.speed]
    if not found:  # who stands still does nothing that could be done otherwise
        found["move"] = [program._replace(move=move) for move in MOVES if move not in (*COUNTED, "stand")]
    return found
