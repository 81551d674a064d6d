"""How scores of samples moved between the first and the newest of each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Changes:
    """Scores over all prompts that have both."""

    prompts: int
    before: float
    after: float
    better: int
    worse: int


def score_changes(ends: Sequence[tuple[float, float] | None]) -> Changes | None:
    """How scores moved over the prompts shown, from (first, newest) of each; None where nothing is scored."""
    pairs = [pair for pair in ends if pair is not None]
    if not pairs:
        return None
    return Changes(
        prompts=len(pairs),
        before=sum(b for b, _ in pairs) / len(pairs),
        after=sum(a for _, a in pairs) / len(pairs),
        better=sum(a > b for b, a in pairs),
        worse=sum(a < b for b, a in pairs),
    )
