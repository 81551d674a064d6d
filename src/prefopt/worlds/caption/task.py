"""The scenes of the caption world: what they show, their captions and companions, edits and pictures, which can be read exactly.

A scene is a tuple of 9 cells in raster order, each the class of its object, or `EMPTY`. A class is a colour and a shape.

Legend of shape suffixes: B pictures, K = 13 classes with the empty one, S = 9 cells, P = 108 numbers a cell, C = 3 channels,
H = W = 18 rows and columns. Pictures are float32 in [0, 1] at 8 bits a channel, as they are stored.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefopt.sources.pictures import ImageRef
from prefopt.worlds.base import Split, seed_of
from prefopt.worlds.pixels import as_png

COLOURS = {
    "red": (1.0, 0.1, 0.1), "green": (0.1, 0.9, 0.1), "blue": (0.15, 0.2, 1.0), "yellow": (0.95, 0.9, 0.1),
}  # fmt: skip
SHAPES = {
    "square": ("####", "####", "####", "####"),
    "plus": (".##.", "####", "####", ".##."),
    "triangle": (".##.", ".##.", "####", "####"),
}
CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""Names of the classes, by number."""

EMPTY = -1
GRID = 3
CELL = 6
"""Side of a cell in pixels; a vision tower with patches of this side sees one cell a patch."""
SIDE = GRID * CELL
GROUND = 0.5
FEWEST, MOST = 2, 4
"""Objects of a scene that is drawn; an edit may have one less or one more."""
ADDED, REMOVED = 0.4, 0.2
"""Shares of the edits that add an absent companion, and that remove an object; the others replace one."""

TRIES = 1000
"""Times that a picture is drawn until it can be read."""

Scene = tuple[int, ...]

_MENTION = re.compile(rf"\b({'|'.join(COLOURS)})\s+({'|'.join(SHAPES)})\b", re.IGNORECASE)


# -- classes and captions ------------------------------------------------------------------------------------


def companion(object_: int) -> int:
    """The class that the language prior expects beside a class.

    >>> CLASSES[companion(0)]
    'red plus'
    """
    return (5 * object_ + 1) % len(CLASSES)


def objects_of(scene: Scene) -> tuple[int, ...]:
    """The classes that a scene shows, in raster order."""
    return tuple(cell for cell in scene if cell != EMPTY)


def caption_of(objects: Sequence[int]) -> str:
    """The caption that names classes in this order.

    >>> caption_of((0, 7))
    'red square, blue plus'
    """
    return ", ".join(CLASSES[k] for k in objects)


class Mention(NamedTuple):
    """An object that a caption names: its class, and where its words begin and end."""

    object: int
    start: int
    end: int


def mentions_of(caption: str) -> list[Mention]:
    """All that a caption names, in its order; words that are no colour with its shape name nothing.

    >>> mentions_of("red square, blue, red plus")
    [Mention(object=0, start=0, end=10), Mention(object=1, start=18, end=26)]
    """
    return [
        Mention(
            CLASSES.index(" ".join(found.group(1, 2)).lower()),
            found.start(),
            found.end(),
        )
        for found in _MENTION.finditer(caption)
    ]


def unused(objects: Sequence[int]) -> list[int]:
    """The classes that are not among the objects."""
    return [k for k in range(len(CLASSES)) if k not in objects]


def absent_companions(objects: Sequence[int]) -> list[int]:
    """Places in `objects` whose class has a companion that is not among them."""
    return [place for place, k in enumerate(objects) if companion(k) not in objects]


def with_companion(objects: Sequence[int]) -> tuple[int, ...]:
    """The objects, behind the first whose companion is absent that companion; the same where no companion is absent.

    The first and not a random one: its companion is then almost as likely as what follows, so that a model that learned
    captions like this one names it now and then even when it takes the likeliest word.

    >>> with_companion((0, 7))
    (0, 1, 7)
    """
    places = absent_companions(objects)[:1]
    return tuple(
        k for place, one in enumerate(objects) for k in ((one, companion(one)) if place in places else (one,))
    )


# -- scenes --------------------------------------------------------------------------------------------------


def split_of(scene: Scene) -> Split:
    """Where a scene belongs; about one in four is "test"."""
    return "test" if zlib.crc32(bytes(cell + 1 for cell in scene)) % 4 == 3 else "train"


def draw_scene(rng: np.random.Generator, split: Split) -> Scene:
    """2 to 4 objects of distinct classes in random cells."""
    while True:
        n = int(rng.integers(FEWEST, MOST + 1))
        cells = [EMPTY] * GRID**2
        classes = rng.choice(len(CLASSES), n, replace=False)
        for cell, k in zip(rng.choice(len(cells), n, replace=False), classes, strict=True):
            cells[cell] = int(k)
        if split_of(tuple(cells)) == split:
            return tuple(cells)


def edit(scene: Scene, rng: np.random.Generator) -> Scene:
    """A scene of the same split that differs in one object.

    40 % of the edits add an absent companion in a free cell and 20 % remove an object; the others, and those that find no
    companion absent, put an unused class in the place of an object.
    """
    split = split_of(scene)
    while True:
        edited = _edited(scene, rng)
        if split_of(edited) == split:
            return edited


