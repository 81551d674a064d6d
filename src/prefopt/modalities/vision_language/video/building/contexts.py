"""Which scenes somebody is shown who is to answer wrongly, and how captions become one summary.

Source: LongVPO (arXiv 2602.02341), stage 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Contexts(NamedTuple):
    """Scenes to answer from, in the order of the film; None: there are none of that kind."""

    partial: list[int] | None
    """Some of the evidence, but not all of it."""
    irrelevant: list[int] | None
    """Other scenes alone."""


def stage2_contexts(scenes: int, evidence: Sequence[int], k: int, priority: Sequence[int]) -> Contexts:
    """Scenes from which a question about several scenes cannot be answered.

    Args:
        scenes: how many there are.
        evidence: places of those that the answer needs.
        k: how many to show.
        priority: all scenes in the order in which they are taken.

    Returns:
        The first k scenes of the evidence, if that is not all of it, and the first k of the others, or all of these.

    Raises:
        ValueError: evidence that is no scene, or named twice; k below 1.

    Example:
        >>> stage2_contexts(4, [0, 2, 3], 1, [2, 1, 3, 0])
        Contexts(partial=[2], irrelevant=[1])
    """
    if k < 1:
        raise ValueError(f"k is {k}: needed at least one scene to answer from")
    if len(set(evidence)) < len(evidence) or not all(0 <= scene < scenes for scene in evidence):
        raise ValueError(f"the evidence {list(evidence)} must be different scenes of 0 to {scenes - 1}")
    within = [scene for scene in priority if scene in evidence][:k]
    without = [scene for scene in priority if scene not in evidence][:k]
    return Contexts(sorted(within) if len(within) < len(evidence) else None, sorted(without) or None)


def caption_levels(segments: int, fan_in: int) -> list[int]:
    """Texts on each level of a summary from the bottom up, where `fan_in` of them become one.

    Args:
        segments: captions at the bottom.
        fan_in: texts that are summarised together.

    Raises:
        ValueError: no segments, or fewer than two texts together.

    Example:
        >>> caption_levels(37, 5)
        [37, 8, 2, 1]
    """
    if segments < 1 or fan_in < 2:
        raise ValueError(f"given {segments} captions and fan_in {fan_in}: needed at least 1 and 2")
    levels = [segments]
    while levels[-1] > 1:
        levels.append(-(-levels[-1] // fan_in))
    return levels
