"""What a batch plan saves: tokens of a data set under each layout, batch by batch.

Legend: N items, T row length, R rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prefopt.likelihoods.layout import Sharing, cost
from prefopt.likelihoods.plan import EncodedText, Plan, plan_rows


@dataclass
class Savings:
    """Sums over batches.

    Attributes:
        layout: of the rows.
        places: R * T, what the trunk of the model reads, padding included.
        tokens: of them, without padding.
        scored: places that the head reads.
        work: cost in units of a token's matrix products, attention included (`layout.cost`).
    """

    layout: Sharing
    places: int = 0
    tokens: int = 0
    scored: int = 0
    work: float = 0.0

    def add(self, plan: Plan, hidden: int) -> None:
        """Count one batch."""
        rows, width = plan.input_ids_RT.shape
        self.places += plan.places
        self.tokens += plan.tokens
        self.scored += len(plan.target_K)
        self.work += rows * cost(width, hidden)


def savings(batches: Iterable[Sequence[EncodedText]], hidden: int) -> list[Savings]:
    """Totals of the three layouts, densest last.

    Args:
        batches: encoded items of each forward pass.
        hidden: width of the model.

    Example:
        >>> from array import array
        >>> pair = [EncodedText(array("i", [1, 2, 3, 4]), 3), EncodedText(array("i", [1, 2, 3, 5]), 3)]
        >>> [s.tokens for s in savings([pair], hidden=64)]
        [6, 6, 3]
    """
    totals = [Savings("plain"), Savings("packed"), Savings("shared")]
    for items in batches:
        for total in totals:
            total.add(plan_rows(items, 0, total.layout, hidden), hidden)
    return totals


def explain(items: Sequence[EncodedText], hidden: int) -> list[str]:
    """One batch in words, a line for each row: what is read once, and for which items."""
    plan = plan_rows(items, 0, "shared", hidden)
    lines = [plan.describe()]
    for row, mask in enumerate(plan.attention_mask_RT):
        places = plan.item_K[plan.row_K == row]
        of = sorted(set(places.tolist()))
        dense = sum(len(items[n].ids) - 1 for n in of)
        tokens = int(mask.sum())
        saved = f", {dense - tokens} shared" if dense > tokens else ""
        lines.append(
            f"row {row + 1}: {tokens} tokens of item{'s' * (len(of) > 1)} {', '.join(map(str, of))}{saved}"
        )
    return lines
