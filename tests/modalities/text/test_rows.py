"""What rows become: examples, drops with reasons, errors for what is wrong with all rows."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from prefopt.comparisons import LOSE, TIE, WIN, Comparison, Encoded, Item, Outcome, collate
from prefopt.modalities.text.rows import Comparisons, load_comparisons, row_of
from prefopt.sources.report import Dropped

TEXT = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASK, BLUE, GREEN = say("user", "Colour?"), say("assistant", "Blue."), say("assistant", "Green.")
TALK = {"prompt": [ASK], "chosen": [BLUE], "rejected": [GREEN]}


def one(**changes: Any) -> Comparisons:
    return load_comparisons([TEXT | changes])


def why(row: dict[str, Any], good: dict[str, Any] = TEXT, **options: Any) -> tuple[str, str]:
    """Reason and detail for which `row` is dropped beside a good one."""
    loaded = load_comparisons([good, row], **options)
    assert len(loaded) == 1
    [drop] = loaded.dropped
    assert drop.row == 2
    assert loaded.report.dropped == {drop.reason: 1}
    return drop.reason, drop.detail


# -- forms -----------------------------------------------------------------------------------------------


def test_text_and_conversations_as_they_are() -> None:
    [example] = load_comparisons([TEXT]).examples
    assert example.items == (
        Item({"prompt": "The sky is"}, " blue."),
        Item({"prompt": "The sky is"}, " green."),
    )
    assert example.comparisons == (Comparison(0, 1, WIN, 1.0, {}),)
    [example] = load_comparisons([TALK]).examples
    assert example.items == (Item({"prompt": [ASK]}, [BLUE]), Item({"prompt": [ASK]}, [GREEN]))


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is blue", "The sky is black", "The sky is bl"),
        ("abc", "abcd", "ab"),
        ("abc ", "abd", "ab"),
    ],
)
def test_an_implicit_text_prompt_is_the_one_that_trl_extracts(
    chosen: str, rejected: str, prompt: str
) -> None:
    loaded = load_comparisons([{"chosen": chosen, "rejected": rejected}])
    [example] = loaded.examples
    assert [item.condition["prompt"] for item in example.items] == [prompt, prompt]
    assert [prompt + item.sample for item in example.items] == [chosen, rejected]
    assert any("may end within a word" in hint.text for hint in loaded.report.hints)


@pytest.mark.parametrize("chosen", ["left", "left "])
def test_texts_that_share_no_start_have_no_prompt(chosen: str) -> None:
    """TRL trains on an empty prompt here; of a text that ends in a space, on all but that space as the prompt."""
    bare = {"chosen": chosen, "rejected": "right"}
    with pytest.raises(ValueError, match=r"no column of prompts \(the columns are chosen, rejected\)"):
        load_comparisons([bare])
    loaded = load_comparisons([bare, TEXT, TEXT])
    assert [(d.row, d.reason) for d in loaded.dropped] == [(1, "no_prompt")]
    asked = load_comparisons([bare | {"prompt": ""}])
    assert [item.condition["prompt"] for item in asked.examples[0].items] == ["", ""]


@pytest.mark.parametrize("prompt", [{}, {"prompt": None}, {"prompt": "Colour?"}])
def test_an_implicit_conversational_prompt(prompt: dict[str, Any]) -> None:
    system = say("system", "Be brief.")
    more = say("user", "Sure?")
    row = prompt | {"chosen": [system, ASK, BLUE], "rejected": [system, ASK, GREEN, more]}
    [example] = load_comparisons([row]).examples
    assert example.items[0] == Item({"prompt": [system, ASK]}, [BLUE])
    assert example.items[1] == Item({"prompt": [system, ASK]}, [GREEN, more])


def test_one_side_that_continues_the_other() -> None:
    more = say("user", "Sure?")
    [example] = load_comparisons([{"chosen": [ASK, BLUE], "rejected": [ASK, BLUE, more]}]).examples
    assert example.items[0] == Item({"prompt": [ASK]}, [BLUE])
    assert example.items[1] == Item({"prompt": [ASK]}, [BLUE, more])


def test_a_single_message_is_a_list_of_one() -> None:
    [example] = load_comparisons([{"prompt": [ASK], "chosen": BLUE, "rejected": GREEN}]).examples
    assert example.items[0].sample == [BLUE]


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_and_template_arguments(as_text: bool) -> None:
    tools, options = [{"type": "function", "function": {"name": "f"}}], {"enable_thinking": False}
    extra: dict[str, Any] = {"tools": tools, "chat_template_kwargs": options}
    if as_text:
        extra = {name: json.dumps(value) for name, value in extra.items()}
    [example] = load_comparisons([TALK | extra]).examples
    assert example.items[1].condition == {"prompt": [ASK], "tools": tools, "chat_template_kwargs": options}
    [example] = load_comparisons([TALK | {"tools": [], "chat_template_kwargs": None}]).examples
    assert example.items[1].condition == {"prompt": [ASK]}


def test_keys_that_arrow_adds_to_messages_are_removed(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    call2 = {"type": "function", "function": {"name": "g", "arguments": {"y": 2}}}
    using = {"role": "assistant", "content": None, "tool_calls": [call, call2]}
    row = {"prompt": [ASK], "chosen": [using], "rejected": [GREEN | {"content": "I guess."}]}
    dataset = datasets.Dataset.from_list([row])
    assert dataset[0]["rejected"][0] != row["rejected"][0] or dataset[0]["chosen"][0] != row["chosen"][0]
    [example] = load_comparisons(dataset).examples
    assert example.items[0].sample == [using]
    assert example.items[1].sample == row["rejected"]


def test_content_in_text_parts() -> None:
    parts = [{"role": "assistant", "content": [{"type": "text", "text": "Blue."}]}]
    [example] = load_comparisons([TALK | {"chosen": parts}]).examples
    assert example.items[0].sample == parts


def test_single_labelled_samples() -> None:
    rows = [
        {"prompt": "a", "completion": c, "label": label} for c, label in (("b", True), ("c", False), ("d", 1))
    ]
    loaded = load_comparisons([*rows, {"prompt": [ASK], "completion": [BLUE], "label": True}])
    assert [(len(e.items), e.comparisons[0].second, e.comparisons[0].outcome) for e in loaded] == [
        *((1, None, WIN), (1, None, LOSE), (1, None, WIN), (1, None, WIN))
    ]
    counts = loaded.report.comparisons
    assert (counts["desirable"], counts["undesirable"], counts["wins"]) == (3, 1, 0)


# -- outcomes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "outcome"),
    [
        ({}, WIN),
        ({"label": None, "is_tie": None, "votes": None}, WIN),
        ({"label": "win"}, WIN),
        ({"label": "tie"}, TIE),
        ({"is_tie": True}, TIE),
        ({"is_tie": 0}, WIN),
        ({"label": "tie", "is_tie": True}, TIE),
        ({"votes": [3, 1, 0]}, Outcome(0.75, 0.25, 0.0)),
        ({"votes": [0, 0, 5]}, TIE),
        ({"votes": (2, 0, 0)}, WIN),
        ({"target": [0.5, 0.25, 0.25]}, Outcome(0.5, 0.25, 0.25)),
        ({"target": [0.5, 0.25, 0.25], "votes": [1, 0, 0], "label": "tie"}, Outcome(0.5, 0.25, 0.25)),
        ({"votes": [1, 1, 0], "label": "win"}, Outcome(0.5, 0.5, 0.0)),
    ],
)
def test_outcomes(columns: dict[str, Any], outcome: Outcome) -> None:
    [example] = one(**columns).examples
    assert example.comparisons[0].outcome == outcome


@pytest.mark.parametrize("columns", [{"label": "lose"}, {"votes": [0, 4, 0]}, {"target": [0, 1, 0]}])
def test_a_lost_row_is_told_from_the_winner(columns: dict[str, Any]) -> None:
    loaded = one(score_chosen=1.0, score_rejected=2, **columns)
    [example] = loaded.examples
    assert [item.sample for item in example.items] == [" green.", " blue."]
    assert example.comparisons[0].outcome == WIN
    assert loaded.origins["row-1"][:3] == (1, 2.0, 1.0)
    assert any("sides were exchanged" in hint.text for hint in loaded.report.hints)


def test_sides_that_were_cut(tmp_path: Path) -> None:
    pair = {"prompt": "a", "chosen": " b", "rejected": " c", "chosen_ended": False, "rejected_ended": None}
    lines = [pair, pair | {"id": "lost", "label": "lose"}, {"prompt": "a", "chosen": " d", "rejected": " e"}]
    found = load_comparisons(lines)
    ends = [[(item.sample, item.ended) for item in example.items] for example in found]
    assert ends == [
        [(" b", False), (" c", True)],
        [(" c", True), (" b", False)],
        [(" d", True), (" e", True)],
    ]
    assert not any("not read" in hint.text for hint in found.report.hints)
    again = load_comparisons([row_of(example) for example in found])
    assert [example.items for example in again] == [example.items for example in found]
    single = {"prompt": "a", "completion": " b", "label": True, "completion_ended": False}
    assert not load_comparisons([single]).examples[0].items[0].ended
    dropped = load_comparisons([*lines, pair | {"chosen_ended": "no"}]).dropped
    assert [drop.reason for drop in dropped] == ["wrong_type"]


def test_votes_are_said_to_be_normalised_and_overruled_columns_to_be_overruled() -> None:
    texts = [hint.text for hint in one(votes=[3, 1, 0], label="win").report.hints]
    assert "votes of 1 row(s) were taken as counts and normalised to shares" in texts
    assert "1 row(s) give votes and also label: votes was used" in texts


def test_weights_and_columns_ride_along() -> None:
    loaded = load_comparisons([TEXT | {"weight": 2, "offset": 0.5, "group": 3}], columns=["offset", "group"])
    assert loaded.examples[0].comparisons[0] == Comparison(0, 1, WIN, 2.0, {"offset": 0.5, "group": 3.0})
    with pytest.raises(ValueError, match=r"no column 'offsets'; did you mean 'offset'\?"):
        load_comparisons([TEXT | {"offset": 0.5}], columns=["offsets"])


def test_examples_collate() -> None:
    rows = [TEXT, TEXT | {"label": "tie"}, TEXT | {"votes": [1, 1, 2]}]
    batch = collate(Encoded(e.id, e.items, e.comparisons) for e in load_comparisons(rows))
    assert batch.edges.outcome_E3.tolist() == [[1, 0, 0], [0, 0, 1], [0.25, 0.25, 0.5]]
    assert batch.edges.second_E.tolist() == [1, 3, 5]


# -- ids -------------------------------------------------------------------------------------------------


def test_ids_do_not_depend_on_other_rows(tmp_path: Path) -> None:
    bad = TEXT | {"chosen": ""}
    assert [e.id for e in load_comparisons([TEXT, bad, TEXT])] == ["row-1", "row-3"]
    assert [e.id for e in load_comparisons([TEXT, TEXT, TEXT])] == ["row-1", "row-2", "row-3"]
    assert [e.id for e in load_comparisons([TEXT | {"id": "a"}, TEXT | {"id": 7}, TEXT])] == [
        "a",
        "7",
        "row-3",
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(TEXT)}\n\n{json.dumps(TEXT)}\n")
    assert [e.id for e in load_comparisons(path)] == ["row-1", "row-3"]


def test_ids_must_be_unique(tmp_path: Path) -> None:
    rows = [TEXT | {"id": name} for name in ("a", "b", "a", "a#2", "a")]
    loaded = load_comparisons([*rows, TEXT | {"id": "a", "chosen": ""}])
    assert [e.id for e in loaded] == ["a", "b", "a#2", "a#2#2", "a#3"]
    assert [d.id for d in loaded.dropped] == ["a#4"]
    assert any("3 row(s) repeat an id of an earlier row" in hint.text for hint in loaded.report.hints)
    assert [e.id for e in load_comparisons([TEXT | {"id": "row-2"}, TEXT])] == ["row-2", "row-2#2"]


# -- rows that cannot be used ------------------------------------------------------------------------------

NAN = math.nan
DROPS: list[tuple[dict[str, Any], str, str]] = [
    ({"chosen": ""}, "empty_side", "chosen is empty"),
    ({"rejected": " \n"}, "empty_side", "rejected is empty"),
    ({"rejected": " blue."}, "identical_sides", "nothing to learn"),
    ({"rejected": " blue.", "label": "tie"}, "identical_sides", "nothing to learn"),
    ({"chosen": None}, "missing_value", "chosen is absent"),
    ({"chosen": 3}, "wrong_type", r"chosen is 3 \(int\); needed text or a list of messages"),
    ({"chosen": [BLUE]}, "wrong_type", "one side is text and the other a list of messages"),
    ({"prompt": [ASK]}, "wrong_type", "prompt is a list of messages but"),
    ({"prompt": 3}, "wrong_type", "prompt is 3"),
    ({"weight": NAN}, "bad_weight", "weight is nan"),
    ({"weight": math.inf}, "bad_weight", "weight is inf"),
    ({"weight": -1}, "bad_weight", "needed a positive number"),
    ({"weight": 0}, "bad_weight", "weight is 0"),
    ({"weight": "2"}, "wrong_type", "weight is '2'"),
    ({"weight": True}, "wrong_type", "weight is True"),
    ({"votes": [NAN, 1, 0]}, "bad_votes", "nan"),
    ({"votes": [0, 0, 0]}, "bad_votes", "nobody voted"),
    ({"votes": [-1, 2, 0]}, "bad_votes", "negative"),
    ({"votes": [1, 2]}, "bad_votes", "2 numbers; needed three"),
    ({"votes": "1,2,3"}, "wrong_type", "needed three numbers"),
    ({"votes": [1, "2", 0]}, "wrong_type", "'2'"),
    ({"target": [0.5, 0.5, 0.5]}, "bad_target", "sums to 1.5.*use votes for counts"),
    ({"target": [1.5, -0.5, 0]}, "bad_target", "negative"),
    (
        {"label": "Tie"},
        "unknown_label",
        r"label is 'Tie' \(str\); needed 'win', 'tie' or 'lose'; did you mean 'tie'",
    ),
    ({"label": 1}, "unknown_label", "label is 1"),
    ({"label": "win", "is_tie": True}, "contradicting_labels", "label is 'win' but is_tie is True"),
    ({"label": "tie", "is_tie": False}, "contradicting_labels", "label is 'tie'"),
    ({"is_tie": "yes"}, "wrong_type", "is_tie is 'yes'"),
    ({"id": 1.5}, "wrong_type", "id is 1.5"),
    ({"tools": "[{"}, "wrong_type", "tools is not valid JSON"),
    ({"tools": {"a": 1}}, "wrong_type", "tools is .* needed a list"),
    ({"score_chosen": "high"}, "wrong_type", "score_chosen is 'high'"),
]


@pytest.mark.parametrize(("changes", "reason", "detail"), DROPS)
def test_rows_that_cannot_be_used_are_dropped_with_a_reason(
    changes: dict[str, Any], reason: str, detail: str
) -> None:
    told = why(TEXT | changes)
    assert told[0] == reason
    assert re.search(detail, told[1])


TALK_DROPS: list[tuple[dict[str, Any], str, str]] = [
    ({"chosen": []}, "empty_side", "chosen is empty"),
    ({"chosen": [say("assistant", " ")]}, "empty_side", "chosen is empty"),
    ({"chosen": [{"content": "Blue."}]}, "wrong_type", r"chosen\[0\] is .* needed a message"),
    ({"chosen": ["Blue."]}, "wrong_type", r"chosen\[0\] is 'Blue.'"),
    ({"chosen": [{"role": "assistant"}]}, "wrong_type", r"chosen\[0\] has no content"),
    ({"chosen": [{"role": "assistant", "content": 3}]}, "wrong_type", "content 3"),
    ({"chosen": [{"role": "assistant", "content": ["x"]}]}, "wrong_type", "needed a text part"),
    ({"prompt": []}, "empty_prompt", "prompt holds no message"),
    ({"prompt": "Colour?"}, "empty_prompt", "share no first message"),
    ({"prompt": None}, "empty_prompt", "share no first message"),
    ({"chosen": "Blue."}, "wrong_type", "one side is text"),
]


@pytest.mark.parametrize(("changes", "reason", "detail"), TALK_DROPS)
def test_conversations_that_cannot_be_used(changes: dict[str, Any], reason: str, detail: str) -> None:
    told = why(TALK | changes, good=TALK)
    assert told[0] == reason
    assert re.search(detail, told[1])


SINGLE = {"prompt": "a", "completion": "b", "label": True}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": None}, "missing_value"),
        ({"label": "good"}, "unknown_label"),
        ({"label": 0.5}, "unknown_label"),
        ({"completion": ""}, "empty_side"),
        ({"completion": [BLUE]}, "wrong_type"),
        ({"prompt": None}, "missing_value"),
    ],
)
def test_single_samples_that_cannot_be_used(changes: dict[str, Any], reason: str) -> None:
    assert why(SINGLE | changes, good=SINGLE)[0] == reason


@pytest.mark.parametrize("value", [NAN, None, "x"])
def test_a_bad_value_in_a_column_that_rides_along(value: Any) -> None:
    reason, detail = why(TEXT | {"offset": value}, good=TEXT | {"offset": 1.0}, columns=["offset"])
    assert reason == ("bad_column" if value is NAN else "wrong_type")
    assert "offset" in detail


def test_a_score_that_is_nan_is_no_score() -> None:
    loaded = one(score_chosen=NAN, score_rejected=1.0)
    assert loaded.origins["row-1"].score_chosen is None
    assert not loaded.dropped


def test_no_row_is_lost() -> None:
    rows = [TEXT | changes for changes, _, _ in DROPS] + [TEXT]
    loaded = load_comparisons(rows)
    assert len(loaded) + len(loaded.dropped) == len(rows) == loaded.report.rows
    assert sum(loaded.report.dropped.values()) == len(DROPS)
    assert loaded.dropped[0] == Dropped(1, "row-1", "empty_side", "chosen is empty")
    assert [drop.row for drop in loaded.dropped] == list(range(1, len(rows)))


# -- what is wrong with all rows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "a", "choosen": "b", "rejected": "c"},
            "Missing: chosen; for chosen, did you mean 'choosen'",
        ),
        (
            {"question": "a", "answer": "b"},
            "has the columns question, answer; needed chosen and rejected, with prompt",
        ),
        ({"completion": "b", "label": True}, "Missing: prompt"),
        ({"prompt": "a", "completion": "b"}, "Missing: label"),
        ({"prompt": "a", "candidates": []}, "holds candidates, not comparisons: .*prefopt build"),
        (
            {"prompt": "a", "jpg_0": b"x", "jpg_1": b"y"},
            r"jpg_0, jpg_1, but this method trains on text only: remove images.*give a diffusers pipeline as model",
        ),
        (TEXT | {"images": ["x.png"]}, "row 1: column 'images' is filled, but .* text only"),
        (TEXT | {"chosen_videos": ["x.mp4"]}, "text only"),
        (
            TALK | {"prompt": [{"role": "user", "content": [{"type": "image"}]}]},
            r"row 1: prompt\[0\] .*type 'image'",
        ),
        (
            TEXT | {"label": "A"},
            r"no row of .* can be used: 1 unknown_label \(first: row 1, label is 'A'.*needed 'win'",
        ),
        (TEXT | {"chosen": ""}, r"no row of .* can be used: 1 empty_side"),
    ],
)
def test_what_is_wrong_with_all_rows_is_an_error(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_comparisons([row])


def test_empty_media_columns_do_no_harm() -> None:
    assert len(load_comparisons([TEXT | {"images": None}, TEXT | {"images": []}])) == 2


def test_misspelt_and_unread_columns_are_named() -> None:
    texts = [hint.text for hint in one(is_ties=True, annotator="x").report.hints]
    assert "column 'is_ties' is not read; did you mean 'is_tie'?" in texts
    assert "columns not read: annotator" in texts
