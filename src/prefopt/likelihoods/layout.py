"""Which tokens of a batch are laid out where: shared prefixes, and several groups to a row. Pure host arithmetic.

Sequences that begin alike are read once up to where they part. A *group* is such a tree of sequences, written depth
first: a token's descendants are an unbroken stretch right after it, so one number a token, the index where its last
descendant ends (`until`), says who may look at it:

    q sees k   if and only if   k <= q < until[k]

    sequences  a b c d     group   a  b  c  d  e        q = e sees a, b and itself, not c and d
               a b e       until   5  5  4  4  5
                           depth   0  1  2  3  2

The same rule keeps groups apart that are packed into one row. A group of one sequence is a plain causal row.

Sharing is not free: a row's attention is computed over all its places, so a token costs 1 + T / QUADRATIC in a row
of T (`cost`), and sequences are joined only where that makes the batch cheaper.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from typing import Literal

import numpy as np

Sharing = Literal["shared", "packed", "plain"]
"""Prefixes shared and groups packed; only packed; one sequence a row."""

UNLIMITED = 2**30
MOST_IN_A_ROW = 4  # rows grow to so many times their least length, if that pads less
WORTHWHILE = 0.05  # a join must save this share of the smaller group's tokens, or rows only grow uneven


@dataclass(frozen=True, slots=True)
class Row:
    """One row of tokens.

    Attributes:
        ids: token ids, without padding.
        depth: place of each token within its own sequence.
        until: index within the row where the descendants of each token end.
    """

    ids: list[int]
    depth: list[int]
    until: list[int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows, and the way of each sequence through its row.

    Attributes:
        rows: without padding.
        row_of: row of each sequence.
        path_of: places of each sequence's tokens within its row.
    """

    rows: list[Row]
    row_of: list[int]
    path_of: list[list[int]]

    @property
    def width(self) -> int:
        """Places of a row once padded."""
        return max(len(row.ids) for row in self.rows)

    @property
    def causal(self) -> bool:
        """Whether every row is one sequence, which plain causal attention reads."""
        return len(self.rows) == len(self.row_of)


def lay_out(
    sequences: Sequence[array[int]],
    sharing: Sharing,
    hidden: int,
    longest: int = UNLIMITED,
    kinds: Sequence[int] | None = None,
) -> Layout:
    """The cheapest layout found for sequences of tokens.

    Args:
        sequences: token ids, none empty.
        sharing: what the model allows.
        hidden: width of the model, which says when attention's quadratic part begins to count.
        longest: most places of a row (a sequence alone may have more).
        kinds: only sequences of one kind share a prefix; None: all are of one.

    Example:
        >>> from array import array
        >>> layout = lay_out([array("i", [1, 2, 3, 4]), array("i", [1, 2, 5])], "shared", hidden=64)
        >>> layout.rows[0].ids, layout.path_of[1]
        ([1, 2, 3, 4, 5], [0, 1, 4])
    """
    alone = [[n] for n in range(len(sequences))]
    groups = grouped(sequences, hidden, longest, kinds) if sharing == "shared" else alone
    trees = [Tree.of(group, sequences) for group in groups]
    lengths = [len(tree.ids) for tree in trees]
    bins = [[t] for t in range(len(trees))] if sharing == "plain" else packed(lengths, hidden, longest)
    rows: list[Row] = []
    row_of, path_of = [0] * len(sequences), [list[int]()] * len(sequences)
    for trees_of_row in bins:
        row = Row([], [], [])
        for t in trees_of_row:
            tree, start = trees[t], len(row.ids)
            row.ids.extend(tree.ids)
            row.depth.extend(tree.depth)
            row.until.extend(start + end for end in tree.until)
            for n, path in tree.paths.items():
                row_of[n], path_of[n] = len(rows), [start + place for place in path]
        rows.append(row)
    return Layout(rows, row_of, path_of)


