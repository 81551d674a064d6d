"""What a frame of a motion is for a model: features, made of positions of joints and turned back into them."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from torch import Tensor

from prefopt.motion.skeleton import Skeleton

CODECS = {
    "humanml3d": "prefopt.motion.humanml3d",
    "kit": "prefopt.motion.humanml3d",
    "stick": "prefopt.motion.stick",
}
"""Module of each codec, by its name, where it is a constant named like it, in capitals."""


class Codec(Protocol):
    """Features of one kind of motion data. Legend: F frames, J joints, D features; leading batch axes are kept.

    Attributes:
        name: as models and files of statistics name it.
        skeleton: whose joints.
        width: D.
        fps: frames a second of the data that it was made for.
    """

    name: str
    skeleton: Skeleton
    width: int
    fps: float

    def positions(self, features_FD: Tensor) -> Tensor:
        """(F, J, 3) positions in metres, y upwards, of features in physical units."""
        ...

    def features(self, positions_FJ3: Tensor) -> Tensor:
        """(F', D) features of positions in metres, y upwards; codecs of velocities give one frame less than they get."""
        ...


def find_codec(name: str) -> Codec:
    """The codec of this name.

    Raises:
        ValueError: there is none; names those there are.

    Example:
        >>> find_codec("humanml3d").width
        263
    """
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}; known: {', '.join(map(repr, CODECS))}")
    return cast(Codec, getattr(importlib.import_module(CODECS[name]), name.upper()))
