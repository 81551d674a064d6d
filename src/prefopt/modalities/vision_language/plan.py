"""Items with pictures and videos, and the rows that they are laid out in.

Legend: N items, R rows, T row length, C axes of positions, K scored tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefopt.comparisons import Item, UnusableItem
from prefopt.likelihoods.layout import Layout
from prefopt.likelihoods.plan import EncodedText, Plan
from prefopt.modalities.vision_language.media import Medium
from prefopt.modalities.vision_language.streams import Streams


@dataclass(frozen=True, slots=True)
class EncodedPictured(EncodedText):
    """One item as token ids and pictures.

    Attributes:
        pictures: and videos, in the order of their tokens.
        misled_by: the same completion under other pictures; the tokens that the scoring model finds likeliest there take the
            place of the completion's own, place by place.
        drawn_from: the item whose video is put together anew each epoch; None: it stays as it is.
    """

    pictures: tuple[Medium, ...] = ()
    misled_by: EncodedPictured | None = None
    drawn_from: Item | None = None


@dataclass(frozen=True, slots=True)
class PicturedPlan(Plan):
    """Rows of tokens, and the pictures in them."""

    position_CRT: Tensor | None
    """Positions by axis, where the model has several."""
    type_RT: Tensor | None
    """Kind of each token, where the model is told it."""
    streams: Streams
    """What the rows show, each picture and clip once, by what the model takes it for: image or video."""
    misled: Plan | None
    """Rows under the pictures that mislead."""
    misled_K: Tensor | None
    """Scored tokens whose targets come from there, in the order in which they are scored there."""


def told_apart(
    ids: array[int], tokens: Collection[int], numbers: Sequence[int], tokens_of: Sequence[int]
) -> array[int]:
    """Token ids in which those of units are -1 minus the number of their unit: alike only where the unit is.

    Args:
        ids: of an item.
        tokens: that stand for features.
        numbers: of the item's units, in the order of their tokens.
        tokens_of: how many each unit of the batch has.

    Raises:
        UnusableItem: there are more or fewer of them than the units need.
    """
    stand = [-1 - number for number in numbers for _ in range(tokens_of[number])]
    places = [k for k, token in enumerate(ids) if token in tokens]
    if len(stand) != len(places):
        raise UnusableItem(
            f"{len(places)} tokens stand for images or clips whose features are {len(stand)}: the processor does not prepare "
            "those of one size alike",
            "image_places",
        )
    out = array("i", ids)
    for place, token in zip(places, stand, strict=True):
        out[place] = token
    return out


def occurrences(layout: Layout, tokens_of: Sequence[int]) -> list[int]:
    """Which unit each of those in the rows is, row by row."""
    found = []
    for row in layout.rows:
        numbers = [-1 - token for token in row.ids if token < 0]
        place = 0
        while place < len(numbers):
            found.append(numbers[place])
            place += tokens_of[numbers[place]]
    return found


def places_of(plan: Plan, items: Sequence[int]) -> Tensor:
    """Scored tokens of some items, in their order."""
    return torch.cat([(plan.item_K == n).nonzero()[:, 0] for n in items])
