"""MLVU (arXiv 2406.04264), the multiple-choice tasks of its dev set: seven task types of videos of minutes to hours.

M-Avg is the mean of the seven types' accuracies. Sub-scene captioning and summaries, whose answers a judge rates, are left
out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks.base import (
    Given,
    NamedVideo,
    Part,
    Question,
    Tally,
    asked_once,
    by_unit,
    read_rows,
)
from prefopt.evaluation.benchmarks.choices import (
    figures,
    files_of,
    letter_of,
    listed,
    parts_of,
    predictions_file,
    read_predictions,
    tally,
    unit,
)

ANSWERS = "answers.json"
NEEDS = ""

TYPES = ("anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning")
OTHER_NAMES = {"findNeedle": "needle", "needleQA": "needle"}


def questions(path: Path) -> list[Question]:
    """Read the folder of published JSON files, one of them, or the table of lmms-eval (.parquet, `task_type`).

    Raises:
        ValueError: no question with options in it.
    """
    found: list[Question] = []
    numbers: Counter[str] = Counter()
    for file in files_of(path, ".json"):
        rows = read_rows(file, ("question",))
        for row in rows:
            if not _options(row):  # captions and summaries
                continue
            kind = str(row.get("question_type") or row.get("task_type") or file.stem.partition("_")[2])
            kind = OTHER_NAMES.get(kind, kind)
            found.append(_question(f"{kind}/{numbers[kind]}", kind, row, file))
            numbers[kind] += 1
    if not found:
        raise ValueError(f"{path} has no question with `candidates`: needed MLVU's multiple-choice tasks")
    return asked_once(found, path)


def _options(row: Mapping[str, Any]) -> list[str]:
    return [str(option) for option in row.get("candidates") or ()]


def _question(name: str, kind: str, row: Mapping[str, Any], file: Path) -> Question:
    video = str(row.get("video_name") or row.get("video"))
    places = (video, f"{file.stem}/{video}", f"video/{file.stem}/{video}", f"{kind}/{video}")
    text = str(row["question"]).partition("\n")[0]  # the table of lmms-eval lists the options behind it, too
    prompt = f"{text}\n{listed(_options(row))}\nOnly give the best option.\nBest option: ("
    return Question(name, prompt, None, {**row, "type": kind}, NamedVideo(places))


read_answers, answers_file = read_predictions, predictions_file


def right(question: Question) -> tuple[str, int]:
    """The right letter, and how many options there are."""
    options = _options(question.row)
    return letter_of(question.row, options, f"question {question.id}"), len(options)


def averages(total: Tally) -> dict[str, float]:
    """Micro accuracy, and M-Avg, which is undefined unless all seven types are there."""
    shares = [
        figures({"n": total.get(f"n:{kind}", 0), "correct": total.get(f"correct:{kind}", 0)})
        for kind in TYPES
    ]
    return {**figures(total), "m_avg": sum(share["accuracy"] for share in shares) / len(TYPES)}


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """All questions with M-Avg, and each type; questions of the same video are drawn together."""
    _, *kinds = parts_of(questions, answers, right, lambda question: [question.row["type"]])
    counted = []
    for question in questions:
        one, kind = tally(right(question)[0], answers[question.id], right(question)[1]), question.row["type"]
        counted.append((unit(question), {**one, f"n:{kind}": 1, f"correct:{kind}": one["correct"]}))
    return [Part("all", by_unit(counted), averages), *kinds]
