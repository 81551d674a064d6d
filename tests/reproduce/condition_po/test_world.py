"""Rows of a seed."""

from __future__ import annotations

import pytest

from prefopt.reproduce.condition_po.world import quick, rows_of, samples_behind


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("kind", ["conditions", "images"])
def test_seeds_have_pictures_of_their_own_whatever_follows_them(kind):
    first, second = (rows_of(kind, seed, quick(2)) for seed in range(2))
    assert len(first) == len(second) == quick(2).rows
    assert not {row["id"] for row in first} & {row["id"] for row in second}
    assert rows_of(kind, 0, quick(1)) == first


def test_samples_of_rows_that_came_to_nothing_count():
    rows = [{"id": "train-2"}, {"id": "train-3"}, {"id": "train-7"}]
    assert samples_behind(rows, 1) == 6
    assert samples_behind(rows, 3) == 18
