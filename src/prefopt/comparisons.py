"""The contract that every source, likelihood and method shares: items, and comparisons between them.

An *item* is one (condition, sample). A *comparison* is an edge between two items with an outcome and a weight.
One row of a data set becomes one `Example`: a few items and the edges among them. An item is scored once, however
many edges touch it.

    text pair            2 items, 1 edge        condition {"prompt"}             sample: completion
    K ranked candidates  K items, many edges
    unpaired row         1 item, 1 edge whose other end is None: the baseline outside the batch
    image pair           2 items, 1 edge        condition {"prompt"}             sample: image
    two images, crossed  5 items, 1 edge        condition {"prompt", "images"}   (m,w)(m,l); branches (m,c)(m',c)(m',w)
    control images       2 items, 1 edge        two conditions, the same sample

Nothing here knows a modality: conditions and samples are whatever the likelihood in use can encode.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor


class Outcome(NamedTuple):
    """Shares of a judge's votes: first side wins, first side loses, tie. They sum to 1."""

    win: float
    lose: float
    tie: float


WIN = Outcome(1.0, 0.0, 0.0)
LOSE = Outcome(0.0, 1.0, 0.0)
TIE = Outcome(0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Item:
    """One sample under one condition.

    Attributes:
        condition: what the sample is drawn given, by name: `prompt` (text or messages), `images`, `tools`, ...
        sample: completion, image, motion, next latent.
        reference_condition: what the reference sees instead, where that differs (anchored references).
        ended: of a text, whether it is whole; False: it was cut when it was sampled, so that no end belongs behind it.
    """

    condition: Mapping[str, Any]
    sample: Any
    reference_condition: Mapping[str, Any] | None = None
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """An edge between two items of the same example.

    Attributes:
        first: index of the item that a "win" favours.
        second: index of the other item; None compares with the baseline outside the batch (unpaired rows).
        outcome: vote shares.
        weight: factor on this comparison's loss, > 0.
        columns: further numbers that ride along by name to the objective.
        branches: further items that the objective reads with this comparison, by the names that it gives them
            (`Objective.branches`); indices of the example's items, and behind these of an encoded example's `aside`.
    """

    first: int
    second: int | None
    outcome: Outcome = WIN
    weight: float = 1.0
    columns: Mapping[str, float] = field(default_factory=dict)
    branches: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a data set.

    Attributes:
        id: stable name, unique in the data set; all counted randomness derives from it.
        items: the samples to score.
        comparisons: the edges among them.
    """

    id: str
    items: tuple[Item, ...]
    comparisons: tuple[Comparison, ...]

    def __post_init__(self) -> None:
        for edge in self.comparisons:
            ends = (edge.first,) if edge.second is None else (edge.first, edge.second)
            if any(not 0 <= end < len(self.items) for end in ends) or edge.first == edge.second:
                raise ValueError(
                    f"example {self.id}: comparison {ends} does not join two of {len(self.items)} items"
                )
            check_outcome(edge.outcome, where=f"example {self.id}")
            if not (math.isfinite(edge.weight) and edge.weight > 0):
                raise ValueError(
                    f"example {self.id}: weight must be a positive finite number; given {edge.weight}"
                )


def check_outcome(outcome: Sequence[float], where: str) -> Outcome:
    """Validate vote shares; raises ValueError naming `where`."""
    if (
        len(outcome) != 3
        or any(not math.isfinite(x) or x < 0 for x in outcome)
        or abs(sum(outcome) - 1) > 1e-4
    ):
        raise ValueError(
            f"{where}: an outcome is three non-negative shares (win, lose, tie) that sum to 1; given {list(outcome)}"
        )
    return Outcome(*map(float, outcome))


EncodedT = TypeVar("EncodedT")


@dataclass(frozen=True, slots=True)
class Encoded(Generic[EncodedT]):
    """An example after the likelihood's `encode`: what its items became, edges unchanged."""

    id: str
    items: tuple[EncodedT, ...]
    comparisons: tuple[Comparison, ...]
    aside: tuple[EncodedT, ...] = ()
    """Items scored without gradient, which comparisons name as branches (KTO's mismatched pairs)."""


@dataclass(frozen=True, slots=True)
class Edges:
    """The comparisons of one batch as tensors. E = number of edges."""

    first_E: Tensor
    """(E,) int64 item index."""
    second_E: Tensor
    """(E,) int64 item index, -1 for the baseline."""
    outcome_E3: Tensor
    """(E, 3) float32 shares of (win, lose, tie)."""
    weight_E: Tensor
    """(E,) float32."""
    columns: dict[str, Tensor]
    """(E,) float32 each; NaN where an edge has no such column is not allowed: all edges carry the same names."""
    branches: dict[str, Tensor]
    """(E,) int64 each: an item by the name that the objective gives it; those beyond the items are `aside`."""
    all_wins: bool
    """Known on the host at collation, so that the loop can skip outcome terms without a device read."""
    singles: bool = False
    """Whether no edge has another end than the baseline; known on the host too."""

    def to(self, device: torch.device) -> Edges:
        """The same edges on another device."""
        return Edges(
            first_E=self.first_E.to(device, non_blocking=True),
            second_E=self.second_E.to(device, non_blocking=True),
            outcome_E3=self.outcome_E3.to(device, non_blocking=True),
            weight_E=self.weight_E.to(device, non_blocking=True),
            columns={name: t.to(device, non_blocking=True) for name, t in self.columns.items()},
            branches={name: t.to(device, non_blocking=True) for name, t in self.branches.items()},
            all_wins=self.all_wins,
            singles=self.singles,
        )

    def __len__(self) -> int:
        return len(self.first_E)


@dataclass(frozen=True, slots=True)
class Batch(Generic[EncodedT]):
    """Items and edges of some examples; `example_of_item` and `ids` lead back to the rows."""

    items: list[EncodedT]
    edges: Edges
    ids: list[str]
    example_of_item: list[int]
    aside: list[EncodedT]
    """See `Encoded.aside`."""


def collate(examples: Iterable[Encoded[EncodedT]]) -> Batch[EncodedT]:
    """Concatenate examples into one batch, renumbering their edges and branches."""
    examples = list(examples)
    total = sum(len(example.items) for example in examples)
    items: list[EncodedT] = []
    ids: list[str] = []
    example_of_item: list[int] = []
    aside: list[EncodedT] = []
    edges: list[tuple[int, int, Comparison]] = []
    branches: list[dict[str, int]] = []
    for example in examples:
        start, beside = len(items), total + len(aside) - len(example.items)
        branches += [
            {name: k + (start if k < len(example.items) else beside) for name, k in e.branches.items()}
            for e in example.comparisons
        ]
        example_of_item += [len(ids)] * len(example.items)
        ids.append(example.id)
        items += example.items
        aside += example.aside
        edges += [
            (start + e.first, -1 if e.second is None else start + e.second, e) for e in example.comparisons
        ]
    if not edges:
        raise ValueError("a batch needs at least one comparison; every example given had none")
    names = on_all("column", [e.columns for *_, e in edges])
    roles = on_all("branch", branches)
    return Batch(
        items=items,
        edges=Edges(
            first_E=torch.tensor([first for first, _, _ in edges]),
            second_E=torch.tensor([second for _, second, _ in edges]),
            outcome_E3=torch.tensor([e.outcome for *_, e in edges], dtype=torch.float32),
            weight_E=torch.tensor([e.weight for *_, e in edges], dtype=torch.float32),
            columns={name: torch.tensor([float(e.columns[name]) for *_, e in edges]) for name in names},
            branches={name: torch.tensor([of_edge[name] for of_edge in branches]) for name in roles},
            all_wins=all(e.outcome == WIN for *_, e in edges),
            singles=all(e.second is None for *_, e in edges),
        ),
        ids=ids,
        example_of_item=example_of_item,
        aside=aside,
    )


def on_all(what: str, given: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names that every comparison of a batch carries.

    Raises:
        ValueError: some carry a name that others lack.
    """
    names = sorted({name for one in given for name in one})
    for one in given:
        if missing := [name for name in names if name not in one]:
            raise ValueError(
                f"{what}(s) {', '.join(missing)} are on some comparisons of the batch but not on all"
            )
    return names


class UnusableItem(ValueError):
    """An item that cannot be scored: its row is dropped and listed in `dropped.jsonl`.

    Args:
        detail: one sentence, with the numbers of this item.
        reason: short name under which such rows are counted.
    """

    def __init__(self, detail: str, reason: str = "unusable_item") -> None:
        super().__init__(detail)
        self.reason = reason
