"""What a frame of a motion is for a model: features, made of positions of joints and turned back into them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from prefopt.motion.skeleton import Skeleton


class Codec(Protocol):
    """Features of one kind of motion data. Legend: F frames, J joints, D features; a leading batch axis is kept.

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
