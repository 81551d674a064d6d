"""Which examples make up which step, and which process sees them."""

from __future__ import annotations

import math

import pytest

from prefopt.sources.schedule import Schedule, cut_by_count, cut_by_width, shares


def schedule(**given) -> Schedule:
    usual = {
        "n_examples": 10, "per_device": 2, "accumulation": 2, "processes": 1, "epochs": 3.0, "max_steps": None,
        "seed": 0,
    }  # fmt: skip
    return Schedule(**{**usual, **given})


def epoch(s: Schedule, number: int) -> list[int]:
    first = number * s.steps_per_epoch
    return [i for step in range(first, first + s.steps_per_epoch) for i in s.examples(step)]


def test_every_pass_sees_every_example_once():
    s = schedule()
    assert [len(s.examples(step)) for step in range(s.steps)] == [4, 4, 2] * 3
    for number in range(3):
        assert sorted(epoch(s, number)) == list(range(10))


def test_every_pass_has_its_own_order():
    s = schedule(n_examples=50)
    orders = [
        epoch(s, 0),
        epoch(s, 1),
        epoch(s, 2),
        epoch(schedule(n_examples=50, seed=1), 0),
        list(range(50)),
    ]
    assert len({tuple(order) for order in orders}) == 5
    assert epoch(s, 1) == epoch(schedule(n_examples=50, epochs=9.0), 1)  # a function of seed and pass alone


@pytest.mark.parametrize(
    ("per_device", "accumulation", "processes"), [(4, 2, 1), (4, 1, 2), (1, 4, 2), (2, 2, 2)]
)
def test_a_step_does_not_depend_on_how_it_is_shared(per_device, accumulation, processes):
    whole = schedule(n_examples=30, per_device=8, accumulation=1)
    cut = schedule(n_examples=30, per_device=per_device, accumulation=accumulation, processes=processes)
    assert (cut.step_size, cut.steps_per_epoch, cut.steps) == (8, 4, 12)
    assert [cut.examples(step) for step in range(12)] == [whole.examples(step) for step in range(12)]


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"epochs": 1.0}, 3),
        ({"epochs": 1.5}, 5),  # 4.5 steps
        ({"epochs": 0.01}, 1),
        ({"max_steps": 7}, 7),
        ({"max_steps": 100}, 100),  # also beyond the passes asked for
        ({"n_examples": 3}, 3),
        ({"n_examples": 8, "epochs": 1.0}, 2),
    ],
)
def test_number_of_steps(given, steps):
    assert schedule(**given).steps == steps


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("n", [0, 1, 4, 5, 7, 12])
def test_shares_are_even_and_complete(n, processes):
    items = list(range(100, 100 + n))
    parts = [shares(cut_by_count(items, 2), rank, processes) for rank in range(processes)]
    assert len({len(batches) for batches in parts}) == 1  # processes meet after every batch
    assert all(len(batch) <= 2 for batches in parts for batch in batches)
    assert len(parts[0]) == math.ceil(
        math.ceil(n / 2) / processes
    )  # and there are no more meetings than needed
    # in turns: first batch to the first process, second to the second, ...
    turns = [batches[k] for k in range(len(parts[0])) for batches in parts]
    assert [item for batch in turns for item in batch] == items


@pytest.mark.parametrize("most", [1, 5, 9, 100])
def test_batches_of_a_summed_width(most):
    widths = [3, 1, 8, 2, 2, 5, 1]
    batches = cut_by_width(widths, most, lambda x: x)
    assert sorted(x for batch in batches for x in batch) == sorted(widths)
    assert all(sum(batch) <= most or len(batch) == 1 for batch in batches)
    assert [x for batch in batches for x in batch] == sorted(widths, reverse=True)
    assert cut_by_width([], most, lambda x: x) == []
