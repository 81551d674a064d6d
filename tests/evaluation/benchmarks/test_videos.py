"""Benchmarks of long video by hand: their files as published, letters, averages, positions, files of answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from prefopt.evaluation.benchmarks import find, longvideobench, lvbench, mlvu, mvbench, videomme
from prefopt.evaluation.benchmarks.base import Given
from prefopt.evaluation.benchmarks.choices import option_letter, runs_on, tally
from prefopt.evaluation.benchmarks.comparison import differences
from prefopt.evaluation.benchmarks.lmms_eval import command, read_results
from prefopt.evaluation.benchmarks.subtitles import Line, read_subtitles, shown_at


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def figures(benchmark: Any, questions: Any, answers: dict[str, str]) -> dict[str, dict[str, float]]:
    return {part.name: part.score().figures for part in benchmark.parts(questions, answers, Given())}


def counts(benchmark: Any, questions: Any, answers: dict[str, str]) -> dict[str, float]:
    return dict(benchmark.parts(questions, answers, Given())[0].score().counts)


# -- letters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("b", "B"), ("(b) two", "B"), ("B) two", "B"), ("B. two", "B"), ("**B**", "B"), (" (B)\n", "B"), ("B: x", "B"),
        ("The answer is B.", "B"), ("The best answer is: (B) two", "B"), ("Answer: B", "B"), ("Option: B", "B"),
        ("the correct option is B", "B"), ("Not A. The answer is B", "B"), ("The answer is A? No, the answer is B", "B"),
        ("It shows B, I think", "B"), ("Because of this, (B).", "B"), ("Video shows B's hand; so C", "C"),
        ("", None), ("(", None), ("two", None), ("Bananas", None), ("E", None), ("The answer is E.", None), ("a dog", None),
        ("The answer is a dog", None), ("Vitamin-rich", None),
    ],
)  # fmt: skip
def test_letters(answer: str, letter: str | None) -> None:
    assert option_letter(answer, 4) == letter
    assert tally("B", answer, 4)["correct"] == (letter == "B")
    assert tally("B", answer, 4)["no_letter"] == (letter is None)


def test_letters_are_those_that_are_offered() -> None:
    assert [option_letter("E", n) for n in (4, 5)] == [None, "E"]
    assert option_letter("The answer is E, or D", 4) == "D"
    with pytest.raises(ValueError, match="the right answer is 'E' of 4 options"):
        tally("E", "A", 4)


def test_an_article_is_taken_for_a_letter_and_told() -> None:
    assert [runs_on(text, 4) for text in ("A dog runs", "A", "A. dog", "(A) dog", "none")] == [True] + [
        False
    ] * 4
    assert tally("A", "A dog runs", 4) == {
        "n": 1, "correct": True, "no_letter": False, "empty": False, "letter_in_text": True,
    }  # fmt: skip
    assert tally("A", " ", 4)["empty"]


# -- MLVU --------------------------------------------------------------------------------------------------


def mlvu_folder(folder: Path) -> Path:
    """Two questions of each type, both about one video; captions beside them."""
    names = ("plotQA", "findNeedle", "ego", "count", "order", "anomaly_reco", "topic_reasoning")
    for number, kind in enumerate(names, 1):
        rows = [
            {"video": f"{kind}_{n // 2}.mp4", "duration": 300.0, "question": f"Which of {n}?", "question_type": kind,
             "candidates": ["red", "green", "blue", "none"], "answer": ["red", "blue"][n % 2]}
            for n in range(2)
        ]  # fmt: skip
        written(folder / f"{number}_{kind}.json", rows)
    written(
        folder / "9_summary.json", [{"video": "s.mp4", "question": "Summarise.", "answer": "A man walks."}]
    )
    return folder


def test_mlvu_reads_its_folder_and_averages_over_types(tmp_path: Path) -> None:
    questions = mlvu.questions(mlvu_folder(tmp_path))
    assert len(questions) == 14
    first = next(q for q in questions if q.id == "plotQA/0")
    assert first.prompt == (
        "Which of 0?\n(A) red\n(B) green\n(C) blue\n(D) none\nOnly give the best option.\nBest option: ("
    )
    assert first.video is not None
    assert "1_plotQA/plotQA_0.mp4" in first.video.names
    assert {q.id.partition("/")[0] for q in questions} == set(mlvu.TYPES)
    # right where A is: one of two everywhere; and both of "ego"
    answers = {q.id: "C" if q.id == "ego/1" else "A) red" for q in questions}
    found = figures(mlvu, questions, answers)
    assert found["all"] == {"accuracy": pytest.approx(8 / 14), "m_avg": pytest.approx((6 * 0.5 + 1) / 7)}
    assert found["ego"] == {"accuracy": 1.0}
    assert found["count"] == {"accuracy": 0.5}
    only = [q for q in questions if q.id.startswith(("ego", "count"))]
    assert math.isnan(
        figures(mlvu, only, answers)["all"]["m_avg"]
    )  # of two types it would pass for that of seven
    uneven = [q for q in questions if q.id != "count/1"]
    assert figures(mlvu, uneven, answers)["all"]["m_avg"] == pytest.approx((5 * 0.5 + 2) / 7)
    assert figures(mlvu, uneven, answers)["all"]["accuracy"] == pytest.approx(8 / 13)


def test_mlvu_as_lmms_eval_keeps_it(tmp_path: Path) -> None:
    rows = [
        {"video_name": "1.mp4", "question": "Which?\n(A) red\n(B) green", "candidates": ["red", "green"], "answer": "B",
         "task_type": "order"},
    ]  # fmt: skip
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    (question,) = mlvu.questions(tmp_path / "test.parquet")
    assert question.prompt.startswith("Which?\n(A) red\n(B) green\nOnly")
    assert figures(mlvu, [question], {"order/0": "(B"})["order"]["accuracy"] == 1


def test_answers_that_are_no_option_are_refused(tmp_path: Path) -> None:
    rows = [
        {
            "video": "1.mp4",
            "question": "?",
            "candidates": ["red", "green"],
            "answer": "blue",
            "question_type": "ego",
        }
    ]
    questions = mlvu.questions(written(tmp_path / "3_ego.json", rows))
    with pytest.raises(ValueError, match="question ego/0: the right answer is 'blue'"):
        mlvu.parts(questions, {"ego/0": "A"}, Given())
    with pytest.raises(ValueError, match="no question with `candidates`"):
        mlvu.questions(written(tmp_path / "9_summary.json", [{"question": "Summarise.", "answer": "x"}]))
    with pytest.raises(ValueError, match=r"has no files \*\.json"):
        mlvu.questions(tmp_path / "empty" if (tmp_path / "empty").mkdir() is None else tmp_path)


# -- LongVideoBench ----------------------------------------------------------------------------------------

LVB = [
    {"id": f"v{n // 2}_{n}", "video_id": f"v{n // 2}", "video_path": f"v{n // 2}.mp4", "question": f"What of {n}?",
     "candidates": ["red", "green", "blue"], "correct_choice": n % 3, "duration_group": [15, 60, 600, 3600][n],
     "question_category": "TAA" if n < 3 else "S2E", "subtitle_path": f"v{n // 2}_en.json", "starting_timestamp_for_subtitles": 10}
    for n in range(4)
]  # fmt: skip


def test_longvideobench(tmp_path: Path) -> None:
    questions = longvideobench.questions(written(tmp_path / "lvb_val.json", LVB))
    assert questions[0].prompt == (
        "What of 0?\nA. red\nB. green\nC. blue\nAnswer with the option's letter from the given choices directly."
    )
    video = questions[0].video
    assert video is not None
    assert (video.names, video.subtitles, video.subtitles_from_s) == (
        ("v0.mp4", "videos/v0.mp4"), ("v0_en.json", "subtitles/v0_en.json"), 10.0,
    )  # fmt: skip
    answers = {q.id: text for q, text in zip(questions, ("A", "B", "", "E"), strict=True)}
    found = figures(longvideobench, questions, answers)
    assert found["all"] == {"accuracy": 0.5}
    assert found["duration 15 to 60 s"] == {"accuracy": 1.0}
    assert found["duration 15 to 60 min"] == {"accuracy": 0.0}
    assert found["category TAA"]["accuracy"] == pytest.approx(2 / 3)
    assert (
        counts(longvideobench, questions, answers)["no_letter"] == 2
    )  # never a guess, as in the official script
    assert counts(longvideobench, questions, answers)["empty"] == 1
    whole = longvideobench.parts(questions, answers, Given())[0]
    assert set(whole.tallies) == {"v0.mp4", "v1.mp4"}  # drawn together


def test_longvideobench_as_a_table_and_its_test_split(tmp_path: Path) -> None:
    rows = [
        {**{k: v for k, v in row.items() if k != "candidates"}, "option0": "red", "option1": "green", "option2": "N/A",
         "option3": "N/A", "option4": "N/A", "correct_choice": 1}
        for row in LVB
    ]  # fmt: skip
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "validation.parquet")
    questions = longvideobench.questions(tmp_path / "validation.parquet")
    assert "B. green\nAnswer" in questions[0].prompt
    answers = {q.id: "B" for q in questions}
    assert figures(longvideobench, questions, answers)["all"]["accuracy"] == 1
    test = [{k: v for k, v in row.items() if k != "correct_choice"} for row in LVB]
    questions = longvideobench.questions(written(tmp_path / "lvb_test_wo_gt.json", test))
    assert longvideobench.parts(questions, answers, Given()) == []
    assert json.loads(longvideobench.answers_file(questions, answers)) == answers


# -- LVBench -----------------------------------------------------------------------------------------------


def lvbench_file(folder: Path) -> Path:
    options = "\n(A) 1\n(B) 2\n(C) 3\n(D) 4"
    lines = [
        {"key": f"k{video}", "type": "cartoon", "video_info": {"duration_minutes": 100.0}, "qa": [
            {"uid": str(video * 5 + n), "question": f"What of {n}?{options}", "answer": "ABCDA"[n],
             "question_type": ["reasoning", "summarization"] if n == 0 else ["reasoning"],
             "time_reference": f"{20 * n:02}:00-{20 * n + 10:02}:00" if n < 3 else f"01:{20 * n - 60:02}:00"}
            for n in range(5)
        ]}
        for video in range(2)
    ]  # fmt: skip
    return written(folder / "video_info.meta.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def test_lvbench_by_capability_and_by_position(tmp_path: Path) -> None:
    questions = lvbench.questions(lvbench_file(tmp_path))
    assert len(questions) == 10
    assert questions[3].prompt.endswith("(D) 4\nAnswer the question with the option letter.")
    assert questions[0].video is not None
    assert "all_videos/k0.mp4" in questions[0].video.names
    assert [lvbench.evidence(q.row) for q in questions[:5]] == [0.05, 0.25, 0.45, 0.6, 0.8]
    # right at the beginning and at the end, and once in the middle
    answers = {q.id: "A" for q in questions}
    answers["2"] = "C"
    found = figures(lvbench, questions, answers)
    assert found["all"]["accuracy"] == 0.5
    assert found["summarization"]["accuracy"] == 1
    assert found["reasoning"]["accuracy"] == 0.5
    assert found["position of the evidence"] == pytest.approx(
        {
            "part 1": 1,
            "part 2": 0,
            "part 3": 0.5,
            "part 4": 0,
            "part 5": 1,
            "worst": 0,
            "spread": 1,
            "middle_drop": 5 / 6,
        }
    )
    better = {q.id: "ABCDA"[n % 5] for n, q in enumerate(questions)}
    place = lvbench.parts(questions, better, Given())[-1]
    apart = differences(place, lvbench.parts(questions, answers, Given())[-1], resamples=50)
    assert apart["spread"].value == -1


@pytest.mark.parametrize(
    "row",
    [
        {"time_reference": "00:10"}, {"video_info": {"duration_minutes": 10}}, {},
        {"time_reference": "00:20:00", "video_info": {"duration_minutes": 10}},
        {"time_reference": "unknown", "video_info": {"duration_minutes": 10}},
    ],
)  # fmt: skip
def test_evidence_that_is_nowhere_is_left_out(row: dict[str, Any]) -> None:
    assert lvbench.evidence(row) is None
    assert math.isnan(lvbench.by_position({})["worst"])


def test_lvbench_as_rows_of_one_question_each(tmp_path: Path) -> None:
    rows = [
        {
            "uid": "7",
            "question": "What?",
            "options": ["1", "2"],
            "answer": "B",
            "video_path": "x.mp4",
            "question_type": "reasoning",
        }
    ]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    questions = lvbench.questions(tmp_path / "train.parquet")
    assert "What?\n(A) 1\n(B) 2\n" in questions[0].prompt
    assert list(figures(lvbench, questions, {"7": "B"})) == ["all", "reasoning"]
    with pytest.raises(ValueError, match="is this the file of another benchmark"):
        lvbench.questions(written(tmp_path / "other.json", [{"id": 1, "text": "?"}]))


# -- Video-MME ---------------------------------------------------------------------------------------------

MME = [
    {"video_id": f"{n // 2:03}", "duration": ["short", "long"][n // 2], "domain": "Knowledge", "sub_category": "Geography",
     "url": "https://example.org", "videoID": f"yt{n // 2}", "question_id": f"{n // 2:03}-{n % 2 + 1}", "task_type": "OCR Problems",
     "question": f"What of {n}?", "options": ["A. Red.", "B. Green.", "C. Blue.", "D. None."], "answer": "AB"[n % 2]}
    for n in range(4)
]  # fmt: skip


def test_videomme(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.Table.from_pylist(MME), tmp_path / "test.parquet")
    questions = videomme.questions(tmp_path / "test.parquet")
    assert questions[0].prompt == (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
        "(A, B, C, or D) of the correct option.\nWhat of 0?\nA. Red.\nB. Green.\nC. Blue.\nD. None.\nThe best answer is:"
    )
    video = questions[0].video
    assert video is not None
    assert {"yt0.mp4", "data/yt0.mkv"} <= set(video.names)
    assert "based on the video and the subtitles. Respond" in video.subtitled_prompt
    assert video.subtitled_prompt.startswith("This video's subtitles are listed below:\n{subtitles}\nSelect")
    answers = {q.id: "A. Red." for q in questions} | {"001-2": "B"}
    found = figures(videomme, questions, answers)
    assert found["all"]["accuracy"] == 0.75
    assert (found["duration short"]["accuracy"], found["duration long"]["accuracy"]) == (0.5, 1)
    assert {"domain Knowledge", "task OCR Problems"} <= set(found)
    path = written(tmp_path / "answers.json", videomme.answers_file(questions, answers))
    official = json.loads(path.read_text())
    assert [row["video_id"] for row in official] == ["000", "001"]
    assert [one["response"] for one in official[1]["questions"]] == ["A. Red.", "B"]
    assert videomme.read_answers(path, questions) == answers
    again = videomme.questions(path)  # the template holds the questions, too
    assert [q.prompt for q in again] == [q.prompt for q in questions]
    assert figures(videomme, again, answers) == found


# -- MVBench -----------------------------------------------------------------------------------------------


def test_mvbench_bounds_and_frames(tmp_path: Path) -> None:
    bounded = [
        {"video": "a.mp4", "question": "?", "candidates": ["x", "y"], "answer": "y", "start": 1.5, "end": 4.0}
    ]
    frames = [
        {
            "video": "clip_7",
            "question": "?",
            "candidates": ["x", "y", "z"],
            "answer": "x",
            "start": 0,
            "end": 3,
        }
    ]
    plain = [{"video": "b.webm", "question": "Which way?", "candidates": ["x", "y"], "answer": "x"}] * 2
    written(tmp_path / "action_sequence.json", bounded)
    written(tmp_path / "episodic_reasoning.json", frames)
    written(tmp_path / "moving_direction.json", plain)
    questions = {q.id: q for q in mvbench.questions(tmp_path)}
    video = questions["action_sequence/0"].video
    assert video is not None
    assert (video.start_s, video.end_s) == (1.5, 4.0)
    assert "star/Charades_v1_480/a.mp4" in video.names
    video = questions["episodic_reasoning/0"].video
    assert video is not None
    assert (video.fps, video.names[0]) == (3.0, "tvqa/frames_fps3_hq/clip_7")
    video = questions["moving_direction/1"].video
    assert video is not None
    assert (video.start_s, video.end_s) == (0.0, None)
    assert questions["moving_direction/0"].prompt.endswith(
        "Question: Which way?\nOptions:\n(A) x\n(B) y\nOnly give the best option."
    )
    answers = {
        "action_sequence/0": "(B) y",
        "episodic_reasoning/0": "",
        "moving_direction/0": "A",
        "moving_direction/1": "B",
    }
    found = figures(mvbench, list(questions.values()), answers)
    assert found["all"]["accuracy"] == 0.5  # the empty answer is wrong, which the official script leaves out
    assert found["moving_direction"]["accuracy"] == 0.5
    with pytest.raises(ValueError, match="is none of MVBench's tasks"):
        mvbench.questions(written(tmp_path / "else" / "cooking.json", plain))


@pytest.mark.parametrize("name", ["mlvu", "lvbench", "mvbench"])
def test_answers_are_read_as_they_are_written(name: str, tmp_path: Path) -> None:
    benchmark: Any = find(name)
    if name == "mlvu":
        questions = benchmark.questions(mlvu_folder(tmp_path / "q"))
    elif name == "lvbench":
        questions = benchmark.questions(lvbench_file(tmp_path))
    else:
        rows = [{"video": "a.mp4", "question": "?", "candidates": ["x", "y"], "answer": "y"}]
        questions = benchmark.questions(written(tmp_path / "action_count.json", rows))
    answers = {q.id: f"(A) – {n}" if n else "" for n, q in enumerate(questions)}
    path = written(tmp_path / benchmark.ANSWERS, benchmark.answers_file(questions, answers))
    assert benchmark.read_answers(path, questions) == answers
    with pytest.raises(ValueError, match="no `pred`"):
        benchmark.read_answers(written(tmp_path / "other.json", [{"id": "1"}]), questions)


# -- subtitles ---------------------------------------------------------------------------------------------


def test_subtitles_of_both_kinds(tmp_path: Path) -> None:
    srt = (
        '1\n00:00:01,500 --> 00:00:03,000\n<font color="white" size=".72c">Hello\nthere.</font>\n\n'
        "2\r\n00:01:00,000 --> 01:00:02,250\r\nWorld.\r\n\r\n3\n00:00:05,000 --> 00:00:06,000\n\n"
    )
    lines = read_subtitles(written(tmp_path / "a.srt", srt))
    assert lines == [Line(1.5, 3.0, "Hello there."), Line(60.0, 3602.25, "World.")]
    rows = [
        {"start": "00:00:01.500", "end": "00:00:03.000", "line": "Hello."},
        {"timestamp": [4.0, None], "text": "World."},
    ]
    lines = read_subtitles(written(tmp_path / "a.json", rows))
    assert lines == [Line(1.5, 3.0, "Hello."), Line(4.0, math.inf, "World.")]
    assert shown_at(lines, [2.0, 2.5]) == "Hello."
    assert shown_at(lines, [100.0, 1.5]) == "Hello.\nWorld."
    assert shown_at(lines, [3.0]) == ""
    for content in ("{", '{"a": 1}', '[{"line": "x"}]'):
        with pytest.raises(ValueError, match="holds no subtitles"):
            read_subtitles(written(tmp_path / "b.json", content))


# -- lmms-eval ---------------------------------------------------------------------------------------------


def test_the_command_for_lmms_eval(tmp_path: Path) -> None:
    model = tmp_path / "my model"
    written(model / "config.json", {"model_type": "internvl"})
    text = command(str(model), "mlvu", tmp_path / "out", 64)
    assert text.startswith("#!/bin/sh\n")
    assert f"--model internvl_hf --model_args 'pretrained={model},num_frames=64' --tasks mlvu_dev" in text
    assert "--tasks videomme_w_subtitle" in command(str(model), "videomme", tmp_path, 64, subtitles=True)
    with pytest.raises(ValueError, match="mvbench has no task of lmms-eval with subtitles"):
        command(str(model), "mvbench", tmp_path, 64, subtitles=True)
    with pytest.raises(ValueError, match="pope has no task"):
        command(str(model), "pope", tmp_path, 64)
    written(model / "config.json", {"model_type": "llama"})
    with pytest.raises(ValueError, match="has model_type llama"):
        command(str(model), "mlvu", tmp_path, 64)
    written(model / "adapter_config.json", {})
    with pytest.raises(ValueError, match="is an adapter"):
        command(str(model), "mlvu", tmp_path, 64)


def test_results_of_lmms_eval(tmp_path: Path) -> None:
    results = {
        "mlvu_dev": {
            "alias": "mlvu_dev",
            "mlvu_percetion_score,none": 71.25,
            "mlvu_percetion_score_stderr,none": "N/A",
        },
        "lvbench": {"lvbench/lvbench_score,none": 0.5, "lvbench/lvbench_score_stderr,none": 0.01},
        "mvbench": {" ": " ", "alias": "mvbench"},
    }
    found = read_results(written(tmp_path / "run_results.json", {"results": results}))
    assert found == {"mlvu_dev": {"mlvu_percetion_score": 71.25}, "lvbench": {"lvbench_score": 0.5}}
    with pytest.raises(ValueError, match="has no `results`"):
        read_results(written(tmp_path / "other.json", []))
