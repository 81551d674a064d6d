"""What processors made of pictures and clips, the last few of it in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from torch import Tensor

KEPT_BYTES = 2**29
"""Processed pictures, or clips, that stay in memory."""
AROUND = ("<|vision_start|>", "<|vision_end|>")
"""What Qwen's templates write around an image or video, without which two neighbours cannot be told apart."""

UnitT = TypeVar("UnitT")


class Kept(Generic[UnitT]):
    """The units that were asked for last, up to a number of bytes; one at least."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self.most = most
        self._units: OrderedDict[str, tuple[UnitT, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: str) -> UnitT | None:
        """The unit, if it is still here."""
        if key not in self._units:
            return None
        self._units.move_to_end(key)
        return self._units[key][0]

    def put(self, key: str, unit: UnitT, tensors: Mapping[str, Tensor]) -> UnitT:
        """Keep a unit that holds these tensors, and let go of the oldest."""
        size = sum(map(nbytes, tensors.values()))
        self._units[key] = unit, size
        self._bytes += size
        while self._bytes > self.most and len(self._units) > 1:
            _, (_, gone) = self._units.popitem(last=False)
            self._bytes -= gone
        return unit


def name_of(unit: Sequence[Any]) -> str:
    """What tells units apart, of pictures or of clips."""
    return "+".join(one.digest for one in unit)


def nbytes(value: Tensor) -> int:
    """Bytes of a tensor."""
    return value.numel() * value.element_size()


def told_settings(settings: Mapping[str, Any]) -> str:
    """Digest of a processor's settings."""
    told = repr(sorted((name, str(value)) for name, value in settings.items()))
    return blake2b(told.encode(), digest_size=8).hexdigest()