@dataclass(frozen=True, slots=True)
class Tree:
    """A group written depth first; `paths` lead each of its sequences through it."""

    ids: list[int]
    depth: list[int]
    until: list[int]
    paths: dict[int, list[int]]

    @classmethod
    def of(cls, group: Sequence[int], sequences: Sequence[array[int]]) -> Tree:
        """Write a group of sequences, given in sorted order, so that those which part late are neighbours."""
        ids: list[int] = []
        depth: list[int] = []
        until: list[int] = []
        paths: dict[int, list[int]] = {}
        path: list[int] = []  # open places, from the root
        for k, n in enumerate(group):
            sequence = sequences[n]
            shared = common_prefix(sequences[group[k - 1]], sequence) if k else 0
            for place in path[shared:]:
                until[place] = len(ids)
            path = path[:shared] + list(range(len(ids), len(ids) + len(sequence) - shared))
            ids += sequence[shared:]
            depth += range(shared, len(sequence))
            until += [0] * (len(sequence) - shared)
            paths[n] = list(path)
        for place in path:
            until[place] = len(ids)
        return cls(ids, depth, until, paths)


def grouped(
    sequences: Sequence[array[int]],
    hidden: int,
    longest: int = UNLIMITED,
    kinds: Sequence[int] | None = None,
) -> list[list[int]]:
    """Groups worth sharing, each in sorted order and of one kind, in the order of their first sequence.

    Sorted sequences have their longest common prefix with a neighbour; the longest are joined first.
    """
    kind = [0] * len(sequences) if kinds is None else kinds
    order = sorted(range(len(sequences)), key=lambda n: (kind[n], sequences[n], n))
    group_of = list(range(len(order)))  # by place in the order
    members = [[n] for n in order]
    tokens = [len(sequences[n]) for n in order]
    prefixes = [
        common_prefix(sequences[a], sequences[b]) if kind[a] == kind[b] else 0 for a, b in pairwise(order)
    ]
    for k in sorted(range(len(prefixes)), key=lambda k: -prefixes[k]):
        a, b, saved = group_of[k], group_of[k + 1], prefixes[k]
        joined = tokens[a] + tokens[b] - saved
        if saved < WORTHWHILE * min(tokens[a], tokens[b]) or joined > longest:
            continue
        if cost(joined, hidden) >= cost(tokens[a], hidden) + cost(tokens[b], hidden):
            continue
        members[a] += members[b]  # neighbours: the order within a group stays sorted
        tokens[a] = joined
        for place in range(k + 1, len(order)):
            if group_of[place] != b:
                break
            group_of[place] = a
    return sorted((members[g] for g in sorted(set(group_of))), key=min)


def packed(lengths: Sequence[int], hidden: int, longest: int = UNLIMITED) -> list[list[int]]:
    """Groups to rows, so that the batch is cheapest once rows are padded to the longest of them.

    For a number of rows, groups go longest first to the row that is shortest so far. More rows than the longest group's
    length needs only add padding; fewer make longer rows, which pad less and attend more.
    """
    order = sorted(range(len(lengths)), key=lambda n: (-lengths[n], n))
    needed = -(-sum(lengths) // max(lengths))  # rows of the longest group's length
    best = [[n] for n in range(len(lengths))]
    least = float("inf")
    for count in range(max(1, needed // MOST_IN_A_ROW), min(len(lengths), 2 * needed) + 1):
        rows: list[list[int]] = [[] for _ in range(count)]
        filled = [(0, r) for r in range(count)]
        for n in order:
            used, r = heappop(filled)
            rows[r].append(n)
            heappush(filled, (used + lengths[n], r))
        width = max(used for used, _ in filled)
        total = count * cost(width, hidden)
        if total < least and width <= max(longest, lengths[order[0]]):
            best, least = rows, total
    return best


def cost(length: int, hidden: int) -> float:
    """Cost of a row in units of a token's matrix products.

    A layer's products take about 24 hidden^2 operations a token (4 attention products and a feed-forward part of
    8 hidden^2 weights, twice each), attention over T places 4 hidden T.
    """
    return length * (1 + length / (6 * hidden))


def common_prefix(a: array[int], b: array[int]) -> int:
    """Length of the longest common start of two sequences."""
    shorter = min(len(a), len(b))
    if not shorter:
        return 0
    differs = np.frombuffer(a, np.int32, shorter) != np.frombuffer(b, np.int32, shorter)
    first = int(differs.argmax())
    return first if differs[first] else shorter
