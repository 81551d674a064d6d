"""The clips of the film world: what they show, what is said of them, and their pixels, which can be read exactly.

A clip shows one object of 24 (a colour and a shape) that moves in one of four directions, and perhaps a flash in its first or
second half. So a question about the object has one of 12 answers.

Legend of shape suffixes: B clips, F = 4 frames, H = W = 12 rows and columns, C = 3 channels, L layouts (start, motion, shape, event),
P = F H W pixels of a clip. Pixels are uint8, as they are stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from prefopt.worlds.base import seed_of

COLOURS = {
    "red": (1.0, 0.1, 0.1), "green": (0.1, 1.0, 0.1), "blue": (0.1, 0.1, 1.0),
    "yellow": (1.0, 1.0, 0.1), "magenta": (1.0, 0.1, 1.0), "cyan": (0.1, 1.0, 1.0),
}  # fmt: skip
SHAPES = {
    "square": ("#####", "#####", "#####", "#####", "#####"),
    "plus": ("..#..", "..#..", "#####", "..#..", "..#.."),
    "ring": ("#####", "#...#", "#...#", "#...#", "#####"),
    "cross": ("#...#", ".#.#.", "..#..", ".#.#.", "#...#"),
}
MOTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Rows and columns a frame."""
EVENTS = {"none": None, "early": 0, "late": 2}
"""In which frame the corner flashes: the first one of the first half, of the second half."""

FRAMES = 4
FPS = 2.0
"""Frames a second: a clip is 2 s long."""
SIDE = 12
STARTS = (3, 4)
"""Row and column of an object's corner in the first frame; it never leaves the picture from there."""
FLASH = 3
"""Side of the white corner."""
DARKEST, BRIGHTEST = 0.0, 0.25
"""Of the ground, a random colour: the scene of a clip."""
OBJECTS = tuple(itertools.product(COLOURS, SHAPES))
ANSWERS = tuple(f"{motion} {event}" for motion in MOTIONS for event in EVENTS)
TRIES = 100


class Clip(NamedTuple):
    """What a clip shows: numbers of its object and of the answer to what that does.

    Attributes:
        object: index into `OBJECTS`.
        answer: index into `ANSWERS`.
    """

    object: int
    answer: int

    @property
    def name(self) -> str:
        """Of the object, such as "red square"."""
        return " ".join(OBJECTS[self.object])

    @property
    def said(self) -> str:
        """What the object does, such as "left early"."""
        return ANSWERS[self.answer]

    @property
    def motion(self) -> str:
        """Where the object goes."""
        return self.said.split()[0]

    @property
    def caption(self) -> str:
        """All of it."""
        return f"{self.name} {self.said}"


# -- what is asked and answered ------------------------------------------------------------------------------

DESCRIBE = "describe"


def asked(clip: Clip) -> str:
    """The question about a clip's object.

    >>> asked(Clip(0, 1))
    'ask red square'
    """
    return f"ask {clip.name}"


def asked_order(a: Clip, b: Clip) -> str:
    """The question which of two objects comes first.

    >>> asked_order(Clip(0, 1), Clip(9, 4))
    'first red square or blue plus'
    """
    return f"first {a.name} or {b.name}"


def order_answer(first: Clip) -> str:
    """The object that comes first, and where it goes."""
    return f"{first.name} {first.motion}"


def right_answer(film: Sequence[Clip], question: str) -> str:
    """The answer to a question about a film.

    Args:
        film: its clips in order.
        question: as `asked`, `asked_order` or `DESCRIBE` have it; a description is of the first clip.

    Raises:
        ValueError: another question, or one about what the film does not show.

    Example:
        >>> right_answer([Clip(0, 1), Clip(9, 4)], "ask blue plus")
        'right early'
    """
    words = question.split()
    match words:
        case ["describe"] if film:
            return film[0].caption
        case ["ask", colour, shape]:
            return _shown(film, f"{colour} {shape}").said
        case ["first", a, b, "or", c, d]:
            places = [film.index(_shown(film, name)) for name in (f"{a} {b}", f"{c} {d}")]
            return order_answer(film[min(places)])
    raise ValueError(
        f"no question of the film world: {question!r}; they are 'describe', 'ask COLOUR SHAPE' and "
        "'first COLOUR SHAPE or COLOUR SHAPE'"
    )


def _shown(film: Sequence[Clip], name: str) -> Clip:
    """The first clip of the object."""
    for clip in film:
        if clip.name == name:
            return clip
    raise ValueError(f"the film shows no {name}; it shows: {', '.join(clip.name for clip in film)}")


# -- films ---------------------------------------------------------------------------------------------------


def draw_film(rng: np.random.Generator, n: int) -> list[Clip]:
    """`n` clips of different objects, each doing anything.

    Raises:
        ValueError: more clips than there are objects, or none.
    """
    check_length(n)
    objects = rng.permutation(len(OBJECTS))[:n]
    return [Clip(int(k), int(rng.integers(len(ANSWERS)))) for k in objects]


def check_length(n: int) -> None:
    """Raises ValueError for a number of clips that no film of different objects has."""
    if not 1 <= n <= len(OBJECTS):
        raise ValueError(f"a film has 1 to {len(OBJECTS)} clips, each of another object; given {n}")


# -- pixels --------------------------------------------------------------------------------------------------


@cache
def shapes() -> np.ndarray:
    """(4, 5, 5) bool: the shapes."""
    return np.array([[[pixel == "#" for pixel in row] for row in rows] for rows in SHAPES.values()])


