"""What captions are measured by, given what their pictures show: pure functions of (objects, caption).

A class counts once in a caption, however often it is named. Never judge by CHAIR alone: who names nothing hallucinates
nothing. So `Measures` has the objects that are left out beside those that are made up.

The measures are those of CHAIR (arXiv 1809.02156) and AMBER (arXiv 2311.07397).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from prefopt.worlds.caption.task import Mention, caption_of, companion, mentions_of

Record = tuple[Sequence[int], str]
"""The classes that a picture shows, and a caption of it."""


class Measures(NamedTuple):
    """Of a set of captions; shares in [0, 1], NaN where there is nothing to take a share of.

    Attributes:
        chair_i: share of the mentions that are hallucinated (CHAIRi).
        chair_s: share of the captions with a hallucinated mention (CHAIRs).
        cover: share of the objects that are named, pooled.
        f1: of 1 - CHAIRi and cover.
        cover_prior: cover of the objects that are a companion of another that is there: what "never name a companion"
            loses.
        cog: share of the mentions that are hallucinated companions of an object that is there.
        exact: share of the captions that are the exact one.
        mentions: mean number of classes that a caption names.
        captions: how many.
    """

    chair_i: float
    chair_s: float
    cover: float
    f1: float
    cover_prior: float
    cog: float
    exact: float
    mentions: float
    captions: int


def mentioned(caption: str) -> set[int]:
    """The classes that a caption names."""
    return {mention.object for mention in mentions_of(caption)}


def hallucinated(objects: Sequence[int], caption: str) -> list[Mention]:
    """The mentions of what is not there, in the caption's order: what a report marks.

    >>> hallucinated((0,), "red square, blue plus")
    [Mention(object=7, start=12, end=21)]
    """
    return [mention for mention in mentions_of(caption) if mention.object not in objects]


def f1(objects: Sequence[int], caption: str) -> float:
    """F1 of the classes that one caption names, in [0, 1]; 0 where it names none.

    >>> f1((0, 7), "red square")
    0.6666666666666666
    """
    named = mentioned(caption)
    return 2 * len(named & set(objects)) / (len(named) + len(objects))


def is_exact(objects: Sequence[int], caption: str) -> bool:
    """Whether a caption is the exact one; case and spaces are free."""
    return caption.replace(",", " , ").lower().split() == caption_of(objects).replace(",", " , ").split()


def measures(records: Iterable[Record]) -> Measures:
    """The measures of a set of captions."""
    captions = with_made_up = named = made_up = companions = shown = found = expected = expected_found = 0
    exact = 0
    for objects, caption in records:
        there, told = set(objects), mentioned(caption)
        prior = {companion(k) for k in there}
        captions += 1
        named += len(told)
        made_up += len(told - there)
        with_made_up += bool(told - there)
        companions += len((told - there) & prior)
        shown += len(there)
        found += len(told & there)
        expected += len(there & prior)
        expected_found += len(told & there & prior)
        exact += is_exact(objects, caption)
    chair_i, cover = _share(made_up, named), _share(found, shown)
    return Measures(
        chair_i=chair_i,
        chair_s=_share(with_made_up, captions),
        cover=cover,
        f1=2 * (1 - chair_i) * cover / (1 - chair_i + cover) if found else _share(0, named),
        cover_prior=_share(expected_found, expected),
        cog=_share(companions, named),
        exact=_share(exact, captions),
        mentions=_share(named, captions),
        captions=captions,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
