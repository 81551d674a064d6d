"""Rows without all of their answers, in the layouts of other tools; prompts written as they were read."""

from __future__ import annotations

from typing import Any

import pytest

from modalities.image.image_runs import picture, png, rotten
from prefopt.modalities.vision_language.building.seeds import in_form_of, load_seeds, words_of, written_prompt
from prefopt.modalities.vision_language.prompts import MARK
from prefopt.modalities.vision_language.rows import load_pictured

IMAGE, OTHER = png(picture(0)), png(picture(1))
USER = [{"role": "user", "content": "What is it?"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def one(row: dict[str, Any]) -> Any:
    (seed,) = load_seeds([row]).found
    return seed


def test_a_prompt_and_a_picture_are_enough():
    for row in (
        {"prompt": "What is it?", "image": IMAGE},
        {"prompt": "What is it?", "images": [IMAGE]},
        {"question": "What is it?", "image": IMAGE, "id": "a"},
        {"prompt": USER, "images": [IMAGE]},
        {"prompt": [{"role": "user", "content": [{"type": "image", "image": IMAGE}, {"type": "text", "text": "What is it?"}]}]},
    ):  # fmt: skip
        seed = one(row)
        assert (seed.chosen, seed.rejected, seed.contrast, seed.objects) == (None, None, (), None)
        assert [p.ref.read() for p in seed.pictures] == [IMAGE]
        assert words_of(seed.prompt) == "What is it?"
        assert seed.id == row.get("id", "row-1")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What is it?", "chosen": "A cat.", "rejected": "A dog.", "image": IMAGE},
        {"prompt": USER, "chosen": said("A cat."), "rejected": said("A dog."), "images": [IMAGE]},
        {"messages": [*USER, *said("A cat.")], "rejected_response": "A dog.", "images": [IMAGE]},
        {"text": '{"question": "What is it?", "chosen": "A cat.", "rejected": "A dog."}', "image": IMAGE},
        {
            "conversations": USER,
            "chosen": said("A cat.")[0],
            "rejected": said("A dog.")[0],
            "images": [IMAGE],
        },
    ],
)
def test_pairs_are_what_training_reads(row):
    seed = one(row)
    (example,) = load_pictured([row])
    assert (seed.chosen, seed.rejected) == tuple(item.sample for item in example.items)
    assert seed.condition | {"pictures": seed.pictures} == example.items[0].condition


def test_symmpos_own_columns_are_read():
    row = {
        "question": "What is it?", "resp_1_w": "A cat.", "resp_1_l": "A dog.", "resp_2_w": "A hat.", "resp_2_l": "A bat.",
        "image_1": IMAGE, "image_2": OTHER, "idx": 7,
    }  # fmt: skip
    seed = one(row)
    assert (seed.chosen, seed.rejected, seed.contrast_chosen, seed.contrast_rejected) == (
        "A cat.", "A dog.", "A hat.", "A bat.",
    )  # fmt: skip
    assert seed.contrast[0].ref.read() == OTHER
    assert seed.id == "7"


def test_one_answer_is_kept_and_single_samples_go_by_their_label():
    assert one({"prompt": USER, "chosen": "A cat.", "image": IMAGE}).chosen == said("A cat.")
    for label in (True, False):
        seed = one({"prompt": "What?", "completion": "A cat.", "label": label, "image": IMAGE})
        assert (seed.chosen, seed.rejected) == (("A cat.", None) if label else (None, "A cat."))


def test_objects_are_sets_of_names():
    row = {"prompt": "What?", "image": IMAGE, "objects": ["Cat", "dog ", "cat"]}
    assert one(row).objects == frozenset({"cat", "dog"})
    with pytest.raises(ValueError, match=r"objects is 'cat' .str.; needed a list of names"):
        load_seeds([row | {"objects": "cat"}])


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"image": None}, "missing_value"),
        ({"image": b"nothing"}, "broken_image"),
        ({"prompt": None}, "no_prompt"),
        ({"chosen": "a", "rejected": "b", "votes": [0, 0, 1]}, "not_decided"),
        ({"chosen": "a", "rejected": "a"}, "identical_sides"),
        (
            {"chosen": "a", "rejected": "b", "chosen_images": [IMAGE], "rejected_images": [OTHER]},
            "side_images",
        ),
    ],
)
def test_rows_that_cannot_be_used_say_why(more, reason):
    good = {"prompt": "What?", "image": IMAGE}
    seeds = load_seeds([good, {**good, **more}])
    assert [seed.id for seed in seeds.found] == ["row-1"]
    assert [drop.reason for drop in seeds.dropped] == [reason]
    assert seeds.rows == 2


def test_damage_in_the_middle_is_found_later():
    assert one({"prompt": "What?", "image": rotten(IMAGE)})


def test_columns_that_are_absent_are_named():
    with pytest.raises(ValueError, match="has the columns promt, image; needed prompt"):
        load_seeds([{"promt": "What?", "image": IMAGE}])


def test_a_limit_takes_the_first():
    rows = [{"prompt": f"What {n}?", "image": IMAGE} for n in range(4)]
    assert [seed.id for seed in load_seeds(rows, limit=2).found] == ["row-1", "row-2"]


@pytest.mark.parametrize(
    "prompt",
    [
        "What is it?",
        "<image>\nWhat is it?",
        "Look: <image> What is it?",
        USER,
        [{"role": "user", "content": "<image>\nWhat is it?"}],
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
        [{"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image"}, {"type": "text", "text": "!"}]}],
        [{"role": "system", "content": "Be brief."}, *USER],
    ],
)  # fmt: skip
def test_a_written_prompt_reads_back_to_the_same(prompt):
    seed = one({"prompt": prompt, "images": [IMAGE]})
    written = written_prompt(seed.prompt)
    assert MARK not in str(written)
    again = one({"prompt": written, "images": [IMAGE]})
    assert rendered(again.prompt) == rendered(seed.prompt)


def rendered(prompt: Any) -> Any:
    """As templates of vision-language models are given it."""
    from prefopt.modalities.vision_language.prompts import in_blocks

    return prompt if isinstance(prompt, str) else in_blocks(prompt)


def test_rows_ask_the_same_however_they_place_the_picture():
    asked = [
        {"prompt": "What?", "image": IMAGE},
        {"prompt": "<image>\nWhat?", "image": OTHER},
        {"prompt": "Who?", "image": IMAGE},
    ]
    first, second, third = load_seeds(asked).found
    assert first.asks == second.asks != third.asks


@pytest.mark.parametrize(("chosen", "expected"), [(" A cat.", " New."), ("A cat.", "New."), (None, "New.")])
def test_new_texts_begin_as_the_rows_own_do(chosen, expected):
    seed = one({"prompt": "What? ", "image": IMAGE, "chosen": chosen})
    assert in_form_of("New.", seed) == expected
    assert in_form_of(" New.", seed) == " New."
    assert in_form_of("New.", one({"prompt": USER, "image": IMAGE})) == said("New.")
