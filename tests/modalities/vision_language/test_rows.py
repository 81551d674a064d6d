"""Rows with pictures: whose pictures, in which places, and what is dropped."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modalities.image.image_runs import picture, png
from modalities.vision_language.vision_runs import rows_of, said
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.prompts import MARK, marks
from prefopt.modalities.vision_language.rows import Wanted, load_pictured
from prefopt.objectives import Branch
from prefopt.sources.pictures import as_ref

ONE, TWO = png(picture(1)), png(picture(2))
PAIR = {"prompt": "what is it ?", "chosen": "a cat", "rejected": "a dog"}


def digests(*given: Any) -> tuple[str, ...]:
    return tuple(Picture(as_ref(one, "picture")).digest for one in given)


def only(rows: list[dict[str, Any]], **wanted: Any) -> Any:
    found = load_pictured(rows, wanted=Wanted(**wanted)) if wanted else load_pictured(rows)
    (example,) = found.examples
    return example


def seen(item: Any) -> tuple[str, ...]:
    return tuple(picture.digest for picture in item.condition.get("pictures", ()))


FORMS = {
    "bytes": ONE,
    "datasets": {"bytes": ONE, "path": None},
    "list": [ONE],
    "pil": Image.open(io.BytesIO(ONE)),
    "array": np.array(Image.open(io.BytesIO(ONE))),
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("column", ["image", "images"])
def test_pictures_in_any_form(form, column):
    item = only([{**PAIR, column: FORMS[form]}]).items[0]
    assert item.condition["pictures"][0].image().size == (42, 40)
    assert item.condition["prompt"] == f"{MARK}\nwhat is it ?"
    if form in ("bytes", "datasets", "list"):
        assert seen(item) == digests(ONE)


def test_paths_start_at_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(ONE)
    (tmp_path / "rows.jsonl").write_text(json.dumps({**PAIR, "images": ["a.png"]}) + "\n")
    (example,) = load_pictured(tmp_path / "rows.jsonl").examples
    assert seen(example.items[0]) == seen(example.items[1]) == digests(ONE)


def test_datasets_columns_stay_on_disk(tmp_path):
    from datasets import Dataset, Features, List, Value
    from datasets import Image as Feature

    texts = {name: Value("string") for name in PAIR}
    table = Dataset.from_list(
        [{**PAIR, "images": [{"bytes": ONE, "path": None}, {"bytes": TWO, "path": None}]}],
        features=Features({**texts, "images": List(Feature())}),
    )
    (example,) = load_pictured(table).examples
    first, second = example.items[0].condition["pictures"]
    assert np.array_equal(np.array(first.image()), np.array(Image.open(io.BytesIO(ONE))))
    assert np.array_equal(np.array(second.image()), np.array(Image.open(io.BytesIO(TWO))))
    assert not isinstance(first.ref.source, bytes)


def test_several_pictures_have_places_of_their_own():
    row = {**PAIR, "images": [ONE, TWO], "prompt": "<image> and <image> differ ?"}
    item = only([row]).items[0]
    assert item.condition["prompt"] == f"{MARK} and {MARK} differ ?"
    assert seen(item) == digests(ONE, TWO)
    chat = {
        **row,
        "prompt": [{"role": "user", "content": "which ?"}],
        "chosen": said("one"),
        "rejected": said("two"),
    }
    item = only([chat]).items[0]
    assert item.condition["prompt"][0]["content"] == f"{MARK}{MARK}which ?"


def test_placeholders_are_words_where_there_is_no_picture():
    item = only([{**PAIR, "prompt": "what is <image> ?"}]).items[0]
    assert item.condition["prompt"] == "what is <image> ?"
    assert "pictures" not in item.condition


BLOCKS = {
    "bare": {"type": "image"},
    "bytes": {"type": "image", "image": ONE},
    "url": {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(ONE).decode()}"},
    },
    "base64": {"type": "image", "base64": base64.b64encode(ONE).decode()},
}


@pytest.mark.parametrize("block", list(BLOCKS))
def test_blocks_of_messages(block):
    prompt = [{"role": "user", "content": [{"type": "text", "text": "look"}, BLOCKS[block]]}]
    row = {"prompt": prompt, "chosen": said("a cat"), "rejected": said("a dog")}
    if block == "bare":
        row["images"] = [ONE]
    item = only([row]).items[0]
    assert seen(item) == digests(ONE)
    assert marks(item.condition["prompt"]) == MARK
    assert item.condition["prompt"][0]["content"][1] == {"type": "text", "text": MARK}


def test_a_conversation_told_twice_holds_its_pictures_once():
    start = [
        {"role": "user", "content": [{"type": "image", "image": ONE}, {"type": "text", "text": "what ?"}]}
    ]
    item = only([{"chosen": [*start, *said("a cat")], "rejected": [*start, *said("a dog")]}]).items[1]
    assert seen(item) == digests(ONE)
    assert item.sample == said("a dog")


@pytest.mark.parametrize(
    ("row", "reason", "told"),
    [
        (
            {**PAIR, "images": [ONE, TWO], "prompt": "<image> what ?"},
            "image_places",
            "1 image(s), and the row holds 2",
        ),
        ({**PAIR, "images": ["gone.png"]}, "missing_image", "no such file"),
        ({**PAIR, "images": [ONE[:60]]}, "broken_image", "damaged or cut short"),
        ({**PAIR, "images": ["http://a.b/c.png"]}, "wrong_type", "web address"),
        ({**PAIR, "images": [7]}, "wrong_type", "needed an image"),
        (
            {
                "prompt": [{"role": "user", "content": [{"type": "image", "base64": "?"}]}],
                "chosen": said("a"),
                "rejected": said("b"),
            },
            "broken_image",
            "not base64",
        ),
    ],
)
def test_rows_that_cannot_be_used(row, reason, told):
    good = {**PAIR, "images": [ONE]}
    (dropped,) = load_pictured([good, row]).dropped
    assert dropped.reason == reason
    assert told in dropped.detail


def test_pictures_of_a_side():
    example = only([{**PAIR, "rejected": PAIR["chosen"], "images": [ONE], "rejected_images": [TWO]}])
    assert [seen(item) for item in example.items] == [digests(ONE), digests(TWO)]
    assert example.items[0].sample == example.items[1].sample
    lost = only([{**PAIR, "chosen_images": [ONE], "rejected_images": [TWO], "label": "lose"}])
    assert [(item.sample, seen(item)) for item in lost.items] == [
        ("a dog", digests(TWO)),
        ("a cat", digests(ONE)),
    ]


def test_the_same_answer_under_the_same_picture_says_nothing():
    row = {**PAIR, "rejected": PAIR["chosen"], "chosen_images": [ONE], "rejected_images": [ONE]}
    (dropped,) = load_pictured([{**PAIR, "image": ONE}, row]).dropped
    assert dropped.reason == "identical_sides"


# -- other layouts -------------------------------------------------------------------------------------------


def test_ms_swift():
    messages = [{"role": "user", "content": "<image>what ?"}, {"role": "assistant", "content": "a cat"}]
    row = {"messages": messages, "rejected_response": "a dog", "images": [ONE]}
    example = only([row])
    assert [item.sample for item in example.items] == [said("a cat"), said("a dog")]
    assert example.items[0].condition["prompt"][0]["content"] == f"{MARK}what ?"
    other = only([{"messages": messages, "images": [ONE], "rejected_images": [TWO]}])
    assert [(item.sample, seen(item)) for item in other.items] == [
        (said("a cat"), digests(ONE)), (said("a cat"), digests(TWO)),
    ]  # fmt: skip


def test_llama_factory():
    row = {
        "conversations": [{"from": "human", "value": "<image>what ?"}],
        "chosen": {"from": "gpt", "value": "a cat"},
        "rejected": {"from": "gpt", "value": "a dog"},
        "images": [ONE],
    }
    item = only([row]).items[0]
    assert (item.sample, seen(item)) == (said("a cat"), digests(ONE))
    assert item.condition["prompt"] == [{"role": "user", "content": f"{MARK}what ?"}]


def test_rlhf_v():
    texts = {"question": "what ?", "chosen": "a cat", "rejected": "a dog"}
    example = only([{"ds_name": "x", "image": {"bytes": ONE, "path": "a.png"}, "text": json.dumps(texts)}])
    assert [item.sample for item in example.items] == ["a cat", "a dog"]
    assert seen(example.items[0]) == digests(ONE)


SYMMPO = {
    "c": Branch(condition="own", sample="contrast_chosen"),
    "cc": Branch(condition="contrast", sample="contrast_chosen"),
    "cw": Branch(condition="contrast", sample="chosen"),
}


def test_the_released_parquet_of_symmpo(tmp_path):
    from datasets import Dataset

    row = {
        "question": "what ?", "resp_1_w": "a cat", "resp_1_l": "a dog", "resp_2_w": "a tree", "resp_2_l": "a house",
        "image_1": {"bytes": ONE}, "image_2": {"bytes": TWO}, "image_path_1": "1.jpg", "image_path_2": "2.jpg",
        "origin_dataset": "vqa", "origin_split": "{}", "idx": 7, "logps": "[]",
    }  # fmt: skip
    Dataset.from_list([row]).to_parquet(tmp_path / "rows.parquet")
    found = load_pictured(tmp_path / "rows.parquet", wanted=Wanted(SYMMPO))
    (example,) = found.examples
    assert example.id == "7"
    edge = example.comparisons[0]
    told = {name: example.items[k] for name, k in {"w": 0, "l": 1, **edge.branches}.items()}
    assert {name: (item.sample, seen(item)) for name, item in told.items()} == {
        "w": ("a cat", digests(ONE)),
        "l": ("a dog", digests(ONE)),
        "c": ("a tree", digests(ONE)),
        "cc": ("a tree", digests(TWO)),
        "cw": ("a cat", digests(TWO)),
    }
    assert not [hint for hint in found.report.hints if "not read" in hint.text]


# -- branches ------------------------------------------------------------------------------------------------


def contrasting(folder: Path, **more: Any) -> dict[str, Any]:
    (row,) = rows_of(folder, 1, **more)
    return {**row, "images": [ONE], "contrast_image": TWO}


def test_branches_without_a_gradient_come_last(tmp_path):
    blank = Branch(condition="blank", sample="chosen", gradient=False, reference=False)
    example = only([contrasting(tmp_path)], branches={"blank": blank, **SYMMPO})
    assert dict(example.comparisons[0].branches) == {"c": 2, "cc": 3, "cw": 4, "blank": 5}
    assert example.items[5].condition["pictures"][0].change == "blank"


@pytest.mark.parametrize("change", ["crop", "black", "mask", "noise"])
def test_contrast_pictures_that_are_made(change, tmp_path):
    made = {"cw": SYMMPO["cw"]}
    row = {k: v for k, v in contrasting(tmp_path).items() if not k.startswith("contrast")}
    items = [only([row], branches=made, contrast=change, seed=seed).items[2] for seed in (1, 1, 2)]
    assert items[0].condition["pictures"][0].change == change
    assert seen(items[0]) == seen(items[1]) != seen(items[2])
    assert seen(items[0]) != digests(ONE)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"contrast_image": ONE}, "identical_images"),
        ({"contrast_chosen": said("a red cat sits")}, "identical_answers"),
        ({"contrast_chosen": None}, "missing_value"),
        ({"contrast_chosen": said(" ")}, "empty_side"),
        ({"contrast_image": None}, "missing_value"),
        ({"images": []}, "missing_value"),
        ({"label": "tie"}, "not_decided"),
    ],
)
def test_rows_without_a_contrast(more, reason, tmp_path):
    good = contrasting(tmp_path)
    found = load_pictured([good, {**good, "id": "bad", **more}], wanted=Wanted(SYMMPO))
    (dropped,) = found.dropped
    assert dropped.reason == reason


def test_columns_that_an_objective_needs_are_named(tmp_path):
    row = {k: v for k, v in contrasting(tmp_path).items() if not k.startswith("contrast")}
    with pytest.raises(
        ValueError, match=r"no column contrast_chosen, contrast_image.*prefopt build contrast"
    ):
        load_pictured([row], wanted=Wanted(SYMMPO))


def test_many_equal_answers_are_told(tmp_path):
    good = contrasting(tmp_path)
    rows = [{**good, "id": str(n)} for n in range(5)] + [
        {**good, "id": "x", "contrast_chosen": good["chosen"]}
    ]
    hints = load_pictured(rows, wanted=Wanted(SYMMPO)).report.hints
    assert "1 row(s) have the same answer for both images, and were dropped" in [hint.text for hint in hints]


def test_without_a_losing_answer_the_contrasting_one_stands_there(tmp_path):
    row = contrasting(tmp_path)
    del row["rejected"]
    example = only([row], branches=SYMMPO, reads_loser=False)
    assert example.items[1].sample == row["contrast_chosen"]
    with pytest.raises(ValueError, match="rejected"):
        load_pictured([row], wanted=Wanted(SYMMPO))


def test_answers_that_mislead_stand_under_both_pictures(tmp_path):
    misled = {"misled": Branch(condition="own", sample="misled")}
    item = only([contrasting(tmp_path)], branches=misled).items[2]
    assert seen(item) == digests(ONE)
    assert tuple(p.digest for p in item.condition["misled_by"]) == digests(TWO)


def test_an_instruction_beside_the_pair(tmp_path):
    aux = {"aux": Branch(condition="auxiliary", sample="auxiliary", reference=False)}
    row = contrasting(
        tmp_path, auxiliary_prompt="describe <image>", auxiliary_response="a house", auxiliary_image=TWO
    )
    item = only([row], branches=aux).items[2]
    assert (item.sample, seen(item), item.condition["prompt"]) == (
        "a house",
        digests(TWO),
        f"describe {MARK}",
    )


def test_audio_is_refused():
    with pytest.raises(ValueError, match="'audio' is filled"):
        load_pictured([{**PAIR, "image": ONE, "audio": "a.wav"}])


def test_a_third_answer_stands_under_the_winners_picture() -> None:
    gold = {"reference": Branch(condition="own", sample="reference", reference=False)}
    row = {**PAIR, "chosen_image": ONE, "rejected_image": TWO, "reference": "a grey cat"}
    example = only([row], branches=gold)
    assert [item.sample for item in example.items] == ["a cat", "a dog", "a grey cat"]
    assert [seen(item) for item in example.items] == [digests(ONE), digests(TWO), digests(ONE)]
    assert example.comparisons[0].branches == {"reference": 2}
    lost = only([{**row, "label": "lose"}], branches=gold)
    assert [seen(item) for item in lost.items] == [digests(TWO), digests(ONE), digests(TWO)]
    both = gold | {"c": Branch(condition="contrast", sample="chosen")}
    more = only([{**PAIR, "image": ONE, "contrast_image": TWO, "reference": "a grey cat"}], branches=both)
    assert more.comparisons[0].branches == {"reference": 2, "c": 3}
    assert seen(more.items[3]) == digests(TWO)
    with pytest.raises(ValueError, match="has no column reference"):
        only([{**PAIR, "image": ONE}], branches=gold)
