"""Rows of control comparisons: what they become, and what is told of those that cannot be used."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modalities.image.image_runs import picture, png, rotten
from prefopt.comparisons import LOSE, TIE, WIN
from prefopt.modalities.control.rows import load_conditions, load_control_comparisons, takes_columns

IMAGE, TRUE, WRONG = (png(picture(n)) for n in range(3))
ROW: dict[str, Any] = {
    "prompt": "a cat",
    "image": IMAGE,
    "chosen_condition": TRUE,
    "rejected_condition": WRONG,
}
PAIR: dict[str, Any] = {"prompt": "a cat", "chosen_image": TRUE, "rejected_image": WRONG, "condition": IMAGE}


def digests(row: dict[str, Any]) -> list[tuple[str, str]]:
    (example,) = load_control_comparisons([row]).examples
    return [(i.sample.digest, i.condition["control"].digest) for i in example.items]


def test_two_conditions_of_one_image():
    (example,) = load_control_comparisons([ROW]).examples
    assert example.comparisons[0].outcome == WIN
    (image, true), (same, wrong) = digests(ROW)
    assert image == same
    assert len({image, true, wrong}) == 3
    assert example.items[0].condition["prompt"] == "a cat"


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [("winner", "loser"), ("winner_canny", "loser_canny"), ("chosen_condition", "rejected_condition")],
)
def test_names_of_the_release(chosen, rejected):
    row = {"prompt": "a cat", "image": IMAGE, chosen: TRUE, rejected: WRONG}
    assert digests(row) == digests(ROW)
    assert takes_columns(row)


def test_two_images_under_one_condition():
    (first, control), (second, same) = digests(PAIR)
    assert control == same
    assert first != second
    assert takes_columns(PAIR)


def test_one_image_under_one_condition():
    row = {"prompt": "a cat", "image": IMAGE, "conditioning_image": TRUE}
    assert digests(row) == digests(ROW)[:1]
    assert takes_columns(row)
    liked, not_liked = load_control_comparisons([{**row, "label": good} for good in (True, False)]).examples
    assert (liked.comparisons[0].outcome, not_liked.comparisons[0].outcome) == (WIN, LOSE)
    assert liked.comparisons[0].second is None


def test_true_conditions_of_rows_of_any_kind():
    for row in (ROW, {"prompt": "a cat", "image": IMAGE, "condition": TRUE}):
        (one,) = load_conditions([row]).found
        assert (one.prompt, one.control.digest) == ("a cat", digests(ROW)[0][1])
        assert one.image is not None
        assert one.image.digest == digests(ROW)[0][0]
    (bare,) = load_conditions([{"text": "a cat", "winner_canny": TRUE, "loser_canny": WRONG}]).found
    assert bare.image is None


def test_a_condition_of_another_image_is_dropped():
    wide = {**ROW, "id": "wide", "chosen_condition": WIDE}
    found = load_conditions([ROW, wide])
    assert len(found.found) == 1
    assert [(d.id, d.reason) for d in found.dropped] == [("wide", "wrong_shape")]


def test_conditions_that_are_missing_are_named():
    with pytest.raises(ValueError, match=r"Missing: condition.*did you mean"):
        load_conditions([{"prompt": "a cat", "conditon": TRUE}])


def test_outcomes():
    tie = load_control_comparisons([{**ROW, "label": "tie"}]).examples[0]
    assert tie.comparisons[0].outcome == TIE
    assert digests({**ROW, "label": "lose"}) == digests(ROW)[::-1]


def test_other_rows_are_not_its_own():
    assert not takes_columns(["prompt", "chosen_image", "rejected_image"])
    assert not takes_columns(["prompt", "chosen", "rejected"])
    assert not takes_columns(["prompt", "image", "label"])


WIDE = png(Image.new("RGB", (80, 40)))


@pytest.mark.parametrize(
    ("changes", "reason", "told"),
    [
        ({"rejected_condition": TRUE}, "identical_sides", "both conditions are the same file"),
        ({"rejected_condition": None}, "missing_value", "rejected_condition is absent"),
        ({"chosen_condition": b"no picture"}, "broken_image", "chosen_condition"),
        ({"rejected_condition": rotten(WRONG)}, "broken_image", "rejected_condition"),
        ({"rejected_condition": WIDE}, "wrong_shape", "rejected_condition is 80 x 40 and image 42 x 40"),
        ({"prompt": " "}, "empty_prompt", "prompt is empty"),
        ({"image": "gone.png"}, "missing_image", "no such file"),
    ],
)
def test_a_row_that_cannot_be_used_is_dropped_with_a_reason(changes, reason, told):
    found = load_control_comparisons([ROW, {**ROW, **changes}], thorough=True)
    assert len(found) == 1
    (drop,) = found.dropped
    assert drop.reason == reason
    assert told in drop.detail


def test_a_smaller_condition_of_the_same_proportions_is_taken():
    assert (
        len(load_control_comparisons([{**ROW, "rejected_condition": png(picture(2).resize((21, 20)))}])) == 1
    )


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("chosen_condition", r"Missing: chosen_condition"),
        ("image", r"Missing: image"),
        ("prompt", r"Missing: prompt"),
    ],
)
def test_a_missing_column_is_named(missing, told):
    row = {k: v for k, v in ROW.items() if k != missing}
    with pytest.raises(ValueError, match=told):
        load_control_comparisons([row])


def test_the_true_condition_is_the_one_that_labels_and_votes_favour():
    rows = [
        {**ROW, "label": "lose"},
        {**ROW, "label": "win"},
        {**ROW, "votes": [3, 7, 0]},
        {**ROW, "votes": [7, 3, 0]},
        {**ROW, "label": "tie"},
    ]
    keyed = [{"label": None, "votes": None, **row} for row in rows]
    found = load_conditions(keyed)
    expected = [png(picture(n)) for n in (2, 1, 2, 1)]
    assert [one.control.read() for one in found.found] == expected
    assert [(drop.row, drop.reason) for drop in found.dropped] == [(5, "tie")]
    for without_losers in (True, False):  # the side to sample under is the first
        examples = load_control_comparisons(keyed, without_losers=without_losers).examples
        assert [e.items[0].condition["control"].read() for e in examples[:4]] == expected
        assert len(examples) == 5 - without_losers
    assert examples[2].comparisons[0].outcome == pytest.approx((0.7, 0.3, 0))


def test_conditions_of_images_that_are_not_good_are_no_true_ones():
    row = {"prompt": "a cat", "image": IMAGE, "condition": TRUE}
    found = load_conditions([{**row, "label": False}, {**row, "label": True}])
    assert [(one.row, one.id) for one in found.found] == [(2, "row-2")]
    assert [drop.reason for drop in found.dropped] == ["not_good"]


def test_class_ids_in_16_bits_do_not_become_black():
    def grey(step: int) -> bytes:
        levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * step
        return png(Image.fromarray(levels))

    row = {"prompt": "a cat", "image": png(picture(0).resize((8, 8)))}
    rows = [{**row, "condition": grey(step)} for step in (1, 1024)]
    for found in (load_conditions(rows), load_control_comparisons(rows)):
        assert [drop.reason for drop in found.dropped] == ["dark_16_bits"]
        assert "levels up to 63 of 65535" in found.dropped[0].detail
    sides = {"chosen_condition": grey(1024), "rejected_condition": grey(1)}
    with pytest.raises(ValueError, match="16 bits a pixel and levels up to 63"):
        load_control_comparisons([{**row, **sides}])


def test_control_images_that_one_can_see_through_are_refused():
    white = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    palette = Image.new("P", (8, 8))
    plain = [Image.new("RGBA", (8, 8), (255, 0, 0, 255)), palette, palette.convert("L")]
    row = {"prompt": "a cat", "image": png(picture(0).resize((8, 8)))}
    rows = [{**row, "condition": png(condition)} for condition in (white, *plain)]
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=0)
    rows.append({**row, "condition": file.getvalue()})
    for found in (load_conditions(rows), load_control_comparisons(rows)):
        assert [(drop.row, drop.reason) for drop in found.dropped] == [(1, "transparent"), (5, "transparent")]
