"""Rows of shared and packed sequences: every sequence is found along its path, and sees its own tokens alone."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefopt.likelihoods.layout import common_prefix, cost, grouped, lay_out, packed

token = st.integers(0, 2)  # few, so that sequences often begin alike
sequences = st.lists(st.lists(token, min_size=1, max_size=9), min_size=1, max_size=8)
WIDE = 2**20  # a model so wide that attention costs nothing: all sharing pays


def arrays(lists):
    return [array("i", ids) for ids in lists]


@given(sequences, st.sampled_from(["shared", "packed", "plain"]), st.sampled_from([1, 64, WIDE]))
def test_every_sequence_along_its_path(lists, sharing, hidden):
    layout = lay_out(arrays(lists), sharing, hidden)
    for n, ids in enumerate(lists):
        row, path = layout.rows[layout.row_of[n]], layout.path_of[n]
        assert [row.ids[place] for place in path] == ids
        assert [row.depth[place] for place in path] == list(range(len(ids)))
        for step, q in enumerate(path):
            seen = [k for k in range(len(row.ids)) if k <= q < row.until[k]]
            assert seen == path[: step + 1]


@given(sequences, st.sampled_from(["shared", "packed", "plain"]))
def test_nothing_is_laid_out_for_nothing(lists, sharing):
    layout = lay_out(arrays(lists), sharing, WIDE)
    on_paths = {(layout.row_of[n], place) for n in range(len(lists)) for place in layout.path_of[n]}
    assert len(on_paths) == sum(len(row.ids) for row in layout.rows)
    assert layout.width <= sum(map(len, lists))
    if sharing != "shared":
        assert len(on_paths) == sum(map(len, lists))


def test_prompts_are_read_once():
    lists = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 4, 7], [9, 9]]
    layout = lay_out(arrays(lists), "shared", WIDE)
    assert (
        sum(len(row.ids) for row in layout.rows) == 3 + 1 + 1 + 1 + 1 + 2
    )  # 1 2 3, then 4, 5, 7, 6; and 9 9
    assert lay_out(arrays(lists), "plain", WIDE).causal
    assert not layout.causal


def test_a_joined_row_must_be_cheaper():
    """A long row's attention may cost more than reading a short prefix twice."""
    head = [5] * 20
    long = [head + list(range(100 * k, 100 * k + 180)) for k in (1, 4)]
    assert len(grouped(arrays(long), hidden=64)) == 2
    assert len(grouped(arrays(long), hidden=WIDE)) == 1
    assert cost(380, 64) > 2 * cost(200, 64)


def test_a_shared_beginning_too_short_to_matter():
    lists = [[5, *range(10, 110)], [5, *range(200, 300)]]
    assert len(grouped(arrays(lists), hidden=WIDE)) == 2


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.sampled_from([4, 64, WIDE]))
def test_packing(lengths, hidden):
    rows = packed(lengths, hidden)
    assert sorted(n for row in rows for n in row) == list(range(len(lengths)))
    assert all(rows)

    def work(rows):
        return len(rows) * cost(max(sum(lengths[n] for n in row) for row in rows), hidden)

    assert work(rows) <= work([[n] for n in range(len(lengths))]) + 1e-9


def test_longer_rows_where_they_pad_less():
    lengths = [255, 244, 194, 173]
    assert len(packed(lengths, WIDE)) == 1
    assert [sum(lengths[n] for n in row) for row in packed(lengths, WIDE, longest=500)] == [428, 438]
    assert len(packed(lengths, WIDE, longest=100)) == 4  # what is longer stays alone
    assert len(packed(lengths, hidden=8)) == 4  # there attention would cost more than padding does


def test_equal_rows_stay_alone():
    assert packed([60] * 6, hidden=64) == [[n] for n in range(6)]


@pytest.mark.parametrize(
    ("a", "b", "length"),
    [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 4], [1, 2, 3], 2), ([2], [1], 0), ([7], [7], 1)],
)
def test_common_prefix(a, b, length):
    assert common_prefix(array("i", a), array("i", b)) == length
