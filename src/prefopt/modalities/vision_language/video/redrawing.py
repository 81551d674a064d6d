"""A pseudo-long video put together anew each epoch: other distractors, another order, another slot for its anchor.

A reference that sees the anchor alone knows nothing of it, so its scores stay as they are. The distractor that gave the
rejected answer stays in the video, or that answer would be no plausible error. All that is drawn follows from the seed, the
example's id and the epoch.

Source: LongVPO (arXiv 2602.02341), stage 1.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.video.interleaving import interleaved, stratified_slots
from prefopt.modalities.vision_language.video.videos import Video, thinned
from prefopt.sources.videos import ClipRef


@dataclass(frozen=True)
class Redraw:
    """What a video is drawn from.

    Attributes:
        anchor: the clip that holds the answer.
        pinned: distractors that stay.
        pool: clips of which the others are drawn.
        distractors: how many there are.
    """

    anchor: ClipRef
    pinned: tuple[ClipRef, ...]
    pool: tuple[ClipRef, ...]
    distractors: int

    def __post_init__(self) -> None:
        if self.anchor in (*self.pinned, *self.pool):
            raise UnusableItem("the anchor is among the distractors, too", "anchor")
        if len(self.pinned) + len(self.pool) < self.distractors:
            raise UnusableItem(
                f"{len(self.pinned)} + {len(self.pool)} clips for {self.distractors} distractors: needed as many",
                "anchor",
            )

    @property
    def clips(self) -> tuple[ClipRef, ...]:
        """All that may be shown."""
        return (self.anchor, *self.pinned, *self.pool)

    def __str__(self) -> str:
        return self.anchor.digest  # conditions are told apart by what they show; a pool is not shown

    def video(self, slot: int, name: str) -> Video:
        """The anchor behind so many distractors, drawn by a name."""
        drawing = random.Random(name)
        others = [*self.pinned, *drawing.sample(self.pool, self.distractors - len(self.pinned))]
        drawing.shuffle(others)
        return Video(tuple(interleaved(self.anchor, others, slot)))

    def thinned(self, most: int) -> Redraw:
        """The same with at most so many frames of each clip."""
        pinned, pool = (tuple(thinned(clip, most) for clip in clips) for clips in (self.pinned, self.pool))
        return Redraw(thinned(self.anchor, most), pinned, pool, self.distractors)


class Redrawing:
    """Slots of a run's examples: in each epoch every slot is used as often as any other.

    Args:
        seed: of the run.
        slots: number of slots by the id of each example that is drawn anew.
    """

    def __init__(self, seed: int, slots: Mapping[str, int]) -> None:
        self.seed = seed
        self._ids: dict[int, list[str]] = defaultdict(list)
        self._slots = dict(slots)
        for name, count in slots.items():
            self._ids[count].append(name)
        self._of_epoch = lru_cache(2)(self._drawn)

    def _drawn(self, epoch: int) -> dict[str, int]:
        found: dict[str, int] = {}
        for count, names in self._ids.items():
            found |= stratified_slots(names, count, self.seed, epoch)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def video(self, redraw: Redraw, name: str, epoch: int) -> Video:
        """The video of an example in an epoch."""
        return redraw.video(self._of_epoch(epoch)[name], f"{self.seed}/{epoch}/{name}")
