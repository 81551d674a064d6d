"""Differences between seeds."""

from __future__ import annotations

import pytest

from prefopt.reproduce.ties.frontier import (
    at_matched_kl,
)


def test_matched_kl_compares_only_where_both_frontiers_are():
    # ours: score = KL on [1, 3]; theirs: score = KL - 0.5 on [2, 4]; common range [2, 3]
    ours = {0.1: ([3.0], [3.0]), 1.0: ([1.0], [1.0])}
    theirs = {0.1: ([4.0], [3.5]), 1.0: ([2.0], [1.5])}
    assert at_matched_kl(ours, theirs) == pytest.approx([0.5])
    with pytest.raises(ValueError, match="widen"):
        at_matched_kl(ours, {0.1: ([9.0], [1.0]), 1.0: ([8.0], [1.0])})
