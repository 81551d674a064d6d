"""MMStar (arXiv 2403.20330): 1500 questions with four options that cannot be answered without their images.

Six capabilities of three axes each, 250 questions a capability; every figure is a share of right letters.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prefopt.evaluation.benchmarks.base import (
    Given,
    Part,
    Question,
    Score,
    Tally,
    asked_once,
    complete,
    ident,
    image_of,
    keyed,
    ratio,
    read_rows,
    scored,
)

ANSWERS = "answers.tsv"
NEEDS = ""

STARTS = ("", "(", "option ", "the answer is ")
LETTERS = "abcdefgh"
KEPT = ("index", "question", "answer", "category", "l2_category", "bench")


def option_letter(answer: str) -> str | None:
    """The option that an answer begins with: "A", "(a)", "Option A", "The answer is A"; in a small letter, or None.

    As in the official script, the letter may begin a word ("a dog" is option a): `runs_on` says so.

    Example:
        >>> option_letter("The answer is B."), option_letter("I see a dog")
        ('b', None)
    """
    place = _place(answer)
    return None if place is None else _plain(answer)[place]


def runs_on(answer: str) -> bool:
    """Whether the letter taken for an option begins a word or stands before one, so that it may be an article."""
    place = _place(answer)
    if place is None:
        return False
    rest = _plain(answer)[place + 1 :]
    return rest[:1].isalpha() or (rest[:1] == " " and rest[1:2].isalpha())


def _plain(answer: str) -> str:
    return answer.lower().strip().replace("\n", " ")


def _place(answer: str) -> int | None:
    text = _plain(answer)
    for start in STARTS:
        if text.startswith(start) and text[len(start) : len(start) + 1] in tuple(LETTERS):
            return len(start)
    return None


def mmstar(pairs: Iterable[tuple[str, str]]) -> Score:
    """Accuracy.

    Args:
        pairs: right letter and answer, as the model gave it.

    Raises:
        ValueError: a right answer that is no letter.

    Example:
        >>> mmstar([("A", "(A) a cat"), ("B", "The answer is C")]).figures["accuracy"]
        0.5
    """
    return scored((tally(letter, answer) for letter, answer in pairs), figures)


def tally(letter: str, answer: str) -> Tally:
    """Counts of one answer."""
    right = letter.strip().lower()
    if len(right) != 1 or right not in LETTERS:
        raise ValueError(f"a right answer is {letter!r}; needed the letter of an option")
    found = option_letter(answer)
    return {"n": 1, "correct": found == right, "no_letter": found is None, "letter_in_text": runs_on(answer)}


def figures(total: Tally) -> dict[str, float]:
    """Figures of summed counts."""
    return {"accuracy": ratio(total.get("correct", 0), total.get("n", 0))}


def questions(path: Path) -> list[Question]:
    """Read rows of index, question (with its options), image, answer, category; from .tsv or .parquet as published."""
    csv.field_size_limit(max(csv.field_size_limit(), 1 << 28))  # images within a .tsv file
    rows = read_rows(path, ("index", "question", "image", "answer", "category"))
    return asked_once(
        [Question(ident(row["index"]), str(row["question"]), image_of(row["image"]), row) for row in rows],
        path,
    )


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read rows of `index` and `prediction`; an empty cell is an empty answer."""
    rows = read_rows(path, ("index",))
    if not any("prediction" in row for row in rows):
        raise ValueError(
            f"{path} has no `prediction`, only {', '.join(rows[0])}: needed the model's answers there"
        )
    return keyed(
        (
            (ident(row["index"]), "" if row.get("prediction") is None else str(row["prediction"]))
            for row in rows
        ),
        path,
    )


def answers_file(questions: Sequence[Question], answers: Mapping[str, str]) -> str:
    """A table of the published columns but the image, and `prediction`, separated by tabs."""
    names = [name for name in KEPT if any(name in question.row for question in questions)]
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow([*names, "prediction"])
    for question in questions:
        table.writerow([*(question.row.get(name, "") for name in names), answers[question.id]])
    return text.getvalue()


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """All, each capability, and each axis where the rows name it (`l2_category`)."""
    complete(answers, [question.id for question in questions], "the answers")
    found = {question.id: tally(str(question.row["answer"]), answers[question.id]) for question in questions}
    groups: dict[str, list[str]] = {}
    for question in questions:
        capability = str(question.row["category"])
        groups.setdefault(capability, []).append(question.id)
        if question.row.get("l2_category"):
            groups.setdefault(f"{capability} / {question.row['l2_category']}", []).append(question.id)
    return [
        Part("all", found, figures),
        *(Part(name, {i: found[i] for i in groups[name]}, figures) for name in sorted(groups)),
    ]
