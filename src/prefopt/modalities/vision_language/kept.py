"""What processors made of pictures and clips, the last few of it in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

KEPT_BYTES = 2**29
"""Processed pictures, or clips, that stay in memory."""
AROUND = ("<|vision_start|>", "<|vision_end|>")
"""What Qwen's templates write around an image or video, without which two neighbours cannot be told apart."""

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass(frozen=True)
class Processed:
    """One unit.

    Attributes:
        text: what the placeholder in a text becomes, or all of them.
        tokens: how many of the token that stands for features.
        tensors: by the processor's names, for a batch of this unit alone.
    """

    text: str
    tokens: int
    tensors: Mapping[str, Tensor]


class Kept(Generic[KeyT]):
    """The units that were asked for last, up to a number of bytes; one at least."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self.most = most
        self._units: OrderedDict[KeyT, Processed] = OrderedDict()
        self._bytes = 0

    def get(self, key: KeyT) -> Processed | None:
        """The unit, if it is still here."""
        if key in self._units:
            self._units.move_to_end(key)
        return self._units.get(key)

    def put(self, key: KeyT, unit: Processed) -> Processed:
        """Keep it, and let go of the oldest."""
        self._units[key] = unit
        self._bytes += sum(map(nbytes, unit.tensors.values()))
        while self._bytes > self.most and len(self._units) > 1:
            _, gone = self._units.popitem(last=False)
            self._bytes -= sum(map(nbytes, gone.tensors.values()))
        return unit


def nbytes(value: Tensor) -> int:
    """Bytes of a tensor."""
    return value.numel() * value.element_size()
