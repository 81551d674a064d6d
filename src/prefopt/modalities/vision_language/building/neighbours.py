"""The most similar other image, by cosine, in blocks: tens of thousands of images fit in memory.

Legend: N images, B images of a block, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from prefopt.sources.progress import with_bar

BLOCK = 512
"""Images compared with all others at once: 100 MB for 50,000 of them."""


class Neighbour(NamedTuple):
    """Where an image's neighbour stands, and its cosine to it."""

    place: int
    similarity: float


def neighbours(
    embeddings_ND: np.ndarray[Any, Any],
    *,
    most: float,
    least: float,
    alike: Sequence[Any] | None = None,
    block: int = BLOCK,
) -> list[Neighbour | None]:
    """For each image the most similar other one; None where all are too far away.

    Args:
        embeddings_ND: (N, D) of length 1.
        most: closer ones are taken for copies, and passed over.
        least: farther ones are not taken.
        alike: something of each image; those in which it is equal, and not None, are passed over.
        block: images compared at once.

    Example:
        >>> vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> [found.place for found in neighbours(vectors, most=0.98, least=0.5)]
        [1, 2, 1]
    """
    count = len(embeddings_ND)
    codes_N = _codes(alike, count)
    found: list[Neighbour | None] = []
    for start in with_bar(range(0, count, block), "finding neighbours"):
        end = min(start + block, count)
        cosine_BN = embeddings_ND[start:end] @ embeddings_ND.T
        cosine_BN[cosine_BN > most] = -np.inf
        cosine_BN[np.arange(end - start), np.arange(start, end)] = -np.inf
        if codes_N is not None:
            known_B1 = codes_N[start:end, None] >= 0
            cosine_BN[known_B1 & (codes_N[start:end, None] == codes_N[None])] = -np.inf
        best_B = cosine_BN.argmax(1)
        value_B = cosine_BN[np.arange(end - start), best_B]
        found += [
            Neighbour(int(place), float(value)) if value >= least else None
            for place, value in zip(best_B, value_B, strict=True)
        ]
    return found


def _codes(alike: Sequence[Any] | None, count: int) -> np.ndarray[Any, Any] | None:
    """Equal numbers for what is equal, -1 for None."""
    if alike is None:
        return None
    numbers: dict[Any, int] = {}
    codes = [-1 if one is None else numbers.setdefault(one, len(numbers)) for one in alike]
    assert len(codes) == count
    return np.array(codes)
