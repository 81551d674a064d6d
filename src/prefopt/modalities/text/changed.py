"""Tokens in which the two answers of a comparison differ: what objectives on corrected segments weigh (RLHF-V, arXiv 2312.00849)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from prefopt.comparisons import Encoded
from prefopt.config import ConfigError
from prefopt.likelihoods.plan import EncodedText

SHORTEST = 3
"""Tokens of a common run that counts as unchanged, as in the code derived from RLHF-V's."""


def changed_tokens(
    first: Sequence[int], second: Sequence[int], shortest: int = SHORTEST
) -> tuple[bytes, bytes]:
    """For each token of two sequences 1 where it belongs to no common run, else 0.

    Args:
        first: token ids.
        second: token ids.
        shortest: tokens that a common run must have.

    Example:
        >>> [list(of) for of in changed_tokens([1, 2, 3, 4, 9], [1, 2, 3, 7, 7])]
        [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    """
    changed = bytearray(b"\1" * len(first)), bytearray(b"\1" * len(second))
    # autojunk would take tokens that are frequent in long answers for noise
    for block in SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks():
        if block.size >= shortest:
            for of, start in zip(changed, (block.a, block.b), strict=True):
                of[start : start + block.size] = bytes(block.size)
    return bytes(changed[0]), bytes(changed[1])


def with_changed(examples: Sequence[Encoded[EncodedText]]) -> list[Encoded[EncodedText]]:
    """Mark in both ends of every comparison which tokens the other end has not.

    Raises:
        ConfigError: an answer is compared with several others, so that its changed tokens are not one set.
    """
    out = []
    for example in examples:
        items = list(example.items)
        for edge in example.comparisons:
            if edge.second is None:
                continue
            ends = edge.first, edge.second
            if any(items[k].changed is not None for k in ends):
                raise ConfigError(
                    f"row {example.id} compares one answer with several others, and this objective weighs the tokens in which "
                    "two answers differ: give rows with one pair each, or take dpo"
                )
            first, second = (items[k].ids[items[k].start :] for k in ends)
            for k, changed in zip(ends, changed_tokens(first, second), strict=True):
                items[k] = replace(items[k], changed=changed)
        out.append(replace(example, items=tuple(items)))
    return out
