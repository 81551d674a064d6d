"""Made-up items with pictures and videos, on which it is found out how densely a model can be scored."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.media import Medium, marks_of
from prefopt.modalities.vision_language.plan import EncodedPictured
from prefopt.modalities.vision_language.video.videos import Video
from prefopt.sources.pictures import ImageRef, as_ref
from prefopt.sources.videos import ClipRef

PromptIds = Callable[[Mapping[str, Any]], list[int]]
"""Token ids of a condition's prompt."""


def probes_of(prompt_ids: PromptIds, taken: Collection[int], videos: bool) -> list[list[EncodedPictured]]:
    """Rows with pictures; and some with videos, where the data has them.

    Args:
        prompt_ids: of the likelihood.
        taken: ids of tokens that stand for features, and so for no word.
        videos: whether the data shows some.
    """
    pictures = probes(prompt_ids, taken, (made_up(0),), (made_up(1),))
    if not videos:
        return [pictures]
    first, second = clip(0), clip(1)
    return [pictures, probes(prompt_ids, taken, (Video((first, second)),), (Video((second, first)),))]


def probes(
    prompt_ids: PromptIds, taken: Collection[int], first: tuple[Medium, ...], second: tuple[Medium, ...]
) -> list[EncodedPictured]:
    """Two completions of a prompt with one thing shown, one of the same words with another, and one of a row of two."""
    a, b, c, d, *_ = (k for k in range(1, 9) if k not in taken)

    def item(media: tuple[Medium, ...], *tail: int) -> EncodedPictured:
        prompt = prompt_ids({"prompt": "a ".join(marks_of(media)) + "a b", "pictures": media})
        return EncodedPictured(array("i", [*prompt, *tail]), len(prompt), pictures=media)

    # turned round, a completion stays where it is in the sorted order: another order is another sum of the same numbers
    items = [item(first, a, b, c, b), item(first, d, b, c), item(second, a, b, c, b)]
    try:
        return [*items, item((*first, *second), d, b, c, a)]
    except UnusableItem:  # one picture a prompt is all that this processor takes
        return [*items, item(second, d, b, c, a)]


def made_up(number: int) -> Picture:
    """A small picture that no data set has."""
    return Picture(noise(number))


def noise(number: int) -> ImageRef:
    """Random pixels."""
    pixels_HW3 = np.random.default_rng(number).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    return as_ref(pixels_HW3, f"made-up picture {number}")


def clip(number: int) -> ClipRef:
    """A short clip that no data set has."""
    shown = tuple(noise(10 * number + k) for k in range(10, 14))
    return ClipRef(shown, frames=(0, 1, 2, 3), fps=2.0, name=f"made-up clip {number}")
