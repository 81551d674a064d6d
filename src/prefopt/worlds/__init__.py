"""Worlds: generated tasks with an exact verifier, and small models pretrained on them on the spot, without a network.

>>> from prefopt.worlds import get_world
>>> world = get_world("text", seed=0)
>>> world.verify("Sort: pear fig apple", "apple fig pear")
1.0

A folder each, found by being there. Its `__init__.py` says what it is (`WORLD`), its `world.py` holds a class that offers

    prompts(n, split)                          prompts of a split; the first k of them are `prompts(k, split)`
    verify(prompt, sample)                     the exact score
    comparisons(n, split, label_noise, seed)   preference rows
    model_dir(progress)                        folder of its pretrained model, made on first use

which is all that a run with `data=world:NAME` and `model=world:NAME` asks for. Importing this is cheap (no torch).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, overload

from prefopt.worlds.base import Estimate, World

if TYPE_CHECKING:
    from prefopt.worlds.caption.world import CaptionWorld
    from prefopt.worlds.film.world import FilmWorld
    from prefopt.worlds.motion.world import MotionWorld
    from prefopt.worlds.picture.world import PictureWorld
    from prefopt.worlds.scene.world import SceneWorld
    from prefopt.worlds.text.world import TextWorld

__all__ = [
    "WORLD_PREFIX",
    "Estimate",
    "World",
    "all_worlds",
    "find",
    "get_world",
    "world_modality",
    "world_of",
    "world_prompts",
]

WORLD_PREFIX = "world:"
"""How a source of data or of a model names a world: world:text."""


@cache
def all_worlds() -> dict[str, World]:
    """What each world says of itself, by name, in alphabetical order."""
    found = {
        module.name: importlib.import_module(f"{__name__}.{module.name}").WORLD
        for module in pkgutil.iter_modules(__path__)
        if module.ispkg
    }
    return dict(sorted(found.items()))


def find(name: str) -> World:
    """What the world of that name says of itself.

    Raises:
        ValueError: unknown world.
    """
    worlds = all_worlds()
    if name not in worlds:
        raise ValueError(f"no world is called {name!r}; there are: {', '.join(worlds)}")
    return worlds[name]


# what a type checker knows of worlds by name; any other is as good, and Any
@overload
def get_world(name: Literal["text"], seed: int = 0, **settings: Any) -> TextWorld: ...
@overload
def get_world(name: Literal["picture"], seed: int = 0, **settings: Any) -> PictureWorld: ...
@overload
def get_world(name: Literal["scene"], seed: int = 0, **settings: Any) -> SceneWorld: ...
@overload
def get_world(name: Literal["caption"], seed: int = 0, **settings: Any) -> CaptionWorld: ...
@overload
def get_world(name: Literal["film"], seed: int = 0, **settings: Any) -> FilmWorld: ...
@overload
def get_world(name: Literal["motion"], seed: int = 0, **settings: Any) -> MotionWorld: ...
@overload
def get_world(name: str, seed: int = 0, **settings: Any) -> Any: ...
def get_world(name: str, seed: int = 0, **settings: Any) -> Any:
    """A world by name.

    Args:
        name: "text", "picture", "scene", "caption", "film", "motion", or another of `all_worlds`.
        seed: of its model and everything drawn in it.
        settings: fields of the world's class, such as `pretrain_steps=200` (see `TextWorld`, `PictureWorld`,
            `SceneWorld`, `CaptionWorld`, `FilmWorld`, `MotionWorld`).

    Raises:
        ValueError: unknown world.
        TypeError: unknown setting.
    """
    class_name = find(name).class_name
    world = getattr(importlib.import_module(f"{__name__}.{name}.world"), class_name)
    known = [f.name for f in fields(world)]
    for setting in settings:
        if setting not in known:
            near = difflib.get_close_matches(setting, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"the {name} world has no setting {setting!r}{hint} It has: {', '.join(known)}")
    return world(seed=seed, **settings)


# -- sources that name a world -------------------------------------------------------------------------------


def world_of(source: str) -> Any:
    """The world that a `world:NAME` source names, None for anything else.

    Raises:
        ValueError: unknown world.
    """
    return get_world(source.removeprefix(WORLD_PREFIX)) if source.startswith(WORLD_PREFIX) else None


def world_prompts(source: str, split: str) -> int:
    """How many prompts of the world that a `world:NAME` source names make up a split; any but "test" is "train"."""
    return find(source.removeprefix(WORLD_PREFIX)).prompts["test" if split == "test" else "train"]


def world_modality(source: str) -> str | None:
    """The modality of the model of the world that a `world:NAME` source names, None for anything else.

    Raises:
        ValueError: unknown world.
    """
    return find(source.removeprefix(WORLD_PREFIX)).modality if source.startswith(WORLD_PREFIX) else None
