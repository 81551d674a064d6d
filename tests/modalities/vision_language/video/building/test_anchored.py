"""`prefopt build longvpo-1`: the right clips beside each other, the right answers, or a reason."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

import processes
from modalities.vision_language.video.building.film_runs import (
    THREE,
    arguments,
    colour_of,
    fields,
    film,
    read,
    reasons,
    rows_built,
    run,
    server,
    shown,
    sound,
    told,
)
from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.building.steps import said as said_by_user
from prefopt.modalities.vision_language.generating import request_about
from prefopt.modalities.vision_language.rows import load_pictured
from prefopt.modalities.vision_language.video.building import embedding
from prefopt.modalities.vision_language.video.frames import images_of
from prefopt.modalities.vision_language.video.videos import Video


def built(folder, data, url, *options, **more):
    return rows_built("longvpo-1", folder, data, url, *options, **more)


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
            asked = said_by_user("Which colour is the field that can be seen?")
            request = request_about("any", asked, (video,))
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
