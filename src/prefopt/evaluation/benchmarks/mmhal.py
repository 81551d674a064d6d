"""MMHal-Bench (arXiv 2309.14525): 96 questions of eight types, rated 0 to 6 by a judge; below 3 is a hallucination."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks.base import (
    Given,
    Part,
    Question,
    Score,
    Tally,
    json_list,
    ratio,
    read_rows,
    scored,
)

ANSWERS = "answers.json"
NEEDS = "a judge's ratings, one a question in their order, given as --judged"

TYPES = 8
RATING = re.compile(r"rating:\s*([0-6])(?!\d)", re.IGNORECASE)


def mmhal(ratings: Iterable[int | None]) -> Score:
    """Mean rating, share of hallucinations (below 3) and informativeness, mean of (s - 3 if s >= 3 else s) / 3.

    Args:
        ratings: 0 to 6; None where the judge's words held no rating, or several: it counts as 0, and is counted.

    Raises:
        ValueError: another rating.

    Example:
        >>> mmhal([6, 2, None]).counts["unparsable"]
        1
    """
    return scored(map(tally, ratings), figures)


def tally(rating: int | None) -> Tally:
    """Counts of one rating."""
    if rating is not None and rating not in range(7):
        raise ValueError(f"a rating is {rating!r}; needed 0 to 6")
    value = rating or 0
    return {
        "n": 1, "sum": value, "hallucinating": value < 3, "informative": value - 3 if value >= 3 else value,
        "unparsable": rating is None,
    }  # fmt: skip


def figures(total: Tally) -> dict[str, float]:
    """Figures of summed counts."""
    n = total.get("n", 0)
    return {
        "score": ratio(total.get("sum", 0), n),
        "hallucination_rate": ratio(total.get("hallucinating", 0), n),
        "informativeness": ratio(total.get("informative", 0), 3 * n),
    }


def parse_rating(text: str) -> int | None:
    """The rating in a judge's words, "Rating: 4"; None where there is none, or several that differ.

    Example:
        >>> parse_rating("No hallucination. Rating: 5, very informative"), parse_rating("Rating: 10")
        (5, None)
    """
    found = set(RATING.findall(text))
    return int(found.pop()) if len(found) == 1 else None


def questions(path: Path) -> list[Question]:
    """Read response_template.json; the order of the questions says their type."""
    rows = read_rows(path, ("question", "image_src"))
    return [Question(str(number), str(row["question"]), _names(row), row) for number, row in enumerate(rows)]


def _names(row: Mapping[str, Any]) -> tuple[str, ...]:
    """An address on the web: the file's name at its end lies in the folder of images."""
    name = str(row["image_src"]).rpartition("/")[2]
    return (name, f"{row['image_id']}.jpg") if row.get("image_id") else (name,)


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read rows as published with `model_answer`, in their order.

    Raises:
        ValueError: another number of rows, or another question in a row.
    """
    rows = read_rows(path, ("question", "model_answer"))
    if len(rows) < len(questions):
        raise ValueError(
            f"{path} has {len(rows)} answers, and there are {len(questions)} questions: needed all, in order"
        )
    for number, (row, question) in enumerate(zip(rows, questions, strict=False), 1):
        if row["question"] != question.row["question"]:
            raise ValueError(
                f"{path}, answer {number} is to {row['question']!r}, and question {number} is {question.prompt!r}: needed "
                "the order of the questions"
            )
    return {str(number): str(row["model_answer"]) for number, row in enumerate(rows)}


def answers_file(questions: Sequence[Question], answers: Mapping[str, str]) -> str:
    """The published rows with `model_answer`, as the official judge reads them."""
    return json_list({**q.row, "model_answer": answers[q.id]} for q in questions)


def read_ratings(path: Path) -> list[int | None]:
    """Read ratings in the order of the questions.

    Args:
        path: rows of the judge's replies, as the official script saves them (`choices`, of chat completions), or of `review`,
            its words, or of `rating`, a number.

    Raises:
        ValueError: rows that are none of these.
    """
    return [_rating(row, path) for row in read_rows(path)]


def _rating(row: Mapping[str, Any], path: Path) -> int | None:
    try:
        if "choices" in row:
            return parse_rating(str(row["choices"][0]["message"]["content"]))
        if "review" in row:
            return parse_rating(str(row["review"]))
        value = row["rating"]
        return None if value is None else int(value)
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(
            f"{path}: a row has {', '.join(map(repr, row))}, and no rating in them: needed `choices` of a chat completion, "
            "`review` or `rating`"
        ) from None


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """All, and each of the eight types; none without ratings.

    Raises:
        ValueError: another number of ratings.
    """
    if given.judged is None:
        return []
    ratings = read_ratings(given.judged)
    if len(ratings) != len(questions):
        raise ValueError(
            f"{given.judged} has {len(ratings)} ratings, and there are {len(questions)} questions: needed one each, in order"
        )
    found = {str(number): tally(rating) for number, rating in enumerate(ratings)}
    out = [Part("all", found, figures)]
    for kind in range(min(TYPES, len(questions))):
        name = str(questions[kind].row.get("question_type") or f"type {kind}")
        out.append(Part(name, {n: t for n, t in found.items() if int(n) % TYPES == kind}, figures))
    return out
