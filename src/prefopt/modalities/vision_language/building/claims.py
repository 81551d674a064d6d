"""Pairs of candidates by how many of their claims a model doubts (RLAIF-V, arXiv 2405.17220).

    score of a candidate    minus the number of its claims with p(no) > p(yes)
    pairs                   any two candidates of a prompt with different scores
    filter                  pairs whose chosen answer is much shorter are left out, so that length teaches nothing

Lengths are in characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

STEP = 0.02
"""Between two ratios that are tried."""


class Pair(NamedTuple):
    """A better and a worse candidate."""

    chosen: str
    rejected: str


def doubted(claims: Sequence[tuple[float, float]]) -> int:
    """The score of a candidate.

    Args:
        claims: p(yes) and p(no) of the question that each of its claims becomes.

    Example:
        >>> doubted([(0.9, 0.1), (0.2, 0.7)])
        -1
    """
    return -sum(no > yes for yes, no in claims)


def scored_pairs(candidates: Sequence[tuple[str, float]]) -> list[Pair]:
    """Every two candidates of one prompt with different scores, the better one first.

    Args:
        candidates: text and score.

    Example:
        >>> scored_pairs([("A cat.", 0), ("A dog and a cat.", -1), ("Cats.", 0)])[0]
        Pair(chosen='A cat.', rejected='A dog and a cat.')
    """
    return [
        Pair(*((first, second) if a > b else (second, first)))
        for (first, a), (second, b) in combinations(candidates, 2)
        if a != b and first != second
    ]


def length_balanced(pairs: Sequence[Pair]) -> tuple[list[Pair], float]:
    """Pairs without those whose chosen answer is too short; how short is searched for.

    Of all least ratios chosen / rejected that are multiples of 0.02 up to 1, the one that leaves the smallest relative
    difference of the mean lengths is taken, and the lowest of equals.

    Args:
        pairs: of all prompts.

    Returns:
        What is left, in order, and the ratio.

    Raises:
        ValueError: no pairs, or an empty answer.

    Example:
        >>> length_balanced([Pair("ab", "abcdefgh"), Pair("abcde", "abcd")])[1]
        0.26
    """
    if not pairs:
        raise ValueError("there are no pairs to balance")
    if empty := next((pair for pair in pairs if not pair.chosen or not pair.rejected), None):
        raise ValueError(f"a pair has an empty answer ({empty}): leave it out first")
    best: tuple[float, float, list[Pair]] | None = None
    for step in range(round(1 / STEP) + 1):
        least = round(step * STEP, 2)
        left = [pair for pair in pairs if len(pair.chosen) >= least * len(pair.rejected)]
        if not left:
            break
        chosen, rejected = (fmean(len(side) for side in sides) for sides in zip(*left, strict=True))
        gap = abs(chosen - rejected) / rejected
        if best is None or gap < best[0]:
            best = (gap, least, left)
    assert best is not None  # ratio 0 leaves all
    return best[2], best[1]
