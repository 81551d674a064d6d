"""`prefopt build longvpo-1`: who is asked what, and which questions and answers are left out."""

from __future__ import annotations

import re
import shutil

import pytest

import tiny_vision
from modalities.vision_language.video.building.film_runs import (
    THREE,
    arguments,
    colour_of,
    functions,
    read,
    reasons,
    reply,
    rows_built,
    run,
    said,
    server,
    shown,
)


def built(folder, data, url, *options, **more):
    return rows_built("longvpo-1", folder, data, url, *options, **more)


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Which colour comes first?", "names_a_time"),
        ("", "empty_question"),
        ('"Which colour does the endless field have?"', None),
    ],
)
def test_questions_that_name_a_time_are_refused(tmp_path, ten, question, reason):
    def asking(body):
        return question if "Write one question" in said(body) else reply(body)

    with server(reply=asking) as one:
        done = run("longvpo-1", tmp_path, ten, one.url, *THREE, "--limit", 4)
        if reason is None:
            assert done.exit_code == 0, done.output
            assert read(tmp_path / "out")[0]["prompt"][0]["content"] == question.strip('"')
        else:
            assert done.exit_code == 1
            assert set(reasons(tmp_path).values()) == {reason}
            assert not any("Answer a question" in said(body) for body in one.bodies)


def wrong(body):
    """The answer to a caption is another one."""
    return "It is pink." if "[Description" in said(body) and "Answer" in said(body) else reply(body)


def guessed(body):
    return "It is red." if "not seen" in said(body) else reply(body)


def green_tells_red(body):
    """Whoever reads of a green field says that it is red."""
    text = said(body)
    return "It is red." if "Answer" in text and "A green field" in text else reply(body)


@pytest.mark.parametrize(
    ("spoken", "options", "found"),
    [
        (
            wrong,
            (),
            dict.fromkeys(("0-red.mp4", "1-green.mp4", "2-blue.mp4", "3-yellow.mp4"), "anchor_wrong"),
        ),
        (guessed, (), {"0-red.mp4": "blind_leak"}),
        (green_tells_red, (), {"0-red.mp4": "distractor_leak", "1-green.mp4": "anchor_wrong"}),
        (green_tells_red, ("--max_leaks", 1), {"1-green.mp4": "anchor_wrong"}),
    ],
)
def test_questions_that_are_not_about_the_anchor_alone_are_left_out(tmp_path, ten, spoken, options, found):
    with server(reply=spoken) as one:
        run("longvpo-1", tmp_path, ten, one.url, "--distractors", 3, "--pool", 0, "--limit", 4, *options)
    assert reasons(tmp_path) == found


def test_clips_of_the_pool_that_give_the_answer_away_leave_it(tmp_path, ten):
    with server() as one:
        before = built(tmp_path, ten, one.url, "--distractors", 1, "--pool", 8, output="before")
    with server(reply=green_tells_red) as one:
        after = built(tmp_path, ten, one.url, "--distractors", 1, "--pool", 8)
    red, plain = ({colour_of(clip) for clip in rows[0]["pool"]} for rows in (after, before))
    assert plain - red <= {"green"}
    assert ("green" in plain) != (colour_of(before[0]["video"][before[0]["pinned"]]) == "green")
    assert "green" not in red


def test_a_judge_decides_where_words_differ(tmp_path, ten):
    def wordy(body):
        text = reply(body)
        return f"I would say {text}" if "Answer a question" in said(body) else text

    few = ("--distractors", 2, "--pool", 0, "--limit", 3)
    with server() as one:
        built(tmp_path, ten, one.url, *few, "--judge", f"openai:tiny@{one.url}", output="plain")
        judged = [said(body) for body in one.bodies if "Do these two answers" in said(body)]
        assert judged
        pairs = [re.findall(r"\[(?:Right answer|Answer to be judged)\]\n(.*)", text) for text in judged]
        assert all(right != answer for right, answer in pairs)  # words that are the same are not asked about
    with server(reply=wordy) as one:
        assert run("longvpo-1", tmp_path, ten, one.url, *few).exit_code == 1
        assert set(reasons(tmp_path).values()) == {"anchor_wrong"}
        (first, *_) = read(tmp_path / "out", "dropped")
        assert "says 'I would say It is red.', and chosen is 'It is red.': without --judge" in first["detail"]
        shutil.rmtree(tmp_path / "out")
        rows = built(tmp_path, ten, one.url, *few, "--judge", f"openai:tiny@{one.url}")
        assert len(rows) == 3
        judged = [said(body) for body in one.bodies if "Do these two answers" in said(body)]
        assert len(judged) == len(set(judged))
        shutil.rmtree(tmp_path / "out")
        assert (
            run("longvpo-1", tmp_path, ten, one.url, *few, "--judge", f"{functions(tmp_path)}yes").exit_code
            == 1
        )
        assert set(reasons(tmp_path).values()) == {"rejected_is_right"}

    def perhaps(body):
        return "Perhaps." if "Do these two answers" in said(body) else wordy(body)

    shutil.rmtree(tmp_path / "out")
    with server(reply=perhaps) as one:
        assert (
            run("longvpo-1", tmp_path, ten, one.url, *few, "--judge", f"openai:tiny@{one.url}").exit_code == 1
        )
        assert set(reasons(tmp_path).values()) == {"unreadable_judgement"}


