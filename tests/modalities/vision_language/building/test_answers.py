"""Answers written by models: what each is asked, what is made of odd replies, and that nothing is asked for twice."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modalities.image.image_runs import png
from modalities.vision_language.building.scribe import NAMES, reply, scribe
from prefopt.comparisons import UnusableItem
from prefopt.generation.base import Response
from prefopt.modalities.vision_language.building.answers import Scene, Writers, read_answer, read_claims
from prefopt.modalities.vision_language.building.wording import wording
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.generating import Speaker
from prefopt.modalities.vision_language.prompts import MARK
from prefopt.sources.pictures import ImageRef


def of(colour: str) -> Picture:
    return Picture(ImageRef(png(Image.new("RGB", (6, 6), NAMES[colour]))))


def scene(colour: str, **wants: bool) -> Scene:
    return Scene([{"role": "user", "content": MARK + "What colour is it?"}], (of(colour),), **wants)


def writers(url: str, folder: Path, **more: Any) -> Writers:
    def speaker(role: str) -> Speaker:
        return Speaker(f"openai:tiny@{url}", role, 4, texts=role == "rewriter")

    return Writers(
        *map(speaker, ("captioner", "answerer", "rewriter")), wording(), folder, **{"samples": 16, **more}
    )


def test_claims_are_sorted_by_the_caption_and_put_together(tmp_path):
    with scribe() as server:
        made = writers(server.url, tmp_path)
        found = made.write([scene("red"), scene("blue", bad=False), scene("red", good=False)])
    assert len(found) == 2
    assert found[scene("red").key].good == "I see: It is red."
    assert found[scene("red").key].bad == "I see: It is pink."
    assert found[scene("blue").key].good == "I see: It is blue."
    assert found[scene("blue").key].bad is None
    assert {step: n["needed"] for step, n in made.counts.items()} == {
        "captions": 2, "candidates": 32, "claims": 2, "answers": 3,
    }  # fmt: skip
    assert all(n["asked"] == n["needed"] for n in made.counts.values())
    temperatures = {
        body["temperature"] for body in server.bodies if isinstance(body["messages"][-1]["content"], list)
    }
    assert temperatures == {0.0, 0.7}


def test_nothing_is_asked_for_twice_and_other_scenes_are_added(tmp_path):
    with scribe() as server:
        first = writers(server.url, tmp_path).write([scene("red")])
        asked = len(server.bodies)
        made = writers(server.url, tmp_path)
        again = made.write([scene("red"), scene("green", bad=False)])
        assert again[scene("red").key] == first[scene("red").key]
        assert len(server.bodies) - asked == 1 + 16 + 1 + 1
        assert made.counts["candidates"] == {"needed": 32, "asked": 16}


def test_a_server_that_dies_loses_nothing(tmp_path):
    scenes = [scene(colour) for colour in ("red", "green")]
    with scribe() as server:
        whole = writers(server.url, tmp_path / "whole").write(scenes)
        needed = len(server.bodies)
    asked = 0
    for dies in (1, 20, 16, 2):
        with scribe(die_after=dies) as server:
            short = writers(server.url, tmp_path / "parts")
            for speaker in (short.captioner, short.answerer, short.rewriter):
                speaker._generator = impatient(server.url)
            with contextlib.suppress(ConnectionError):
                short.write(scenes)
            asked += len(server.bodies)
    with scribe() as server:
        assert writers(server.url, tmp_path / "parts").write(scenes) == whole
        assert asked + len(server.bodies) == needed


def impatient(url: str) -> Any:
    """A connection that tries once, one request at a time."""
    from prefopt.modalities.vision_language.generating import PicturedServer

    return PicturedServer(url, "tiny", concurrency=1, retries=0)


def test_another_model_does_not_go_on_in_the_same_journal(tmp_path):
    with scribe(known=None) as server:
        writers(server.url, tmp_path).write([scene("red")])
        other = writers(server.url, tmp_path)
        other.captioner = Speaker(f"openai:other@{server.url}", "captioner", 4)
        with pytest.raises(ValueError, match=r"captions.journal.jsonl was begun with model = 'tiny'"):
            other.write([scene("red")])


def test_several_pictures_are_captioned_one_by_one(tmp_path):
    two = Scene(MARK + MARK + "\nWhat colours?", (of("red"), of("blue")))
    with scribe() as server:
        captions = writers(server.url, tmp_path).captions({"key": two})
    assert captions == {"key": "Picture 1: A red field.\n\nPicture 2: A blue field."}


@pytest.mark.parametrize(
    ("said", "good", "bad"),
    [
        ("no idea", "unreadable_claims", "unreadable_claims"),
        ('{"consistent": ["It is red."], "conflicting": []}', "I see: It is red.", "no_conflicting_claims"),
        (
            '{"consistent": [" "], "conflicting": ["It is a cat."]}',
            "no_consistent_claims",
            "I see: It is a cat.",
        ),
    ],
)
def test_what_cannot_be_written_says_why(tmp_path, said, good, bad):
    def odd(body: dict[str, Any]) -> str:
        return said if "JSON" in str(body["messages"]) else reply(body)

    with scribe(reply=odd) as server:
        found = writers(server.url, tmp_path).write([scene("red")])[scene("red").key]
    for side, expected in ((found.good, good), (found.bad, bad)):
        assert (side.reason if isinstance(side, UnusableItem) else side) == expected


@pytest.mark.parametrize(("who", "reason"), [("answerer", "no_candidates"), ("captioner", "no_caption")])
def test_a_model_without_words_is_told(tmp_path, who, reason):
    def silent(body: dict[str, Any]) -> str:
        sees = isinstance(body["messages"][-1]["content"], list)
        return "" if sees and bool(body["temperature"]) == (who == "answerer") else reply(body)

    with scribe(reply=silent) as server:
        found = writers(server.url, tmp_path).write([scene("red")])[scene("red").key]
    assert isinstance(found.good, UnusableItem)
    assert found.good.reason == found.bad.reason == reason


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ('{"consistent": ["a"], "conflicting": ["b", " c "]}', (["a"], ["b", "c"])),
        ('```json\n{"consistent": [], "conflicting": []}\n```', ([], [])),
        ('{thinking} {"other": 1} {"consistent": ["a"], "conflicting": [], "more": 1} done', (["a"], [])),
        ('{"consistent": ["a"], "conflicting": [', None),
        ('{"consistent": "a", "conflicting": []}', None),
        ('{"consistent": [1], "conflicting": []}', None),
        ("{" * 5000, None),
        ("", None),
    ],
)
def test_lists_of_claims_are_found_in_what_stands_around_them(reply, expected):
    found = read_claims(reply)
    assert found == expected if expected is not None else found.reason == "unreadable_claims"


def test_answers_that_were_cut_off_or_empty_are_none():
    assert read_answer(Response("a", 0, " A cat. ", 3, True), 8) == "A cat."
    cut, empty = (read_answer(Response("a", 0, *rest), 8) for rest in (("A c", 3, False), (" ", 1, True)))
    assert (cut.reason, empty.reason) == ("cut_answer", "empty_answer")
