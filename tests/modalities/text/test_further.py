"""A third answer of a row: where it is read, what is made of it, and what is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prefopt.comparisons import LOSE, Item
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.modalities.text.encoding import encode_examples
from prefopt.modalities.text.rows import load_comparisons
from prefopt.models.tokenizers import load_tokenizer
from prefopt.objectives import TPO

TEXT = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green.", "reference": " deep blue."}


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASK, BLUE, GREEN, DEEP = say("user", "Colour?"), *(say("assistant", x) for x in ("Blue.", "Green.", "Deep."))


def load(*rows: dict[str, Any]) -> Any:
    return load_comparisons(list(rows), branches=TPO().branches)


def only(row: dict[str, Any]) -> Any:
    (example,) = load(row).examples
    return example


def test_it_becomes_an_item_under_the_same_prompt() -> None:
    example = only(TEXT)
    assert [item.sample for item in example.items] == [" blue.", " green.", " deep blue."]
    assert all(item.condition == {"prompt": "The sky is"} for item in example.items)
    assert example.comparisons[0].branches == {"reference": 2}
    plain = load_comparisons([TEXT])
    assert len(plain.examples[0].items) == 2
    assert any("columns not read: reference" in hint.text for hint in plain.report.hints)
    assert not any("reference" in hint.text for hint in load(TEXT).report.hints)


def test_it_stays_where_a_lost_row_is_turned() -> None:
    example = only({**TEXT, "label": "lose"})
    assert [item.sample for item in example.items] == [" green.", " blue.", " deep blue."]
    assert example.comparisons[0].outcome != LOSE


@pytest.mark.parametrize("gold", [[DEEP], "Deep."])
def test_messages_and_a_text_beside_them(gold: Any) -> None:
    example = only({"prompt": [ASK], "chosen": [BLUE], "rejected": [GREEN], "reference": gold})
    assert example.items[2] == Item({"prompt": [ASK]}, [DEEP])


def test_an_implicit_prompt_is_cut_from_it_too() -> None:
    row = {"chosen": [ASK, BLUE], "rejected": [ASK, GREEN], "reference": [ASK, DEEP]}
    assert only(row).items[2] == Item({"prompt": [ASK]}, [DEEP])
    text = {"chosen": "The sky is blue.", "rejected": "The sky is green.", "reference": "The sky is deep."}
    assert only(text).items[2] == Item({"prompt": "The sky is"}, " deep.")


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({**TEXT, "reference": None}, "missing_value", "reference is absent"),
        ({**TEXT, "reference": ""}, "empty_side", "reference is empty"),
        ({**TEXT, "reference": [DEEP]}, "wrong_type", "chosen is text"),
        (
            {"prompt": None, "chosen": "It is blue.", "rejected": "It is green.", "reference": "Blue."},
            "no_prompt",
            "does not begin as chosen and rejected both do",
        ),
        (
            {"prompt": [ASK], "chosen": [BLUE], "rejected": [GREEN], "reference": [ASK, DEEP]},
            "prompt_repeated",
            "reference begins with the prompt's own messages",
        ),
        (
            {"prompt": None, "chosen": [ASK, BLUE], "rejected": [ASK, GREEN], "reference": [ASK]},
            "empty_side",
            "reference is empty after the start",
        ),
        (
            {"prompt": [ASK], "chosen": [BLUE], "rejected": [GREEN], "reference": [say("user", "Well?")]},
            "wrong_role",
            "reference begins with a message of the role 'user'",
        ),
    ],
)
def test_rows_without_a_third_answer_are_dropped(row: dict[str, Any], reason: str, detail: str) -> None:
    loaded = load(TEXT, TEXT, TEXT, row)
    assert len(loaded) == 3
    (drop,) = loaded.dropped
    assert drop.reason == reason
    assert detail in drop.detail


def test_a_missing_column_is_named_with_the_nearest() -> None:
    row = {key: value for key, value in TEXT.items() if key != "reference"}
    with pytest.raises(ValueError, match=r"no column reference.*rename_columns=\{NAME: reference\}"):
        load(row)
    with pytest.raises(ValueError, match="refernce"):
        load({**row, "refernce": " deep blue."})


def test_all_three_are_scored_from_one_place(tiny_model: Path) -> None:
    """The prompt's last letter merges with the beginning of the third answer."""
    tokenizer = load_tokenizer(str(tiny_model))
    likelihood = TokenLikelihood(tokenizer, max_length=64)
    row = {"prompt": "Count: re", "chosen": " two", "rejected": " one", "reference": "d red blue"}
    (encoded,) = encode_examples(load(row), likelihood, progress=False).examples
    assert len({item.start for item in encoded.items}) == 1
    assert len({tuple(item.ids[: item.start]) for item in encoded.items}) == 1
    assert tokenizer.decode(list(encoded.items[2].ids), skip_special_tokens=True) == "Count: red red blue"
