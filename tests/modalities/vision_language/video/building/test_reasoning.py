"""`prefopt build longvpo-2`: questions over scenes, right and wrong answers, or a reason."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest

import processes
from modalities.vision_language.video.building.film_runs import (
    COLOURS,
    arguments,
    film,
    read,
    reasons,
    reply,
    rows_built,
    run,
    said,
    server,
    shown,
    told,
)
from prefopt.modalities.vision_language.rows import load_pictured

SHORT = ("--min_scene", 1, "--max_scene", 4, "--scene_frames", 2, "--frame_budget", 16)


def scenes_in(text: str) -> list[str]:
    """Colours of the scenes that a prompt lists."""
    return re.findall(r"A (\w+) field", text)


def writer(body):
    """Writes questions about the order of two colours."""
    text = said(body)
    if shown(body) or "Do these two answers" in text:
        return reply(body)
    if "Sum them up" in text:
        return f"Fields in {' and '.join(scenes_in(text))}."
    if "JSON" in text:
        kind = re.search(r'of the kind "(\w+)"', text)[1]
        colours = scenes_in(text.partition("[Scene 1]")[2])
        first, second = (0, 2) if kind == "order" else (1, 2)
        return json.dumps(
            {
                "question": f"Which {kind} do {colours[first]} and {colours[second]} have?",
                "answer": f"{colours[first]} before {colours[second]}",
                "scenes": [first + 1, second + 1],
            }
        )
    colours = scenes_in(text)
    return f"only {' and '.join(colours)}" if colours else "unknown"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films") / "films"
    names = list(COLOURS)
    for n in range(3):
        film(folder / f"{n}.mp4", [(name, 2) for name in names[n : n + 4]], fps=10)
    return folder


def built(folder, data, url, *options, **more):
    return rows_built("longvpo-2", folder, data, url, *SHORT, *options, **more)


def test_questions_over_scenes_with_wrong_answers_of_both_kinds(tmp_path, three):
    with server(reply=writer) as one:
        rows = built(tmp_path, three, one.url, "--task_types", "order,cause")
        asked = len(one.bodies)
        frames = [shown(body) for body in one.bodies if shown(body)]
        again = run("longvpo-2", tmp_path, three, one.url, *SHORT, "--task_types", "order,cause")
        assert len(one.bodies) == asked
        assert "captions 0 of 12, summaries 0 of 3, questions 0 of 6" in again.output
    assert read(tmp_path / "out") == rows
    assert sorted(map(str, frames)) == sorted(
        str([colour] * 2) for n in range(3) for colour in list(COLOURS)[n : n + 4]
    )
    assert [row["id"] for row in rows] == [f"{n}.mp4/{kind}" for n in range(3) for kind in ("order", "cause")]
    for row in rows:
        n = int(row["id"][0])
        colours = list(COLOURS)[n : n + 4]
        assert len(row["video"]) == 4
        assert sum(len(clip["frames"]) for clip in row["video"]) == 16
        assert [clip["start_s"] for clip in row["video"]] == pytest.approx([0, 2, 4, 6])
        for clip in row["video"]:
            assert (tmp_path / "out" / clip["source"]).resolve() == (three / f"{n}.mp4").resolve()
            assert all(clip["start_s"] - 1e-6 <= frame / 10 < clip["end_s"] for frame in clip["frames"])
        evidence = [0, 2] if row["task_type"] == "order" else [1, 2]
        assert row["provenance"]["scenes"] == evidence
        assert row["evidence"] == [
            {k: v for k, v in row["video"][m].items() if k != "frames"} for m in evidence
        ]
        assert row["chosen"][0]["content"] == " before ".join(colours[m] for m in evidence)
        from_ = row["provenance"]["rejected_from"]
        assert row["rejected"][0]["content"] == "only " + " and ".join(colours[m] for m in from_)
        assert len(from_) == 1
        assert set(from_) <= (
            set(evidence) if row["rejected_kind"] == "partial" else set(range(4)) - set(evidence)
        )
        assert (row["reference_context"], row["stage"]) == ("full", 2)
        assert "anchor" not in row
    for row, example in zip(rows, load_pictured(tmp_path / "out" / "rows.jsonl"), strict=True):
        for item, side in zip(example.items, ("chosen", "rejected"), strict=True):
            assert item.sample == row[side]
            assert item.condition["pictures"][0].frames == 16
            assert item.reference_condition is None
    assert Counter(row["rejected_kind"] for row in rows) == {"partial": 3, "irrelevant": 3}
    assert told(tmp_path)["rejected_kinds"] == {"partial": 3, "irrelevant": 3}
    assert told(tmp_path)["scenes"] == 12


def test_each_scene_is_told_of_those_before_it_and_summaries_are_summed_up(tmp_path, three):
    with server(reply=writer) as one:
        built(tmp_path, three, one.url, "--limit", 1, "--captions_before", 2, "--fan_in", 2)
        words = [said(body) for body in one.bodies]
    before = [scenes_in(text) for text in words if "Describe this" in text]
    assert sorted(before, key=len) == [[], ["red"], ["red", "green"], ["green", "blue"]]
    summed = [text for text in words if "Sum them up" in text]
    assert sorted(map(scenes_in, summed)) == [[], ["blue", "yellow"], ["red", "green"]]
    assert (
        sum("Fields in red and green." in text and "Fields in blue and yellow." in text for text in summed)
        == 1
    )
    (question,) = {text for text in words if "JSON" in text and '"cause"' in text}
    assert "Fields in" in question
    assert scenes_in(question) == list(COLOURS)[:4]


def test_where_all_scenes_are_evidence_the_wrong_answer_knows_some_of_them(tmp_path):
    film(tmp_path / "films" / "a.mp4", [("red", 2), ("green", 2)], fps=10)

    def both(body):
        if "JSON" in said(body):
            return json.dumps({"question": "Which order?", "answer": "red, then green", "scenes": [1, 2]})
        return writer(body)

    with server(reply=both) as one:
        (row,) = built(tmp_path, tmp_path / "films", one.url, "--task_types", "order")
    assert row["rejected_kind"] == "partial"
    assert row["rejected"][0]["content"] in ("only red", "only green")


ASKED = {"question": "What?", "answer": "nothing", "scenes": [1, 3]}
SPOKEN = {  # by the first colour of a film: words of what is asked, the reply, and why there is no row
    "red": ("JSON", "no idea", "unreadable_question"),
    "green": ("JSON", json.dumps({**ASKED, "scenes": [1]}), "too_few_scenes"),
    "blue": ("JSON", json.dumps({**ASKED, "question": "What, blue?", "answer": "unknown"}), "blind_leak"),
    "yellow": ("Sum them up", "", "no_summary"),
    "cyan": ("from the scenes below", "CYAN before white!", "identical_answers"),
    "magenta": ("from the scenes below", "As scene 1 shows", "quotes_scenes"),
    "white": ("from the scenes below", "", "empty_answer"),
    "brown": ("Describe this scene", "", "no_caption"),
}


def test_what_cannot_be_used_is_left_out_with_the_reason(tmp_path):
    names = list(COLOURS)
    for colour in SPOKEN:
        place = names.index(colour)
        shots = [(names[n % len(names)], 2) for n in range(place, place + 3)]
        film(tmp_path / "films" / f"{colour}.mp4", shots, fps=10)

    def spoken(body):
        text = said(body)
        for colour, (words, found, _) in SPOKEN.items():
            told_of = f"{colour} and " in text.partition("[Question]")[2] or [*shown(body), *scenes_in(text)][
                :1
            ] == [colour]
            if words in text and told_of:
                return found
        return writer(body)

    with server(reply=spoken) as one:
        done = run("longvpo-2", tmp_path, tmp_path / "films", one.url, *SHORT, "--task_types", "order")
    assert done.exit_code == 1
    assert "no row is left of 8" in done.output
    details = [drop["detail"] for drop in read(tmp_path / "out", "dropped")]
    assert "somebody who knows nothing says 'unknown', and chosen is 'unknown'" in details
    found = {name.partition(".")[0]: reason for name, reason in reasons(tmp_path).items()}
    assert found == {colour: reason for colour, (*_, reason) in SPOKEN.items()}


def test_a_judge_decides_where_words_differ(tmp_path, three):
    def wrong_is_right(body):
        if "Do these two answers" in said(body):
            return "Yes" if "\nonly " in said(body) else "No"
        return writer(body)

    with server(reply=wrong_is_right) as one:
        given = (*SHORT, "--task_types", "order", "--limit", 1, "--judge", f"openai:tiny@{one.url}")
        assert run("longvpo-2", tmp_path, three, one.url, *given).exit_code == 1
    assert list(reasons(tmp_path).values()) == ["rejected_is_right"]


def test_the_same_question_is_taken_once_and_another_sample_is_another(tmp_path, three):
    def asking(body):
        text = writer(body)
        return (
            text.replace("Which order", "Which order there")
            if "JSON" in said(body) and body["seed"] % 2
            else text
        )

    with server(reply=asking) as one:
        rows = built(tmp_path, three, one.url, "--task_types", "order", "--questions", 6, "--limit", 1)
        temperatures = {body["temperature"] for body in one.bodies if "JSON" in said(body)}
    assert temperatures == {0.7}
    assert len(rows) == 2
    assert Counter(reasons(tmp_path).values()) == {"repeated_question": 4}


def test_films_that_are_too_short_long_or_broken_are_left_out(tmp_path):
    folder = tmp_path / "films"
    film(folder / "long.mp4", [(name, 2) for name in list(COLOURS)[:5]], fps=10)
    film(folder / "short.mp4", [("red", 3)], fps=10)
    film(folder / "right.mp4", [(name, 2) for name in list(COLOURS)[:4]], fps=10)
    (folder / "words.mp4").write_text("words")
    with server(reply=writer) as one:
        rows = built(tmp_path, folder, one.url, "--task_types", "order", "--frame_budget", 4)
    assert {row["id"] for row in rows} == {"right.mp4/order"}
    assert reasons(tmp_path) == {
        "long.mp4": "too_many_scenes", "short.mp4": "one_scene", "words.mp4": "broken_video",
    }  # fmt: skip


@pytest.mark.slow  # as that of stage 1
def test_a_process_that_is_killed_loses_nothing_and_repeats_nothing(tmp_path, three):
    with server(reply=writer) as one:
        whole = built(tmp_path, three, one.url, output="whole")
        needed = len(one.bodies)
    with server(reply=writer, pause=0.1) as one:
        running = processes.start(
            "-m", "prefopt", *arguments("longvpo-2", tmp_path, three, one.url, *SHORT, output="parts")
        )
        journal = tmp_path / "parts" / "questions.journal.jsonl"
        end = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 2):
            assert time.monotonic() < end
            assert not running.ended, running.read("stderr")
            time.sleep(0.005)
        running.kill()
    journals = [p for p in (tmp_path / "parts").glob("*.journal.jsonl") if not p.name.startswith("scenes")]
    kept = sum(path.read_bytes().count(b"\n") - 1 for path in journals)
    assert 0 < kept < needed
    with server(reply=writer) as one:
        assert built(tmp_path, three, one.url, output="parts") == whole
        assert len(one.bodies) == needed - kept


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--min_scene", 100), "needed twice as much"),
        (("--task_types", " , "), "needed kinds of questions"),
        (("--writer", "./nowhere"), "--writer ./nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(tmp_path, three, options, words):
    with server(reply=writer) as one:
        done = run("longvpo-2", tmp_path, three, one.url, *options)
        assert done.exit_code == 1
        assert words in done.output
        assert not one.bodies
