"""Video-MME (arXiv 2405.21075): three questions with four options about each of 900 videos; short, medium and long ones.

Micro accuracy of all, of each duration, domain and type of task; with or without subtitles. Sound is not played.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks.base import (
    Given,
    NamedVideo,
    Part,
    Question,
    asked_once,
    ident,
    json_list,
    keyed,
    read_rows,
)
from prefopt.evaluation.benchmarks.choices import VIDEO_SUFFIXES, letter_of, parts_of

ANSWERS = "answers.json"
NEEDS = ""

ASKED = (
    "Select the best answer to the following multiple-choice question based on the video{also}. Respond with only the letter "
    "(A, B, C, or D) of the correct option."
)
OF_VIDEO = ("video_id", "duration", "domain", "sub_category", "url", "videoID")


def questions(path: Path) -> list[Question]:
    """Read the published table (.parquet), or a file like the official template, a video with its `questions` each."""
    found = []
    for row in _flat(path):
        name = str(row.get("videoID") or row.get("video_id"))
        films = tuple(f"{name}.{suffix}" for suffix in VIDEO_SUFFIXES)
        asked = "\n".join([str(row["question"]), *_options(row), "The best answer is:"])
        film = NamedVideo(
            tuple(place for film in films for place in (film, f"data/{film}", f"videos/{film}")),
            subtitles=(f"{name}.srt", f"subtitle/{name}.srt"),
            subtitled_prompt=f"This video's subtitles are listed below:\n{{subtitles}}\n"
            f"{ASKED.format(also=' and the subtitles')}\n{asked}",
        )
        prompt = f"{ASKED.format(also='')}\n{asked}"
        found.append(Question(ident(row["question_id"]), prompt, None, row, film))
    return asked_once(found, path)


def _flat(path: Path) -> Iterator[dict[str, Any]]:
    for row in read_rows(path):
        inner = row.get("questions")
        about = {name: row[name] for name in OF_VIDEO if name in row}
        for one in [row] if inner is None else [{**about, **dict(each)} for each in inner]:
            missing = [name for name in ("question_id", "question", "options") if one.get(name) is None]
            if missing:
                raise ValueError(
                    f"{path}: a question has no {missing[0]!r}, only {', '.join(map(repr, one))}: is this the file of another "
                    "benchmark?"
                )
            yield one


def _options(row: Mapping[str, Any]) -> list[str]:
    """With their letters, as published: "A. Yes."."""
    return [str(option) for option in row["options"]]


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read a file like the official template: `response` of each question."""
    rows = list(_flat(path))
    if not any("response" in row for row in rows):
        raise ValueError(f"{path} has no `response`: needed the model's answers there")
    return keyed(
        ((ident(row["question_id"]), str(row.get("response") or "")) for row in rows),
        path,
    )


def answers_file(questions: Sequence[Question], answers: Mapping[str, str]) -> str:
    """The official template: videos with their questions, and the model's words as `response`."""
    videos: dict[str, dict[str, Any]] = {}
    for question in questions:
        row = question.row
        about = {name: row[name] for name in OF_VIDEO if row.get(name) is not None}
        video = videos.setdefault(str(row.get("video_id") or row.get("videoID")), {**about, "questions": []})
        own = {name: row.get(name) for name in ("question_id", "task_type", "question", "answer")}
        video["questions"].append({**own, "options": _options(row), "response": answers[question.id]})
    return json_list(videos.values())


def right(question: Question) -> tuple[str, int]:
    """The right letter, and how many options there are."""
    return letter_of(question.row, _options(question.row), f"question {question.id}"), len(
        _options(question.row)
    )


def groups(question: Question) -> list[str]:
    """Duration, domain and type of task."""
    names = (("duration", "duration"), ("domain", "domain"), ("task", "task_type"))
    return [f"{name} {question.row[key]}" for name, key in names if question.row.get(key)]


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """All, durations, domains and tasks; the questions of a video are drawn together."""
    return parts_of(questions, answers, right, groups)
