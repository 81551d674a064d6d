"""Places of an anchor among distractors: the published vectors, and slots that are used evenly."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from longvpo_vectors import each
from prefopt.modalities.vision_language.video.interleaving import (
    interleaved,
    spans_of,
    stratified_slots,
)

WRONG = {
    "position must be in [0, n_distractors]": r"slot 2 with 1 distractors.*in \[0, 1\]",
    "anchor among distractors": "anchor A is among the distractors",
    "clip without frames": "clip 0 has 0 frames",
}


@each("interleave", 8)
def test_vectors(given, expected):

    def made():
        order = interleaved(given["anchor"], given["distractors"], given["position"])
        return order, spans_of([given["frames"][name] for name in order], given["position"])

    if "error" in expected:
        with pytest.raises(ValueError, match=WRONG[expected["error"]]):
            made()
        return
    order, spans = made()
    assert order == expected["order"]
    assert [list(span) for span in spans.spans] == expected["spans"]
    assert list(spans.anchor) == expected["anchor_span"]
    assert spans.total == expected["total_frames"]
    assert spans.relative_center == pytest.approx(expected["relative_center"], rel=1e-12)


@pytest.mark.parametrize(("count", "slots"), [(1, 4), (7, 4), (64, 8), (65, 8), (10, 1)])
def test_each_slot_is_used_evenly(count, slots):
    found = stratified_slots([f"r{n}" for n in range(count)], slots, seed=3)
    used = Counter(found.values())
    assert set(found) == {f"r{n}" for n in range(count)}
    assert {used[slot] for slot in range(slots)} <= {count // slots, -(-count // slots)}


def test_slots_follow_from_seed_epoch_and_ids_and_not_from_their_order():
    ids = [f"r{n}" for n in range(50)]
    found = stratified_slots(ids, 8, 1, 2)
    assert stratified_slots(ids[::-1], 8, 1, 2) == found
    assert stratified_slots(ids, 8, 1, 3) != found
    assert stratified_slots(ids, 8, 2, 2) != found


def test_over_epochs_every_example_stands_everywhere_and_no_slot_is_favoured():
    ids, slots, epochs = [f"r{n}" for n in range(10)], 4, 400
    drawn = [stratified_slots(ids, slots, 0, epoch) for epoch in range(epochs)]
    for name, slot in product(ids, range(slots)):  # mean 100, standard deviation 8.7
        assert abs(sum(found[name] == slot for found in drawn) - epochs / slots) < 45
    over = Counter(slot for found in drawn for slot in range(slots) if list(found.values()).count(slot) == 3)
    assert all(abs(over[slot] - epochs / 2) < 50 for slot in range(slots))  # mean 200, standard deviation 10


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="'b' stands there twice"):
        stratified_slots(["a", "b", "b"], 2, 0)
    with pytest.raises(ValueError, match="slots is 0"):
        stratified_slots(["a"], 0, 0)
    with pytest.raises(ValueError, match="clip 2 of 2"):
        spans_of([1, 1], 2)