def test_answers_that_teach_nothing_are_left_out(tmp_path, ten):
    def same(body):
        text = said(body)
        if shown(body) and "Describe" not in text:
            return {"red": "", "green": "It is blue!", "blue": "it is  BLUE"}.get(shown(body)[0], reply(body))
        return reply(body)

    with server(reply=same) as one:
        run("longvpo-1", tmp_path, ten, one.url, "--distractors", 2, "--pool", 0, "--limit", 3)
    found = reasons(tmp_path)
    assert found["0-red.mp4"] == "empty_answer"
    assert {found["1-green.mp4"], found["2-blue.mp4"]} <= {
        "identical_answers",
        "empty_answer",
        "anchor_wrong",
    }
    assert "identical_answers" in found.values()


def test_an_empty_caption_makes_neither_an_anchor_nor_a_distractor(tmp_path, ten):
    def silent(body):
        return "" if shown(body)[:1] == ["red"] and "Describe" in said(body) else reply(body)

    with server(reply=silent) as one:
        rows = built(tmp_path, ten, one.url, *THREE, "--limit", 6)
    assert reasons(tmp_path) == {"0-red.mp4": "no_caption"}
    assert not any("red" in colour_of(clip) for row in rows for clip in (*row["video"], *row["pool"]))


def test_templates_of_ones_own_are_asked_with_and_the_prompt_is_that_of_training(tmp_path, ten):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "answer.jinja").write_text("{{ question }} Answer in three words.")
    with server() as one:
        rows = built(tmp_path, ten, one.url, *THREE, "--limit", 6, "--prompts", tmp_path / "own")
        asked = {said(body) for body in one.bodies if shown(body)}
    assert rows[0]["prompt"][0]["content"].endswith("that can be seen? Answer in three words.")
    assert rows[0]["prompt"][0]["content"] in asked


def test_somebody_else_may_read_the_captions(tmp_path, ten):
    path = tmp_path / "reader.py"
    path.write_text(
        "import re\ndef read(text):\n    found = re.search(r'A (\\w+) field', text)\n"
        "    return f'It is {found[1]}.' if found else 'unknown'\n"
    )
    with server() as one:
        rows = built(tmp_path, ten, one.url, *THREE, "--limit", 6, "--reader", f"{path}:read")
        assert len(rows) == 6
        assert not any("Answer a question" in said(body) for body in one.bodies)
    assert rows[0]["provenance"]["reader"].startswith("read of ")


def test_a_question_may_come_from_a_function(tmp_path, ten):
    with server() as one:
        given = arguments("longvpo-1", tmp_path, ten, one.url, *THREE, "--limit", 6)
        for name, words in {"asks": "", "fails": "fails failed: KeyError", "number": "returned int"}.items():
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            done = run(
                "longvpo-1",
                tmp_path,
                ten,
                one.url,
                *THREE,
                "--limit",
                6,
                "--writer",
                f"{functions(tmp_path)}{name}",
            )
            assert words in done.output
            assert (done.exit_code == 0) == (not words)
        assert not any("Write one question" in said(body) for body in one.bodies)
        assert given


def test_a_model_in_a_folder_is_shown_the_frames(tmp_path, ten):
    """A random model, whose answers are nothing to learn from, but follow from what it is shown."""
    model = tiny_vision.save_tiny("qwen2_5_vl", tmp_path / "qwen")
    given = ["--captioner", model, "--writer", f"{functions(tmp_path)}asks", *THREE]
    with server() as one:
        done = run("longvpo-1", tmp_path, ten, one.url, *given, "--limit", 6, "--max_new_tokens", 4)
        assert not one.bodies
    assert done.exit_code == 1
    assert set(reasons(tmp_path).values()) <= {
        "no_caption",
        "cut_answer",
        "empty_answer",
        "identical_answers",
        "anchor_wrong",
    }
    captions = read(tmp_path / "out", "captions.journal")[1:]
    assert len(captions) == 6
    assert len({line["text"] for line in captions}) > 2


def test_a_model_that_reads_no_videos_is_refused_before_anything_is_asked(tmp_path, ten):
    model = tiny_vision.save_tiny("llava", tmp_path / "llava")
    with server() as one:
        done = run("longvpo-1", tmp_path, ten, one.url, "--answerer", model)
        assert not one.bodies
    assert f"--answerer {model}: LlavaProcessor reads no videos" in done.output
