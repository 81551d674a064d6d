"""LVBench (arXiv 2406.08035): questions with four options about videos of half an hour to two hours.

Micro accuracy of all and of six capabilities, to several of which a question may belong. Most questions say where in the
video their evidence is, so accuracy is measured by its position, too.
"""

from __future__ import annotations

import math
import re
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
    ident,
    read_rows,
)
from prefopt.evaluation.benchmarks.choices import (
    VIDEO_SUFFIXES,
    listed,
    parts_of,
    predictions_file,
    read_predictions,
    tally,
    unit,
)
from prefopt.metrics.positions import of_bins

ANSWERS = "answers.json"
NEEDS = ""

BINS = 5
OPTION = re.compile(r"^\s*\(([A-J])\)", re.MULTILINE)


def questions(path: Path) -> list[Question]:
    """Read video_info.meta.jsonl, a video with its `qa` on each line, or rows of one question each (lmms-eval's table)."""
    found = []
    for row in read_rows(path):
        if "qa" in row:
            about: dict[str, Any] = {name: row[name] for name in ("key", "type", "video_info") if name in row}
            found += [_question({**about, **dict(inner)}, path) for inner in row["qa"]]
        else:
            found.append(_question(row, path))
    return asked_once(found, path)


def _question(row: Mapping[str, Any], path: Path) -> Question:
    if any(row.get(name) is None for name in ("uid", "question", "answer")):
        raise ValueError(
            f"{path}: a question has {', '.join(map(repr, row))}; needed 'uid', 'question' and 'answer': is this the file of"
            " another benchmark?"
        )
    video = str(row.get("video_path") or row.get("key"))
    names = (video,) if row.get("video_path") else tuple(f"{video}.{suffix}" for suffix in VIDEO_SUFFIXES)
    places = tuple(place for name in names for place in (name, f"all_videos/{name}", f"videos/{name}"))
    text = str(row["question"])
    if not OPTION.search(text):
        text = f"{text}\n{listed([str(option) for option in row.get('options') or ()])}"
    prompt = f"{text}\nAnswer the question with the option letter."
    return Question(ident(row["uid"]), prompt, None, row, NamedVideo(places))


read_answers, answers_file = read_predictions, predictions_file


def right(question: Question) -> tuple[str, int]:
    """The right letter, and how many options there are."""
    return str(question.row["answer"]).strip().strip("().").upper(), len(set(OPTION.findall(question.prompt)))


def evidence(row: Mapping[str, Any]) -> float | None:
    """Where the middle of the evidence lies, as a share of the video; None where that is not said.

    Example:
        >>> evidence({"time_reference": "14:00-16:00", "video_info": {"duration_minutes": 60}})
        0.25
    """
    times = re.findall(r"\d+(?::\d+(?:\.\d+)?)+", str(row.get("time_reference") or ""))
    minutes = (row.get("video_info") or {}).get("duration_minutes")
    if not times or not minutes:
        return None
    seconds = [
        sum(float(part) * 60**n for n, part in enumerate(reversed(time.split(":")))) for time in times[:2]
    ]
    share = sum(seconds) / len(seconds) / (60 * float(minutes))
    return share if 0 <= share < 1 else None  # some times lie behind the end of their video


def by_position(total: Tally, bins: int = BINS) -> dict[str, float]:
    """Accuracy of each part of the video, and what they say together."""
    counts = [total.get(f"n:{place}", 0) for place in range(bins)]
    names = [f"part {place + 1}" for place in range(bins)]
    if not sum(counts):
        return dict.fromkeys([*names, "worst", "spread", "middle_drop"], math.nan)
    found = of_bins([total.get(f"correct:{place}", 0) for place in range(bins)], counts)
    values = {"worst": found.worst_bin, "spread": found.spread, "middle_drop": found.middle_drop}
    accuracies = dict(zip(names, found.bin_accuracy, strict=True))
    return {name: math.nan if value is None else value for name, value in (accuracies | values).items()}


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """All, capabilities, and accuracy by the position of the evidence; questions of the same video are drawn together."""

    def kinds(question: Question) -> list[str]:
        kind = question.row.get("question_type") or ()
        return [kind] if isinstance(kind, str) else [str(one) for one in kind]

    found = parts_of(questions, answers, right, kinds)
    placed = []
    for question in questions:
        share = evidence(question.row)
        if share is not None:
            place = int(share * BINS)
            correct = tally(right(question)[0], answers[question.id], right(question)[1])["correct"]
            placed.append((unit(question), {f"n:{place}": 1, f"correct:{place}": correct}))
    return [*found, Part("position of the evidence", by_unit(placed), by_position)] if placed else found
