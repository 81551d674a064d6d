"""What a batch shows a model, each picture and each clip once: its tensors in chunks, and where it goes in the rows.

Legend: S tokens of all distinct units, F layers of features, D hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from prefopt.modalities.vision_language.images import merged_of
from prefopt.modalities.vision_language.kept import nbytes

CHUNK_BYTES = 2**26
"""Tensors of clips that a tower is given at once; those of pictures are given together."""


@dataclass(frozen=True)
class Stream:
    """Units of one kind.

    Attributes:
        chunks: tensors by the model's names, in the order of the units.
        tokens_of: tokens of each unit.
        order: which unit each of those in the rows is, row by row.
        features_FSD: in place of chunks: features from disk.
        form: sides behind the first in which the model wants these; None: a list.
    """

    chunks: tuple[Mapping[str, Tensor], ...] = ()
    tokens_of: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    features_FSD: Tensor | None = None
    form: tuple[int, ...] | None = None

    def __bool__(self) -> bool:
        return bool(self.tokens_of)

    def to(self, device: torch.device, non_blocking: bool = True) -> Self:
        """The same on another device."""
        features_FSD = self.features_FSD
        return replace(
            self,
            chunks=tuple(
                {name: value.to(device, non_blocking=non_blocking) for name, value in chunk.items()}
                for chunk in self.chunks
            ),
            features_FSD=None if features_FSD is None else features_FSD.to(device, non_blocking=non_blocking),
        )


class Streams(dict[str, Stream]):
    """Streams by what the model takes them for, image or video; only those that show something."""

    def to(self, device: torch.device, non_blocking: bool = True) -> Streams:
        """The same on another device."""
        return Streams({kind: stream.to(device, non_blocking) for kind, stream in self.items()})


def in_chunks(units: Sequence[Mapping[str, Tensor]], most: int | None) -> tuple[Mapping[str, Tensor], ...]:
    """Tensors of units put together, so many bytes at once.

    Args:
        units: one behind the other.
        most: bytes of a chunk; None: all together. Units whose sides differ begin a chunk of their own then.
    """
    if most is None:
        return (merged_of(units),) if units else ()
    groups: list[list[Mapping[str, Tensor]]] = []
    held = 0
    for unit in units:
        size = sum(map(nbytes, unit.values()))
        if not groups or held + size > most or sides(unit) != sides(groups[-1][-1]):
            groups.append([])
            held = 0
        groups[-1].append(unit)
        held += size
    return tuple(merged_of(group) for group in groups)


def sides(unit: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Sides of its tensors behind the first."""
    return {name: value.shape[1:] for name, value in unit.items()}
