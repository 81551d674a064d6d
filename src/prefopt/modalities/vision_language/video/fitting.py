"""Room for a row: a video that is too long is shown in fewer frames, never cut, since its end may hold what matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from prefopt.comparisons import Example, Item
from prefopt.modalities.vision_language.video.redrawing import Redraw
from prefopt.modalities.vision_language.video.videos import Video


def with_room(example: Example, most: int | None, length: Callable[[Item], int]) -> Example:
    """The example, with as many frames of each clip as leave room for all its tokens.

    All its items, the reference's conditions, and clips that may be drawn later get the same: what is compared must not
    differ in what it was shown.

    Args:
        example: any.
        most: tokens of a prompt and completion; None: no limit.
        length: counts them.

    Returns:
        The same object where there is room, or where no number of frames would make any.
    """
    frames = max((len(clip.frames or ()) for clip in clips_of(example)), default=0)
    if most is None or not frames:
        return example

    def longest(candidate: Example) -> int:
        return max(length(widest(item)) for item in candidate.items)

    if longest(example) <= most:
        return example
    low, high = 0, frames  # the first has room, as far as is known; the second has not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if longest(thinned(example, middle)) <= most else (low, middle)
    return thinned(example, low) if low else example


def clips_of(example: Example) -> Iterator[Any]:
    """Clips of all its items' videos."""
    for item in example.items:
        for medium in item.condition.get("pictures") or ():
            if isinstance(medium, Video):
                yield from medium.clips


def widest(item: Item) -> Item:
    """An item with the longest video that may be drawn for it."""
    redraw: Redraw | None = item.condition.get("redraw")
    if redraw is None:
        return item
    pool = sorted(redraw.pool, key=lambda clip: -len(clip.frames or ()))
    others = (*redraw.pinned, *pool[: redraw.distractors - len(redraw.pinned)])
    return Item({**item.condition, "pictures": (Video((redraw.anchor, *others)),)}, item.sample)


def thinned(example: Example, most: int) -> Example:
    """An example with at most so many frames of each clip, wherever it stands."""

    def condition(given: Mapping[str, Any]) -> dict[str, Any]:
        shown = tuple(
            medium.thinned(most) if isinstance(medium, Video) else medium
            for medium in given.get("pictures") or ()
        )
        out = {**given, "pictures": shown}
        if "redraw" in given:
            out["redraw"] = given["redraw"].thinned(most)
        return out

    items = tuple(
        Item(
            condition(item.condition),
            item.sample,
            None if item.reference_condition is None else condition(item.reference_condition),
        )
        for item in example.items
    )
    return replace(example, items=items)
