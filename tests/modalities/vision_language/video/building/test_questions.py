"""What writers and judges reply, read."""

from __future__ import annotations

import json

import pytest

from prefopt.comparisons import UnusableItem
from prefopt.generation.base import Response
from prefopt.modalities.vision_language.video.building.judging import alike, normalised, verdict
from prefopt.modalities.vision_language.video.building.questions import (
    PLACES,
    anchored_question,
    scenes_question,
)

GOOD = {"question": "Who closes the door?", "answer": "The one who came by boat.", "scenes": [4, 2, 2]}


def said(text, ended=True):
    return Response("a", 0, text, 3, ended)


@pytest.mark.parametrize(
    "text",
    ["the first man", "The Beginning of it", "in the last shot", "at the end?", "which frame", "two frames",
     "at 1:05", "after 12 s", "for 30 seconds", "a five-minute wait", "the ending", "2.5 minutes"],
)  # fmt: skip
def test_words_that_place_something_in_time(text):
    assert PLACES.search(text)
    with pytest.raises(UnusableItem) as error:
        anchored_question(said(text), 64)
    assert error.value.reason == "names_a_time"


@pytest.mark.parametrize(
    "text",
    ["Who bends?", "Which friend lends a hand?", "How many framed pictures?", "Whose blast is it?", "What costs 3 shillings?"],
)  # fmt: skip
def test_words_that_do_not(text):
    assert anchored_question(said(f' "{text}" '), 64) == text


def test_a_question_over_scenes_is_found_in_a_reply():
    found = scenes_question(said(f"Sure {{here}}: {json.dumps(GOOD)} Good luck"), 4, 64)
    assert found == (GOOD["question"], GOOD["answer"], (1, 3))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"scenes": [2]}, "too_few_scenes"),
        ({"scenes": [2, 2]}, "too_few_scenes"),
        ({"scenes": [0, 2]}, "unknown_scenes"),
        ({"scenes": [2, 5]}, "unknown_scenes"),
        ({"scenes": ["2", 3]}, "unreadable_question"),
        ({"scenes": [True, 2]}, "unreadable_question"),
        ({"scenes": 2}, "unreadable_question"),
        ({"answer": ""}, "unreadable_question"),
        ({"question": None}, "unreadable_question"),
        ({"answer": "The man of scene 2."}, "quotes_scenes"),
        ({"answer": "As the caption says, a boat."}, "quotes_scenes"),
        ({"question": "What links Scene #2 and the boat?"}, "quotes_scenes"),
        ({"answer": "The boat [2]."}, "quotes_scenes"),
    ],
)
def test_a_question_over_scenes_that_cannot_be_used(changed, reason):
    with pytest.raises(UnusableItem) as error:
        scenes_question(said(json.dumps({**GOOD, **changed})), 4, 64)
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (said("no JSON"), "unreadable_question"),
        (said("{" * 5000), "unreadable_question"),
        (said(json.dumps(GOOD), ended=False), "cut_question"),
        (said(" "), "empty_question"),
    ],
)
def test_a_reply_without_a_question(response, reason):
    with pytest.raises(UnusableItem) as error:
        scenes_question(response, 4, 64)
    assert error.value.reason == reason


def test_the_scenery_is_no_list_of_scenes():
    text = {**GOOD, "answer": "The scene by the sea, where 3 boats lie."}
    assert scenes_question(said(json.dumps(text)), 4, 64).answer == text["answer"]


def test_answers_of_the_same_words_are_alike():
    assert alike("The red car.", "red  CAR")
    assert alike("„Rot“", "rot")
    assert not alike("red car", "red cart")
    assert not alike("10", "1.0")
    assert normalised("A") == "a"  # as an answer, and no article
    assert not alike("a", "the")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Yes", True), ("no.", False), ("**Yes**, they do; no doubt", True), ("I think yes", True),
     ("It is a no", False), ("yes or no", True), ("Perhaps yes, perhaps no", None), ("", None), ("Nothing", None)],
)  # fmt: skip
def test_yes_and_no(text, expected):
    assert verdict(text) is expected
