"""Pairs as single labelled samples, for objectives that take those (KTO, BCO)."""

from __future__ import annotations

from dataclasses import replace

from prefopt.comparisons import Comparison, Example, Outcome
from prefopt.sources.collecting import Comparisons
from prefopt.sources.hints import recount
from prefopt.sources.ties import apply_ties_policy


def unpair(comparisons: Comparisons, ties: str | None = None) -> Comparisons:
    """Split each pair into a desirable and an undesirable sample, as TRL's `unpair_preference_dataset` does.

    Vote shares are kept: of a pair that 80 % call a win, the chosen side is 80 % desirable. Single samples pass.

    Args:
        comparisons: pairs, single samples, or both.
        ties: policy for ties, see `apply_ties_policy`.

    Returns:
        Single samples, with ids "<id>/chosen" and "<id>/rejected".

    Raises:
        ValueError: there are ties and no policy for them.

    Example:
        >>> pairs = load_comparisons([{"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3"}])   # doctest: +SKIP
        >>> [example.id for example in unpair(pairs)]                                            # doctest: +SKIP
        ['row-1/chosen', 'row-1/rejected']
    """
    comparisons = apply_ties_policy(comparisons, ties)
    examples: list[Example] = []
    origins = {}
    for example in comparisons:
        for n, edge in enumerate(example.comparisons):
            base = example.id if len(example.comparisons) == 1 else f"{example.id}/{n}"
            ends = [("", edge.first, edge.outcome)]
            if edge.second is not None:
                win, lose, _ = edge.outcome
                ends = [
                    ("/chosen", edge.first, edge.outcome),
                    ("/rejected", edge.second, Outcome(lose, win, 0.0)),
                ]
            for suffix, item, outcome in ends:
                single = Comparison(0, None, outcome, edge.weight, edge.columns)
                examples.append(Example(base + suffix, (example.items[item],), (single,)))
                origins[base + suffix] = comparisons.origins[example.id]
    report = recount(comparisons.report, examples, comparisons.dropped)
    return replace(comparisons, examples=examples, report=report, origins=origins)