def _edited(scene: Scene, rng: np.random.Generator) -> Scene:
    objects, cells, chance = objects_of(scene), list(scene), rng.random()
    taken = [place for place, cell in enumerate(cells) if cell != EMPTY]
    absent = [companion(objects[place]) for place in absent_companions(objects)]
    if chance < ADDED and absent:
        free = [place for place, cell in enumerate(cells) if cell == EMPTY]
        cells[rng.choice(free)] = int(rng.choice(absent))
    elif ADDED <= chance < ADDED + REMOVED:
        cells[rng.choice(taken)] = EMPTY
    else:
        cells[rng.choice(taken)] = int(rng.choice(unused(objects)))
    return tuple(cells)


# -- pictures ------------------------------------------------------------------------------------------------


@cache
def bitmaps() -> Tensor:
    """(3, 6, 6) bool: the shapes, each in a cell.

    Raises:
        ValueError: two shapes look alike, which no model could tell apart.
    """
    drawn = torch.zeros(len(SHAPES), CELL, CELL, dtype=torch.bool)
    for k, rows in enumerate(SHAPES.values()):
        drawn[k, 1:-1, 1:-1] = torch.tensor([[pixel == "#" for pixel in row] for row in rows])
    for a, b in itertools.combinations(range(len(SHAPES)), 2):
        if torch.equal(drawn[a], drawn[b]):
            names = list(SHAPES)
            raise ValueError(
                f"{names[a]} and {names[b]} are the same bitmap; shapes must differ in some pixel"
            )
    return drawn


@cache
def templates() -> Tensor:
    """(K, 3, 6, 6) cells without noise: one a class, and last the empty one, so that `EMPTY` finds it."""
    colours = torch.tensor(list(COLOURS.values()))
    shown = bitmaps()[None, :, None]  # every colour in every shape
    cells = torch.where(shown, colours[:, None, :, None, None], torch.tensor(GROUND)).flatten(0, 1)
    return torch.cat((cells, torch.full((1, 3, CELL, CELL), GROUND)))


def clean(scenes: Sequence[Scene]) -> Tensor:
    """(B, 3, 18, 18) pictures without noise."""
    cells_BS = torch.tensor(scenes).reshape(-1, GRID**2)
    tiles = templates()[cells_BS].unflatten(1, (GRID, GRID))  # B, row, column, C, y, x
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIDE, SIDE)


def read(images_BCHW: Tensor) -> list[Scene]:
    """The scenes that pictures show: in each cell the nearest template."""
    tiles = images_BCHW.unflatten(2, (GRID, CELL)).unflatten(4, (GRID, CELL))  # B, C, row, y, column, x
    tiles_BSP = tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, GRID**2, 3 * CELL * CELL)
    known_KP = templates().flatten(1).to(images_BCHW)
    distance_BSK = known_KP.square().sum(1) - 2 * tiles_BSP @ known_KP.T
    nearest_BS = distance_BSK.argmin(2)
    nearest_BS[nearest_BS == len(CLASSES)] = EMPTY
    return [tuple(scene) for scene in nearest_BS.tolist()]


def render(scenes: Sequence[Scene], noise: float, rngs: Sequence[np.random.Generator]) -> Tensor:
    """(B, 3, 18, 18) pictures with white noise, each drawn again until `read` reads its scene in it.

    So a picture's scene is known from its pixels without a mistake, however much noise there is, and no table of pictures
    need be kept.

    Args:
        scenes: what to show.
        noise: its standard deviation, where white is 1.
        rngs: one a scene.

    Raises:
        ValueError: noise so strong that hardly a picture can be read.
    """
    images_BCHW = clean(scenes)
    wrong = list(range(len(scenes)))
    for _ in range(TRIES):
        drawn = np.stack([rngs[k].standard_normal((3, SIDE, SIDE), dtype=np.float32) for k in wrong])
        noisy = clean([scenes[k] for k in wrong]) + noise * torch.from_numpy(drawn)
        images_BCHW[wrong] = noisy.clamp(0, 1).mul(255).round() / 255
        seen = read(images_BCHW[wrong])
        wrong = [k for k, scene in zip(wrong, seen, strict=True) if scene != scenes[k]]
        if not wrong:
            return images_BCHW
    raise ValueError(
        f"{len(wrong)} of {len(scenes)} pictures could not be read in {TRIES} tries with noise={noise}; lower it"
    )


class Scenes(NamedTuple):
    """Scenes and their pictures.

    Attributes:
        scenes: what is where.
        images_BCHW: pictures of them.
    """

    scenes: list[Scene]
    images_BCHW: Tensor

    @property
    def captions(self) -> list[str]:
        """The exact captions."""
        return [caption_of(objects_of(scene)) for scene in self.scenes]

    def image(self, k: int) -> ImageRef:
        """Picture k as rows hold it."""
        return ImageRef(as_png(self.images_BCHW[k])["bytes"])


def draw(n: int, stream: str, split: Split, noise: float) -> Scenes:
    """`n` scenes with pictures; scene k depends on (`stream`, k), the split and the noise alone."""
    rngs = _rngs(n, stream)
    scenes = [draw_scene(rng, split) for rng in rngs]
    return Scenes(scenes, render(scenes, noise, rngs))


def edits(scenes: Sequence[Scene], stream: str, noise: float) -> Scenes:
    """One edit of each scene, with its own noise; edit k depends on (`stream`, k), its scene and the noise alone."""
    rngs = _rngs(len(scenes), stream)
    edited = [edit(scene, rng) for scene, rng in zip(scenes, rngs, strict=True)]
    return Scenes(edited, render(edited, noise, rngs))


def _rngs(n: int, stream: str) -> list[np.random.Generator]:
    key = seed_of(stream)
    return [np.random.default_rng([key, k]) for k in range(n)]
