"""Attention of shared and packed rows branch by branch, where a kernel would not skip what a mask hides.

A row is a tree of *runs*: stretches of tokens that have the same ancestors outside themselves. The places of a run see
all places of the runs above it and, within it, the places before. So a run is one small call of attention: its queries
against the keys of the runs above and its own. With a prompt of P and completions of C and R tokens that is
P^2 / 2 + C (P + C / 2) + R (P + R / 2) pairs of places instead of (P + C + R)^2.

Legend: R rows, T row length, H heads, D numbers a head.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

CALL = 30_000  # pairs of places that attend in the time which one more call costs, measured on two cores
WORTHWHILE = 0.8  # share of the pairs below which branches are taken one by one


@dataclass(frozen=True, slots=True)
class Run:
    """Places from `start` to `end` of a row, and the (start, end) of the runs above, from the root."""

    start: int
    end: int
    above: tuple[tuple[int, int], ...]

    @property
    def pairs(self) -> int:
        """Pairs of places that a kernel computes; a masked one computes all, a causal one about half."""
        length = self.end - self.start
        before = sum(end - start for start, end in self.above)
        return length * (before + length) if before else length * (length + 1) // 2


def runs_of(until: list[int]) -> list[Run]:
    """The runs of one row, in order, from the index where each place's descendants end (`layout.Row.until`).

    Example:
        >>> [(run.start, run.end, run.above) for run in runs_of([5, 5, 4, 4, 5])]
        [(0, 2, ()), (2, 4, ((0, 2),)), (4, 5, ((0, 2),))]
    """
    runs: list[Run] = []
    open_runs: list[tuple[int, int, int]] = []  # start, end, until
    for place, end in enumerate(until):
        last = runs[-1] if runs else None
        if last is not None and last.end == place and until[place - 1] == end and place < end:
            # the same descendants: a longer run
            runs[-1] = Run(last.start, place + 1, last.above)
            open_runs[-1] = (last.start, place + 1, end)
            continue
        while open_runs and open_runs[-1][2] <= place:
            open_runs.pop()
        runs.append(Run(place, place + 1, tuple((a, b) for a, b, _ in open_runs)))
        open_runs.append((place, place + 1, end))
    return runs


@dataclass(frozen=True, slots=True)
class Branches:
    """The runs of every row of a plan.

    Attributes:
        rows: runs of each row, padding left out.
        width: T.
    """

    rows: tuple[tuple[Run, ...], ...]
    width: int
    _masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: list[list[int]], width: int) -> Branches:
        """From `until` of each row."""
        return cls(tuple(tuple(runs_of(until)) for until in rows), width)

    def at(self, places: Sequence[Sequence[int]]) -> Branches:
        """The same for queries of some places alone: each run from its first of them to its last; zero elsewhere.

        Args:
            places: of each row, sorted.

        Example:
            >>> Branches.of([[5, 5, 4, 4, 5]], 5).at([[1, 3]]).rows[0][0]
            Run(start=1, end=2, above=((0, 1),))
        """
        rows = []
        for runs, wanted in zip(self.rows, places, strict=True):
            kept = []
            for run in runs:
                inside = wanted[bisect_left(wanted, run.start) : bisect_left(wanted, run.end)]
                if inside and inside[0] == run.start:
                    kept.append(Run(run.start, inside[-1] + 1, run.above))
                elif inside:
                    kept.append(Run(inside[0], inside[-1] + 1, (*run.above, (run.start, inside[0]))))
            rows.append(tuple(kept))
        return Branches(tuple(rows), self.width)

    @property
    def cost(self) -> int:
        """Pairs of places that are computed, and as many more as the calls take time."""
        return sum(run.pairs + CALL for row in self.rows for run in row)

    @property
    def worthwhile(self) -> bool:
        """Whether one call a run is cheaper than one masked call for all."""
        return self.cost < WORTHWHILE * len(self.rows) * self.width**2

    def mask(self, length: int, total: int, device: torch.device) -> Tensor:
        """(1, 1, length, total) what the last `length` of `total` places see; True: seen."""
        if (length, total) not in self._masks:
            self._masks[length, total] = torch.ones(length, total, dtype=torch.bool, device=device).tril(
                total - length
            )[None, None]
        return self._masks[length, total]

    def attend(
        self,
        attention: Callable[..., Any],
        module: Any,
        query_RHTD: Tensor,
        key_RHTD: Tensor,
        value_RHTD: Tensor,
        **options: Any,
    ) -> Tensor:
        """(R, T, H, D) what `attention` gives under the mask of the rows; zero at places of no run.

        Args:
            attention: transformers' attention for a module, queries, keys, values, and a mask or none.
            module: the layer.
            query_RHTD: queries.
            key_RHTD: keys, perhaps of fewer heads.
            value_RHTD: values.
            options: passed on.
        """
        out_RTHD = []
        for r, runs in enumerate(self.rows):
            query, key, value = query_RHTD[r : r + 1], key_RHTD[r : r + 1], value_RHTD[r : r + 1]
            parts = []
            for run in runs:
                spans = (*run.above, (run.start, run.end))
                keys, values = at_spans(key, spans), at_spans(value, spans)
                length, total = run.end - run.start, keys.shape[2]
                mask = self.mask(length, total, keys.device) if run.above else None
                given = {**options, "is_causal": mask is None}
                parts.append(
                    attention(module, query[:, :, run.start : run.end], keys, values, mask, **given)[0]
                )
            ends = [0, *(run.end for run in runs)]
            starts = [*(run.start for run in runs), self.width]
            pieces = []
            for part, before, start in zip([*parts, None], ends, starts, strict=True):
                if before < start:
                    pieces.append(parts[0].new_zeros((1, start - before, *parts[0].shape[2:])))
                if part is not None:
                    pieces.append(part)
            out_RTHD.append(torch.cat(pieces, dim=1))
        return torch.cat(out_RTHD)


def at_spans(tensor_RHTD: Tensor, spans: tuple[tuple[int, int], ...]) -> Tensor:
    """Places of some (start, end), one after the other; without a copy if they are one stretch."""
    if all(a[1] == b[0] for a, b in pairwise(spans)):
        return tensor_RHTD[:, :, spans[0][0] : spans[-1][1]]
    return torch.cat([tensor_RHTD[:, :, a:b] for a, b in spans], dim=2)
