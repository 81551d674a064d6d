"""`prefopt build longvpo-1`: the right clips beside each other, the right answers, or a reason."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

import processes
import tiny_vision
from modalities.vision_language.video.building.film_runs import (
    COLOURS,
    arguments,
    colour_of,
    fields,
    film,
    functions,
    read,
    reasons,
    reply,
    run,
    said,
    server,
    shown,
    sound,
)
from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.generating import about_video
from prefopt.modalities.vision_language.rows import load_pictured
from prefopt.modalities.vision_language.video.building import embedding
from prefopt.modalities.vision_language.video.frames import images_of
from prefopt.modalities.vision_language.video.videos import Video

THREE = ("--distractors", 3, "--pool", 2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fields(tmp_path_factory.mktemp("films") / "clips", list(COLOURS))


def built(tmp_path, data, url, *options, **more):
    done = run("longvpo-1", tmp_path, data, url, *options, **more)
    assert done.exit_code == 0, done.output
    return read(tmp_path / more.get("output", "out"))


def told(tmp_path):
    return json.loads((tmp_path / "out" / "build.json").read_text())


def test_each_clip_is_asked_about_once_among_others_and_nothing_is_asked_twice(tmp_path, ten):
    with server() as one:
        rows = built(tmp_path, ten, one.url, *THREE, "--clip_frames", 4)
        asked = len(one.bodies)
        frames = [shown(body) for body in one.bodies if shown(body)]
        again = run("longvpo-1", tmp_path, ten, one.url, *THREE, "--clip_frames", 4)
        assert len(one.bodies) == asked
        assert "captions 0 of 10, questions 0 of 10, answers 0 of 10, readings 0 of 11" in again.output
    assert read(tmp_path / "out") == rows
    assert all(len(found) == 4 for found in frames)
    assert len(rows) == 10
    assert not read(tmp_path / "out", "dropped")
    assert [row["id"] for row in rows] == sorted(path.name for path in ten.iterdir())
    for row in rows:
        clips = row["video"]
        assert len(clips) == 4
        assert Path(clips[row["anchor"]]["source"]).name == row["id"]
        assert row["chosen"] == [
            {"role": "assistant", "content": f"It is {colour_of(clips[row['anchor']])}."}
        ]
        assert row["rejected"] == [
            {"role": "assistant", "content": f"It is {colour_of(clips[row['pinned']])}."}
        ]
        assert row["prompt"] == [{"role": "user", "content": "Which colour is the field that can be seen?"}]
        assert (row["evidence"], row["reference_context"], row["stage"]) == ([row["anchor"]], "anchor", 1)
        names = [clip["source"] for clip in clips]
        pool = [clip["source"] for clip in row["pool"]]
        assert len(set(names)) == 4
        assert len(pool) == len(set(pool)) == 2
        assert not set(names) & set(pool)
        for clip in (*clips, *row["pool"]):
            assert (tmp_path / "out" / clip["source"]).resolve().parent == ten.resolve()
            assert clip["frames"] == [1, 3, 5, 7]
        assert row["provenance"]["similarity"][row["anchor"]] is None
        assert all(s < 0.8 for s in row["provenance"]["similarity"] if s is not None)
    assert sorted(Counter(row["anchor"] for row in rows).values()) == [2, 2, 3, 3]
    assert len({row["pinned"] - (row["pinned"] > row["anchor"]) for row in rows}) == 3
    assert told(tmp_path)["slots"] == {
        str(k): n for k, n in sorted(Counter(row["anchor"] for row in rows).items())
    }
    assert told(tmp_path)["threshold"] == rows[0]["provenance"]["max_similarity"] == 0.8
    assert {"captioner", "writer", "answerer", "judge", "prompts", "seed"} <= set(rows[0]["provenance"])


def test_training_reads_the_rows_and_draws_them_anew(tmp_path, ten):
    with server() as one:
        rows = built(tmp_path, ten, one.url, *THREE, "--clip_frames", 4)
    for row, example in zip(rows, load_pictured(tmp_path / "out" / "rows.jsonl"), strict=True):
        for item, side in zip(example.items, ("chosen", "rejected"), strict=True):
            assert item.sample == row[side]
            (video,) = item.condition["pictures"]
            assert [clip.frames for clip in video.clips] == [(1, 3, 5, 7)] * 4
            assert item.reference_condition["pictures"] == (Video((video.clips[row["anchor"]],)),)
            redraw = item.condition["redraw"]
            assert redraw.pinned == (video.clips[row["pinned"]],)
            assert len(redraw.pool) == 4  # two that are there, and two more
            request = about_video("any", "Which colour is the field that can be seen?", video)
            assert item.condition["prompt"] == request.prompt  # as the answers were asked for


def test_what_looks_alike_or_comes_from_one_film_never_stands_beside_each_other(tmp_path):
    fields(tmp_path / "clips", ["red", "green", "blue", "yellow", "cyan"])
    film(tmp_path / "clips" / "5-red.mp4", [("red", 3)])
    lines = [
        {"source": f"clips/{name}", "id": name, "origin": "one" if "blue" in name or "cyan" in name else None}
        for name in sorted(path.name for path in (tmp_path / "clips").iterdir())
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with server() as one:
        rows = built(
            tmp_path,
            tmp_path / "clips.jsonl",
            one.url,
            "--distractors",
            5,
            "--min_distractors",
            2,
            "--pool",
            0,
        )
    for row in rows:
        own, others = (
            row["video"][row["anchor"]],
            [clip for n, clip in enumerate(row["video"]) if n != row["anchor"]],
        )
        near = {"red": {"red"}, "blue": {"blue", "cyan"}, "cyan": {"blue", "cyan"}}.get(
            colour_of(own), {colour_of(own)}
        )
        assert not near & {colour_of(clip) for clip in others}
        assert "pool" not in row
    short = [row for row in rows if len(row["video"]) < 6]
    assert told(tmp_path)["short_of_distractors"] == len(short) > 0


def test_too_few_distractors_are_told_with_numbers(tmp_path):
    fields(tmp_path / "clips", ["red", "green", "blue"])
    film(tmp_path / "clips" / "5-red.mp4", [("red", 3)])
    with server() as one:
        rows = built(tmp_path, tmp_path / "clips", one.url, "--distractors", 3, "--pool", 0)
    assert [row["id"] for row in rows] == ["1-green.mp4", "2-blue.mp4"]
    (drop, _) = read(tmp_path / "out", "dropped")
    assert (drop["id"], drop["reason"]) == ("0-red.mp4", "too_few_distractors")
    assert "2 clips may stand beside it, and 3 are needed (1 same_source, 1 too_similar)" in drop["detail"]


def test_a_threshold_that_is_calibrated_is_stored(tmp_path, ten):
    with server() as one:
        rows = built(tmp_path, ten, one.url, *THREE, "--max_similarity", "calibrate", "--pooling", "max")
    threshold = told(tmp_path)["threshold"]
    assert -1 < threshold < 1
    assert all(row["provenance"]["max_similarity"] == threshold for row in rows)
    assert all(s < threshold for row in rows for s in row["provenance"]["similarity"] if s is not None)


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


def test_what_is_no_video_is_left_out_with_the_reason(tmp_path):
    clips = fields(tmp_path / "clips", ["red", "green", "blue"])
    fields(clips / "deeper", ["yellow"])
    sound(clips / "song.mp4")
    whole = (clips / "0-red.mp4").read_bytes()
    (clips / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (clips / "words.mp4").write_text("words")
    (clips / "notes.txt").write_text("words")
    with server() as one:
        rows = built(tmp_path, clips, one.url, "--distractors", 2, "--pool", 0)
    assert {row["id"] for row in rows} == {"0-red.mp4", "1-green.mp4", "2-blue.mp4", "deeper/0-yellow.mp4"}
    assert set(reasons(tmp_path)) == {"song.mp4", "cut.mp4", "words.mp4"}
    assert set(reasons(tmp_path).values()) <= {"no_frames", "broken_video"}


def test_a_clip_that_breaks_when_it_is_decoded_is_left_out_alone(tmp_path, ten, monkeypatch):
    def failing(clip):
        if "3-yellow" in str(clip.source):
            raise UnusableItem("rotten in its middle", "broken_video")
        return images_of(clip)

    monkeypatch.setattr(embedding, "images_of", failing)
    with server() as one:
        rows = built(tmp_path, ten, one.url, *THREE, "--limit", 6)
    assert reasons(tmp_path) == {"3-yellow.mp4": "broken_video"}
    assert len(rows) == 5


def test_long_files_are_cut_to_equal_clips_of_one_source(tmp_path):
    clips = fields(tmp_path / "clips", ["red", "green"])
    film(clips / "long.mp4", [("blue", 6), ("yellow", 6), ("cyan", 6)])
    with server() as one:
        rows = built(tmp_path, clips, one.url, "--distractors", 2, "--pool", 0, "--clip_seconds", 7)
        several = built(
            tmp_path, clips, one.url, "--distractors", 2, "--pool", 0, "--clip_seconds", 18, output="whole"
        )
    cut = [row for row in rows if row["id"].startswith("long.mp4")]
    assert [row["id"] for row in cut] == ["long.mp4@0-6", "long.mp4@6-12", "long.mp4@12-18"]
    assert [row["chosen"][0]["content"] for row in cut] == ["It is blue.", "It is yellow.", "It is cyan."]
    for row in cut:
        own = row["video"][row["anchor"]]
        assert own["end_s"] - own["start_s"] == 6
        assert all(own["start_s"] <= n / 4 < own["end_s"] for n in own["frames"])
        assert sorted(Path(c["source"]).name for c in row["video"]) == [
            "0-red.mp4",
            "1-green.mp4",
            "long.mp4",
        ]
    assert [row["id"] for row in several] == ["0-red.mp4", "1-green.mp4", "long.mp4"]


def test_a_budget_of_frames_is_split_by_length_and_rows_then_have_no_pool(tmp_path):
    clips = fields(tmp_path / "clips", ["red", "green"], 2)
    film(clips / "2-blue.mp4", [("blue", 8)])
    with server() as one:
        refused = run("longvpo-1", tmp_path, clips, one.url, "--distractors", 2, "--frame_budget", 12)
        assert "--pool 0" in refused.output
        rows = built(tmp_path, clips, one.url, "--distractors", 2, "--frame_budget", 12, "--pool", 0)
    for row in rows:
        counts = {colour_of(clip): len(clip["frames"]) for clip in row["video"]}
        assert sum(counts.values()) == 12
        assert counts["blue"] == 7  # one each, and 6 of the 9 others


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


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing_and_repeats_nothing(tmp_path, ten):
    with server() as one:
        whole = built(tmp_path, ten, one.url, *THREE, output="whole")
        needed = len(one.bodies)
    counted = 0
    for step, count in (("captions", 3), ("answers", 4)):
        with server(pause=0.1) as one:
            given = arguments("longvpo-1", tmp_path, ten, one.url, *THREE, output="parts")
            running = processes.start("-m", "prefopt", *given)
            journal = tmp_path / "parts" / f"{step}.journal.jsonl"
            end = time.monotonic() + 60
            while not (journal.exists() and journal.read_bytes().count(b"\n") > count):
                assert time.monotonic() < end
                assert not running.ended, running.read("stderr")
                time.sleep(0.005)
            running.kill()
        kept = sum(
            path.read_bytes().count(b"\n") - 1 for path in (tmp_path / "parts").glob("*.journal.jsonl")
        )
        assert counted < kept < needed
        counted = kept
    with server() as one:
        rows = built(tmp_path, ten, one.url, *THREE, output="parts")
        assert len(one.bodies) == needed - kept
    assert rows == whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--min_distractors", 9), "min_distractors is 9 and distractors 7"),
        (("--frame_budget", 5, "--pool", 0), "frame_budget is 5 for 8 clips"),
        (("--min_similarity", 0.9), "nothing lies between"),
        (("--max_similarity", "most"), "'most' is not a valid"),
        (("--writer", "./nowhere"), "--writer ./nowhere"),
        (("--writer", "nowhere.py:name"), "there is no file nowhere.py"),
        (("--captioner", "nowhere.py:name"), "--captioner nowhere.py:name"),
        (("--embedder", "nowhere"), "nowhere"),
        (("--prompts", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(tmp_path, ten, options, words):
    with server() as one:
        done = run("longvpo-1", tmp_path, ten, one.url, *options)
        assert done.exit_code in (1, 2)
        assert words in done.output
        assert not one.bodies


def test_a_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "clips").mkdir()
    with server() as one:
        done = run("longvpo-1", tmp_path, tmp_path / "clips", one.url)
    assert "holds 0 videos, of which none can be used" in done.output