class Layouts(NamedTuple):
    """All that can be where in a clip, whatever its colours.

    Attributes:
        object_LP: pixels of the object, 0 or 1.
        flash_LP: pixels of the flash, 0 or 1.
        shape_L: index of the shape.
        answer_L: index of the answer.
    """

    object_LP: np.ndarray
    flash_LP: np.ndarray
    shape_L: np.ndarray
    answer_L: np.ndarray


@cache
def layouts() -> Layouts:
    """The 192 layouts: 4 shapes, 12 answers, and of each 4 starts."""
    masks, flashes, shown, answers = [], [], [], []
    for shape, answer, top, left in itertools.product(
        range(len(SHAPES)), range(len(ANSWERS)), STARTS, STARTS
    ):
        motion, event = ANSWERS[answer].split()
        down, right = MOTIONS[motion]
        mask, flash = np.zeros((2, FRAMES, SIDE, SIDE), dtype=np.float32)
        for frame in range(FRAMES):
            row, column = top + frame * down, left + frame * right
            mask[frame, row : row + 5, column : column + 5] = shapes()[shape]
        if (lit := EVENTS[event]) is not None:
            flash[lit, :FLASH, :FLASH] = 1
        masks.append(mask.ravel())
        flashes.append(flash.ravel())
        shown.append(shape)
        answers.append(answer)
    return Layouts(np.stack(masks), np.stack(flashes), np.array(shown), np.array(answers))


@cache
def colours() -> np.ndarray:
    """(6, 3) float32: the colours."""
    return np.array(list(COLOURS.values()), dtype=np.float32)


def paint(clips_B2: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """(B, F, H, W, C) uint8 pixels of clips, with random start, ground and noise.

    Args:
        clips_B2: object and answer of each.
        noise: standard deviation of the pixels' white noise, where white is 1.
        rng: of all that is random.
    """
    of = layouts()
    colour_B, shape_B = np.divmod(clips_B2[:, 0], len(SHAPES))
    starts = len(STARTS) ** 2
    layout_B = (shape_B * len(ANSWERS) + clips_B2[:, 1]) * starts + rng.integers(starts, size=len(clips_B2))
    object_BP1, flash_BP1 = of.object_LP[layout_B][..., None], of.flash_LP[layout_B][..., None]
    ground_B1C = rng.uniform(DARKEST, BRIGHTEST, (len(clips_B2), 1, 3)).astype(np.float32)
    shown_BPC = ground_B1C + object_BP1 * (colours()[colour_B][:, None] - ground_B1C)
    shown_BPC += flash_BP1 * (1 - ground_B1C)
    shown_BPC += noise * rng.standard_normal(shown_BPC.shape, dtype=np.float32)
    levels = (shown_BPC.clip(0, 1) * 255).round().astype(np.uint8)
    return levels.reshape(-1, FRAMES, SIDE, SIDE, 3)


def read(pixels_BFHWC: np.ndarray) -> list[Clip]:
    """What clips show: of all layouts and colours the one that leaves the least unexplained, whatever the ground.

    Raises:
        ValueError: pixels that are no clips of this world.
    """
    check_shape(pixels_BFHWC.shape[1:])
    of = layouts()
    x_BPC = pixels_BFHWC.reshape(len(pixels_BFHWC), -1, 3).astype(np.float32) / 255
    ground_LP = 1 - of.object_LP - of.flash_LP
    object_BLC, flash_BLC, ground_BLC = (
        np.einsum("lp,bpc->blc", mask, x_BPC, optimize=True)
        for mask in (of.object_LP, of.flash_LP, ground_LP)
    )
    # sums of squares, less what all layouts have in common: the pixels' own squares
    flash_BL = of.flash_LP.sum(1) * 3 - 2 * flash_BLC.sum(2)
    ground_BL = -(ground_BLC**2).sum(2) / ground_LP.sum(1)
    object_BLK = of.object_LP.sum(1)[:, None] * (colours() ** 2).sum(1) - 2 * object_BLC @ colours().T
    left_over = (object_BLK + (flash_BL + ground_BL)[..., None]).reshape(len(x_BPC), -1)
    layout_B, colour_B = np.divmod(left_over.argmin(1), len(COLOURS))
    return [
        Clip(int(colour * len(SHAPES) + of.shape_L[k]), int(of.answer_L[k]))
        for k, colour in zip(layout_B, colour_B, strict=True)
    ]


def check_shape(shape: Sequence[int]) -> None:
    """Raises ValueError for pixels that are no clip of this world."""
    if tuple(shape) != (FRAMES, SIDE, SIDE, 3):
        raise ValueError(
            f"a clip of the film world is {(FRAMES, SIDE, SIDE, 3)} (frames, rows, columns, channels); given {tuple(shape)}"
        )


def render(clips: Sequence[Clip], noise: float, stream: str) -> np.ndarray:
    """(B, F, H, W, C) uint8 pixels of clips, each drawn again until `read` reads it rightly.

    Args:
        clips: what to show.
        noise: see `paint`.
        stream: clip k depends on (`stream`, k), what it shows and the noise alone.

    Raises:
        ValueError: noise so strong that hardly a clip can be read.
    """
    key = seed_of(stream)
    rngs = [np.random.default_rng([key, k]) for k in range(len(clips))]
    pixels = np.zeros((len(clips), FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    wrong = list(range(len(clips)))
    for _ in range(TRIES):
        for k in wrong:
            pixels[k] = paint(np.array([clips[k]]), noise, rngs[k])[0]
        wrong = [k for k, seen in zip(wrong, read(pixels[wrong]), strict=True) if seen != clips[k]]
        if not wrong:
            return pixels
    raise ValueError(
        f"{len(wrong)} of {len(clips)} clips could not be read in {TRIES} tries with noise={noise}; lower it"
    )
