"""LongVideoBench (arXiv 2407.15754): questions that refer to a moment of a video of up to an hour, with up to five options.

Micro accuracy of all, of each duration group and of each category of questions. The test split has no right answers: its
answers are written for the benchmark's server and not scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks.base import (
    Given,
    NamedVideo,
    Part,
    Question,
    asked_once,
    complete,
    ident,
    read_json,
    read_rows,
)
from prefopt.evaluation.benchmarks.choices import LETTERS, listed, parts_of

ANSWERS = "answers.json"
NEEDS = "the validation split (lvb_val.json): the test split is scored by the benchmark's server"

MOST = 5
ASKED = "Answer with the option's letter from the given choices directly."
DURATIONS = {"15": "8 to 15 s", "60": "15 to 60 s", "600": "3 to 10 min", "3600": "15 to 60 min"}


def questions(path: Path) -> list[Question]:
    """Read lvb_val.json (`candidates`) or the published table (.parquet, `option0` to `option4`)."""
    found = []
    for row in read_rows(path, ("id", "question", "video_path")):
        video, options = str(row["video_path"]), _options(row)
        if not options:
            raise ValueError(
                f"{path}: question {row['id']!r} has no options; needed `candidates`, or `option0` to `option4`"
            )
        subtitles = str(row.get("subtitle_path") or "")
        prompt = f"{row['question']}\n{listed(options, '{letter}. {option}')}\n{ASKED}"
        film = NamedVideo(
            (video, f"videos/{video}"),
            subtitles=(subtitles, f"subtitles/{subtitles}") if subtitles else (),
            subtitles_from_s=float(row.get("starting_timestamp_for_subtitles") or 0),
            subtitled_prompt=f"This video's subtitles are listed below:\n{{subtitles}}\n{prompt}",
        )
        found.append(Question(ident(row["id"]), prompt, None, row, film))
    return asked_once(found, path)


def _options(row: Mapping[str, Any]) -> list[str]:
    if row.get("candidates") is not None:
        return [str(option) for option in row["candidates"]]
    options = [row.get(f"option{n}") for n in range(MOST)]
    return [str(option) for option in options if option not in (None, "N/A")]


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read `{id: answer}`, as answers are submitted.

    Raises:
        ValueError: something else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}; needed an object of answers by id")
    return {ident(name): "" if answer is None else str(answer) for name, answer in found.items()}


def answers_file(questions: Sequence[Question], answers: Mapping[str, str]) -> str:
    """`{id: answer}`."""
    return json.dumps({q.id: answers[q.id] for q in questions}, ensure_ascii=False, indent=1) + "\n"


def right(question: Question) -> tuple[str, int]:
    """The right letter, and how many options there are."""
    options, choice = len(_options(question.row)), int(question.row["correct_choice"])
    if not 0 <= choice < options:
        raise ValueError(
            f"question {question.id}: correct_choice is {choice}, and there are {options} options"
        )
    return LETTERS[choice], options


def groups(question: Question) -> list[str]:
    """Duration group and category."""
    duration, category = (question.row.get(name) for name in ("duration_group", "question_category"))
    found = [] if duration is None else [f"duration {DURATIONS.get(ident(duration), ident(duration))}"]
    return found if category is None else [*found, f"category {category}"]


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """All, duration groups and categories; none of the test split."""
    complete(answers, [question.id for question in questions], "the answers")
    if any(question.row.get("correct_choice") is None for question in questions):
        return []
    return parts_of(questions, answers, right, groups)
