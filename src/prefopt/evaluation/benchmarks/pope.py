"""POPE (arXiv 2305.10355): is there an object in the image? As many objects that are there as objects that are not.

Accuracy, precision, recall and F1 with "yes" positive, and the share of answers "yes". Absent objects are drawn at random,
from the popular ones, or from those that co-occur with what is there: one file each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prefopt.evaluation.benchmarks.base import (
    Given,
    Part,
    Question,
    Score,
    Tally,
    asked_once,
    by_unit,
    complete,
    harmonic,
    ident,
    image_of,
    json_lines,
    keyed,
    ratio,
    read_rows,
    scored,
)
from prefopt.evaluation.benchmarks.yes_no import yes_or_no

ANSWERS = "answers.jsonl"
NEEDS = ""


def pope(pairs: Iterable[tuple[str, str]]) -> Score:
    """Score answers.

    A statement without yes, no or a negation counts as yes, as the official script has it (`assumed_yes` counts these); an
    empty answer is neither, so it is wrong, and no answer "yes".

    Args:
        pairs: label ("yes" or "no") and answer, as the model gave it.

    Raises:
        ValueError: another label.

    Example:
        >>> pope([("yes", "Yes."), ("no", "yes, there is"), ("no", "No")]).figures["precision"]
        0.5
    """
    return scored((tally(label, answer) for label, answer in pairs), figures)


def tally(label: str, answer: str) -> Tally:
    """Counts of one answer."""
    truth = label.strip().lower()
    if truth not in ("yes", "no"):
        raise ValueError(f"a label is {label!r}; needed yes or no")
    said = yes_or_no(answer)
    assumed = said == "unclear" and bool(answer.strip())
    if assumed:
        said = "yes"
    return {
        "n": 1, "positives": truth == "yes", "said_yes": said == "yes", "said_no": said == "no",
        "true_yes": said == "yes" == truth, "true_no": said == "no" == truth,
        "assumed_yes": assumed, "empty": said == "unclear",
    }  # fmt: skip


def figures(total: Tally) -> dict[str, float]:
    """Figures of summed counts."""
    count = {name: total.get(name, 0) for name in ("n", "positives", "said_yes", "true_yes", "true_no")}
    precision = ratio(count["true_yes"], count["said_yes"])
    recall = ratio(count["true_yes"], count["positives"])
    return {
        "accuracy": ratio(count["true_yes"] + count["true_no"], count["n"]),
        "precision": precision,
        "recall": recall,
        "f1": harmonic(precision, recall),
        "yes_ratio": ratio(count["said_yes"], count["n"]),
    }


def questions(path: Path) -> list[Question]:
    """Read coco_pope_random.json, coco_pope_popular.json or coco_pope_adversarial.json (JSON lines)."""
    rows = read_rows(path, ("question_id", "image", "text", "label"))
    return asked_once(
        [Question(ident(row["question_id"]), str(row["text"]), image_of(row["image"]), row) for row in rows],
        path,
    )


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read lines of `answer` (or `text`) with `question_id`, or in the order of the questions and with their text.

    Raises:
        ValueError: no ids and another number of lines, or another question on a line.
    """
    rows = read_rows(path)
    key = "answer" if "answer" in rows[0] else "text"
    if all("question_id" in row for row in rows):
        return keyed(((ident(row["question_id"]), str(row.get(key) or "")) for row in rows), path)
    if len(rows) != len(questions):
        raise ValueError(
            f"{path} has {len(rows)} answers without `question_id`, and there are {len(questions)} questions: answers that are "
            "matched by their order must be as many; add `question_id`"
        )
    for number, (row, question) in enumerate(zip(rows, questions, strict=True), 1):
        if "question" in row and str(row["question"]).strip().lower() != question.prompt.strip().lower():
            raise ValueError(
                f"{path}, answer {number} is to {row['question']!r}, and question {number} is {question.prompt!r}: needed the "
                "order of the questions, or `question_id`"
            )
    return {question.id: str(row.get(key) or "") for row, question in zip(rows, questions, strict=True)}


def answers_file(questions: Sequence[Question], answers: Mapping[str, str]) -> str:
    """Lines of question_id, question and answer, in the order of the questions, as the official script needs them."""
    return json_lines(
        {"question_id": q.row["question_id"], "question": q.prompt, "answer": answers[q.id]}
        for q in questions
    )


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """One part; questions of the same image are drawn together."""
    complete(answers, [question.id for question in questions], "the answers")
    found = (
        (
            str(q.row["image"]) if isinstance(q.row["image"], str) else q.id,
            tally(str(q.row["label"]), answers[q.id]),
        )
        for q in questions
    )
    return [Part("all", by_unit(found), figures)]
