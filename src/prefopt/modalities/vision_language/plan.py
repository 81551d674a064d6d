"""Items with pictures, and the rows that they are laid out in.

Legend: N items, R rows, T row length, C axes of positions, K scored tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.likelihoods.layout import Layout
from prefopt.likelihoods.plan import EncodedText, Plan
from prefopt.modalities.vision_language.contrasts import Picture


@dataclass(frozen=True, slots=True)
class EncodedPictured(EncodedText):
    """One item as token ids and pictures.

    Attributes:
        pictures: in the order of their tokens.
        misled_by: the same completion under other pictures; the tokens that the scoring model finds likeliest there take the
            place of the completion's own, place by place.
    """

    pictures: tuple[Picture, ...] = ()
    misled_by: EncodedPictured | None = None


@dataclass(frozen=True, slots=True)
class PicturedPlan(Plan):
    """Rows of tokens, and the pictures in them."""

    position_CRT: Tensor | None
    """Positions by axis, where the model has several."""
    type_RT: Tensor | None
    """Kind of each token, where the model is told it."""
    images: dict[str, Tensor]
    """What the processor made of each distinct picture."""
    tokens_of: list[int]
    """Image tokens of each distinct picture."""
    order: list[int]
    """Which of them each image in the rows is, row by row."""
    misled: Plan | None
    """Rows under the pictures that mislead."""
    misled_K: Tensor | None
    """Scored tokens whose targets come from there, in the order in which they are scored there."""


def told_apart(
    ids: array[int], image_token_id: int, numbers: Sequence[int], tokens_of: Sequence[int]
) -> array[int]:
    """Token ids in which those of images are -1 minus the number of their picture: alike only where the picture is.

    Raises:
        UnusableItem: there are more or fewer of them than the pictures need.
    """
    stand = [-1 - number for number in numbers for _ in range(tokens_of[number])]
    places = [k for k, token in enumerate(ids) if token == image_token_id]
    if len(stand) != len(places):
        raise UnusableItem(
            f"{len(places)} tokens stand for images whose features are {len(stand)}: the processor does not prepare images of "
            "one size alike",
            "image_places",
        )
    out = array("i", ids)
    for place, token in zip(places, stand, strict=True):
        out[place] = token
    return out


def occurrences(layout: Layout, tokens_of: Sequence[int]) -> list[int]:
    """Which picture each image in the rows is, row by row."""
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
