"""One clip among others: where it stands, and which frames are then its own.

A slot is the number of distractors before the anchor, so k distractors leave slots 0 to k.

Source: LongVPO (arXiv 2602.02341), stage 1.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from typing import NamedTuple, TypeVar

Clip = TypeVar("Clip", bound=Hashable)


def interleaved(anchor: Clip, distractors: Sequence[Clip], slot: int) -> list[Clip]:
    """The clips of a pseudo-long video, in order.

    Args:
        anchor: the clip that the question is about; told apart by equality.
        distractors: the others, in their order.
        slot: how many of them come before the anchor.

    Raises:
        ValueError: no such slot, or the anchor is among the distractors.

    Example:
        >>> interleaved("A", ["b", "c"], 1)
        ['b', 'A', 'c']
    """
    if not 0 <= slot <= len(distractors):
        raise ValueError(
            f"slot {slot} with {len(distractors)} distractors: a slot is the number of distractors before the anchor, "
            f"in [0, {len(distractors)}]"
        )
    if anchor in distractors:
        raise ValueError(
            f"the anchor {anchor} is among the distractors too: the question would have its answer at two places"
        )
    return [*distractors[:slot], anchor, *distractors[slot:]]


class Spans(NamedTuple):
    """Frames of each clip within a pseudo-long video."""

    spans: list[tuple[int, int]]
    """First frame and the one behind the last of each clip, in the order of the clips."""
    anchor: tuple[int, int]
    """Of the anchor."""
    total: int
    """Frames of them all."""

    @property
    def relative_center(self) -> float:
        """Middle of the anchor, as a share of the whole in (0, 1)."""
        return (self.anchor[0] + self.anchor[1]) / 2 / self.total


def spans_of(frames: Sequence[int], anchor: int) -> Spans:
    """Half-open ranges of frames of clips that stand one behind the other.

    Args:
        frames: of each clip, in order.
        anchor: place of the anchor among them.

    Raises:
        ValueError: a clip without frames, or no such place.

    Example:
        >>> spans_of([4, 1, 4], 1).anchor
        (4, 5)
    """
    if not 0 <= anchor < len(frames):
        raise ValueError(f"the anchor is clip {anchor} of {len(frames)}: needed 0 to {len(frames) - 1}")
    if (least := min(frames)) < 1:
        raise ValueError(
            f"clip {list(frames).index(least)} has {least} frames: needed one at least of each clip"
        )
    spans, start = [], 0
    for count in frames:
        spans.append((start, start + count))
        start += count
    return Spans(spans, spans[anchor], start)


def stratified_slots(ids: Sequence[str], slots: int, seed: int, epoch: int = 0) -> dict[str, int]:
    """A slot for each of N examples, such that each slot is used floor or ceil of N / slots times.

    Args:
        ids: of the examples; their order does not matter.
        slots: how many there are: one more than distractors.
        seed: of the draw.
        epoch: another one is another draw.

    Raises:
        ValueError: fewer than one slot, or an id used twice.

    Example:
        >>> sorted(stratified_slots(["a", "b", "c", "d"], 2, seed=0).values())
        [0, 0, 1, 1]
    """
    if slots < 1:
        raise ValueError(f"slots is {slots}: needed at least 1, which is the anchor alone")
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if list(ids).count(name) > 1)
        raise ValueError(
            f"the id {twice!r} stands there twice: slots are drawn by id, so give each example its own"
        )
    order = list(range(slots))  # whose first ones are used once more where N / slots is no whole number
    random.Random(f"{seed}/{epoch}/slots").shuffle(order)
    drawn = sorted(ids, key=lambda name: (_draw(seed, epoch, name), name))
    return {name: order[n % slots] for n, name in enumerate(drawn)}


def _draw(seed: int, epoch: int, name: str) -> bytes:
    return blake2b(f"{seed}/{epoch}/{name}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
