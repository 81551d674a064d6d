"""Multi-preference consistent filtering: keep the image pairs whose label other preferences do not contradict.

A judge of noisy images learns from pairs with noise added to both, and noise may turn a preference around where the
winner is ahead in one respect and behind in another. So the paper measures three gaps a pair, score of the winner
minus score of the loser, and drops what is inconsistent:

    rows        keep if                                                             rows of Pick-a-Pic v1
    win, 1      aesthetic >= 0, clip >= 0, vqa >= 0                                 101,573 of 511,840
    win, 2      aesthetic >= -0.5, clip >= 0, vqa >= 0   (default)                  168,539
    win, 3      aesthetic >= -1, clip >= 0, vqa >= 0                                201,885
    tie         |aesthetic| <= 0.2, |clip| <= 0.03, |vqa| <= 0.07                   8,537 of 71,907

Units: aesthetic score (about 1 to 10), CLIP cosine, VQAScore (a probability). Strategy 1 makes a judge love aesthetics,
3 text agreement. Source: "Diffusion Model as a Noise-Aware Latent Reward Model" (arXiv 2502.01051). The released code
uses > and, for ties, < without the absolute value, and matches gaps to rows by position; here the paper's rule holds
and gaps go by the row's id.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from prefopt.comparisons import Outcome
from prefopt.sources import cells
from prefopt.sources.collecting import Comparisons
from prefopt.sources.hints import recount
from prefopt.sources.report import Dropped

Strategy = Literal[1, 2, 3]
Gaps = Mapping[str, float]
"""By `ASPECTS`; the winner's score minus the loser's. Of a tie the sign does not matter."""

ASPECTS = ("aesthetic", "clip", "vqa")
LOWEST: dict[Strategy, dict[str, float]] = {
    1: {"aesthetic": 0.0, "clip": 0.0, "vqa": 0.0},
    2: {"aesthetic": -0.5, "clip": 0.0, "vqa": 0.0},
    3: {"aesthetic": -1.0, "clip": 0.0, "vqa": 0.0},
}
"""Smallest gaps of a win, by strategy."""
WIDEST = {"aesthetic": 0.2, "clip": 0.03, "vqa": 0.07}
"""Largest absolute gaps of a tie, under every strategy."""


@dataclass(frozen=True)
class Consistency:
    """What filtering leaves, and why the rest went.

    Attributes:
        kept: ids, in the order of the labels.
        dropped: why, by id: "inconsistent_win", "unequal_tie" or "no_gaps", and a sentence.
        counts: wins, wins_kept, ties, ties_kept, no_gaps, and by kind and aspect how many pairs fail there, such as
            "win/clip"; a pair that fails in two aspects counts in both.
    """

    kept: list[str]
    dropped: dict[str, tuple[str, str]]
    counts: dict[str, int]


def is_tie(outcome: Outcome) -> bool:
    """Whether a vote has no winner."""
    return outcome.win == outcome.lose


def winner_minus_loser(outcome: Outcome, first: float, second: float) -> float:
    """The gap of a pair from the scores of its two sides; of a tie, first minus second.

    Example:
        >>> winner_minus_loser(Outcome(0.0, 1.0, 0.0), first=0.25, second=0.75)
        0.5
    """
    return second - first if outcome.lose > outcome.win else first - second


def consistent(
    labels: Mapping[str, Outcome], gaps: Mapping[str, Gaps], strategy: Strategy = 2
) -> Consistency:
    """Which pairs are consistent.

    Args:
        labels: outcome of each pair, by id. A soft vote counts as a win of its majority, an even one as a tie.
        gaps: by id; see `Gaps` and `winner_minus_loser`. A pair whose gaps are absent or not finite is dropped.
        strategy: 1, 2 or 3: how far a winner may be behind in aesthetics.

    Raises:
        ValueError: unknown strategy, an unknown or absent aspect, or no pair has gaps at all.

    Example:
        >>> win, tie = Outcome(1.0, 0.0, 0.0), Outcome(0.0, 0.0, 1.0)
        >>> gap = {"aesthetic": -0.3, "clip": 0.02, "vqa": 0.0}
        >>> consistent({"a": win, "b": tie}, {"a": gap, "b": gap}).kept
        ['a']
    """
    if strategy not in LOWEST:
        raise ValueError(f"strategy {strategy!r} is not one of: 1, 2, 3")
    if labels and not set(labels) & set(gaps):
        raise ValueError(
            f"none of the {len(labels)} pairs has gaps: the ids of pairs begin with {', '.join(list(labels)[:3])}, those "
            f"of gaps with {', '.join(list(gaps)[:3]) or 'nothing, there are none'}; needed the same ids"
        )
    kept: list[str] = []
    dropped: dict[str, tuple[str, str]] = {}
    counts: Counter[str] = Counter()
    for name, outcome in labels.items():
        kind = "tie" if is_tie(outcome) else "win"
        counts[f"{kind}s"] += 1
        gap = gaps.get(name)
        if gap is None or not all(math.isfinite(gap[aspect]) for aspect in _aspects(name, gap)):
            dropped[name] = (
                "no_gaps",
                f"its gaps are {None if gap is None else dict(gap)}; needed three numbers",
            )
            counts["no_gaps"] += 1
            continue
        failed = _failed(kind, gap, strategy)
        for aspect in failed:
            counts[f"{kind}/{aspect}"] += 1
        if failed:
            reason = "unequal_tie" if kind == "tie" else "inconsistent_win"
            dropped[name] = (reason, f"a {kind} with {', '.join(failed.values())}")
        else:
            kept.append(name)
            counts[f"{kind}s_kept"] += 1
    told = ["wins", "wins_kept", "ties", "ties_kept", "no_gaps"]
    told += [f"{kind}/{aspect}" for kind in ("win", "tie") for aspect in ASPECTS]
    return Consistency(kept, dropped, {key: counts[key] for key in told})


def keep_consistent(
    comparisons: Comparisons, gaps: Mapping[str, Gaps] | None = None, strategy: Strategy = 2
) -> Comparisons:
    """A data set without its inconsistent pairs; they are listed in `dropped`.

    Args:
        comparisons: one pair an example.
        gaps: by example id; None: from the columns gap_aesthetic, gap_clip and gap_vqa that ride along (`columns` of
            `load_image_comparisons`).
        strategy: see `consistent`.

    Raises:
        ValueError: an example is not one pair, gaps are missing altogether, or nothing is left.
    """
    labels: dict[str, Outcome] = {}
    own: dict[str, Gaps] = {}
    for example in comparisons:
        if len(example.comparisons) != 1 or example.comparisons[0].second is None:
            raise ValueError(
                f"example {example.id} is not one pair: only pairs can be filtered by consistency"
            )
        edge = example.comparisons[0]
        labels[example.id] = edge.outcome
        own[example.id] = {a: edge.columns[f"gap_{a}"] for a in ASPECTS if f"gap_{a}" in edge.columns}
    result = consistent(labels, own if gaps is None else gaps, strategy)
    if not result.kept:
        reasons = ", ".join(f"{n} {what}" for what, n in result.counts.items() if n)
        raise ValueError(
            f"no pair of {comparisons.report.source} is consistent under strategy {strategy}: {reasons}"
        )
    kept = set(result.kept)
    examples = [example for example in comparisons if example.id in kept]
    dropped = [
        *comparisons.dropped,
        *(Dropped(comparisons.origins[name].row, name, *why) for name, why in result.dropped.items()),
    ]
    report = recount(comparisons.report, examples, dropped)
    return replace(comparisons, examples=examples, dropped=dropped, report=report)


def _failed(kind: str, gap: Gaps, strategy: Strategy) -> dict[str, str]:
    """The aspects in which a pair fails, and how."""
    if kind == "tie":
        return {
            a: f"|{a} gap| {abs(gap[a]):.4g} > {WIDEST[a]:g}" for a in ASPECTS if not abs(gap[a]) <= WIDEST[a]
        }
    lowest = LOWEST[strategy]
    return {a: f"{a} gap {gap[a]:.4g} < {lowest[a]:g}" for a in ASPECTS if not gap[a] >= lowest[a]}


def _aspects(name: str, gap: Gaps) -> tuple[str, ...]:
    unknown = [key for key in gap if key not in ASPECTS]
    absent = [key for key in ASPECTS if key not in gap]
    if unknown or absent:
        hint = cells.near(unknown[0], absent) if unknown and absent else ""
        raise ValueError(
            f"pair {name} has the gaps {', '.join(gap) or 'none'}; needed {', '.join(ASPECTS)} and no others{hint}"
        )
    return ASPECTS
