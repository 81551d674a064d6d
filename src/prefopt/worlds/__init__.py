"""Worlds: generated tasks with an exact verifier, and small models pretrained on them on the spot, without a network.

>>> from prefopt.worlds import get_world
>>> world = get_world("text", seed=0)
>>> world.verify("Sort: pear fig apple", "apple fig pear")
1.0
"""

from __future__ import annotations

import difflib
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, overload

from prefopt.worlds.text import Candidates, Estimate, TextWorld

if TYPE_CHECKING:
    from prefopt.worlds.picture import PictureWorld

__all__ = ["Candidates", "Estimate", "TextWorld", "get_world"]

WORLD_PREFIX = "world:"
WORLDS = {"text": "prefopt.worlds.text:TextWorld", "picture": "prefopt.worlds.picture:PictureWorld"}
"""Where each world's class is; imported on use, because pictures need torch."""

WORLD_PROMPTS = {"text": {"train": 400, "test": 100}, "picture": {"train": 2000, "test": 400}}


@overload
def get_world(name: Literal["text"], seed: int = 0, **settings: Any) -> TextWorld: ...
@overload
def get_world(name: Literal["picture"], seed: int = 0, **settings: Any) -> PictureWorld: ...
@overload
def get_world(name: str, seed: int = 0, **settings: Any) -> Any: ...
def get_world(name: str, seed: int = 0, **settings: Any) -> Any:
    """A world by name.

    Args:
        name: "text" or "picture".
        seed: of its model and everything drawn in it.
        settings: fields of the world's class, such as `pretrain_steps=200` (see `TextWorld`, `PictureWorld`).

    Raises:
        ValueError: unknown world.
        TypeError: unknown setting.
    """
    if name not in WORLDS:
        raise ValueError(f"no world is called {name!r}; there are: {', '.join(WORLDS)}")
    module, _, class_name = WORLDS[name].partition(":")
    world = getattr(import_module(module), class_name)
    known = [f.name for f in fields(world)]
    for setting in settings:
        if setting not in known:
            near = difflib.get_close_matches(setting, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise TypeError(f"the {name} world has no setting {setting!r}{hint} It has: {', '.join(known)}")
    return world(seed=seed, **settings)


def world_of(source: str) -> Any:
    """The world that a `world:NAME` source names, None for anything else."""
    return get_world(source.removeprefix(WORLD_PREFIX)) if source.startswith(WORLD_PREFIX) else None


def world_modality(source: str) -> str | None:
    """The modality of the model of a `world:NAME` source, None for anything else."""
    if not source.startswith(WORLD_PREFIX):
        return None
    return "image" if source.removeprefix(WORLD_PREFIX) == "picture" else "text"


def world_prompts(source: str, split: str) -> int:
    """How many prompts of a world make up a split."""
    return WORLD_PROMPTS[source.removeprefix(WORLD_PREFIX)]["test" if split == "test" else "train"]
