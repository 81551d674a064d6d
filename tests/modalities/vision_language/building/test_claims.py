"""Pairs by doubted claims, against the search done by hand."""

from __future__ import annotations

import random

import pytest

from prefopt.modalities.vision_language.building.claims import Pair, doubted, length_balanced, scored_pairs


def test_a_claim_is_doubted_where_no_is_likelier_than_yes():
    assert doubted([(0.6, 0.3), (0.3, 0.3), (0.1, 0.2), (0.0, 0.9)]) == -2
    assert doubted([]) == 0


def test_any_two_candidates_with_different_scores_make_a_pair():
    found = scored_pairs([("a", -1), ("b", 0), ("c", -1), ("d", -3), ("b", -3)])
    assert found == [
        Pair("b", "a"), Pair("a", "d"), Pair("a", "b"), Pair("b", "c"), Pair("b", "d"), Pair("c", "d"), Pair("c", "b"),
    ]  # fmt: skip


def test_the_ratio_with_the_smallest_gap_of_mean_lengths_is_taken():
    draw = random.Random(0)
    pairs = [Pair("x" * draw.randint(5, 60), "y" * draw.randint(40, 80)) for _ in range(200)]
    kept, ratio = length_balanced(pairs)

    def gap(least: float) -> float:
        left = [pair for pair in pairs if len(pair.chosen) / len(pair.rejected) >= least]
        if not left:
            return float("inf")
        chosen = sum(len(pair.chosen) for pair in left) / len(left)
        rejected = sum(len(pair.rejected) for pair in left) / len(left)
        return abs(chosen - rejected) / rejected

    gaps = [gap(step * 0.02) for step in range(51)]
    assert gap(ratio) == pytest.approx(min(gaps))
    assert 0 < ratio < 1.0001
    assert kept == [pair for pair in pairs if len(pair.chosen) >= ratio * len(pair.rejected)]
    assert len(kept) < len(pairs)


def test_balanced_pairs_stay():
    pairs = [Pair("abc", "abc"), Pair("abcd", "abcd")]
    assert length_balanced(pairs) == (pairs, 0.0)


@pytest.mark.parametrize("pairs", [[], [Pair("", "a")]])
def test_nothing_to_balance_is_an_error(pairs):
    with pytest.raises(ValueError, match=r"balance|empty"):
        length_balanced(pairs)
