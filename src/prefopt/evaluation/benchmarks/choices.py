"""Multiple choice: which option an answer names, and what the benchmarks of that kind share.

An answer that names no option is wrong and counted, also where the official script leaves it out or guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks.base import (
    Part,
    Question,
    Tally,
    by_unit,
    complete,
    ident,
    json_list,
    keyed,
    ratio,
    read_rows,
)

LETTERS = "ABCDEFGHIJ"
VIDEO_SUFFIXES = ("mp4", "MP4", "mkv", "webm")
"""Of videos that questions name without one."""

DECLARED = re.compile(r"(?i:answer|option|choice)(?i:\s+is|\s*[:=])\s*[^\w\s]*([A-Z])(?![\w'’])")
FIRST = re.compile(r"[^\w\s]*([A-Za-z])(?=$|\s*[).:,\]*])")
ALONE = re.compile(r"(?<![\w'’])([A-Z])(?![\w'’])")


def option_letter(answer: str, options: int) -> str | None:
    """The option that an answer names, as a capital letter; None where it names none that is offered.

    The last "the answer is C" or "option: C" decides; otherwise a letter at its beginning ("c", "(C) a cat", "C."), and
    otherwise the first capital letter that stands alone.

    Args:
        answer: the model's words.
        options: how many options there are.

    Example:
        >>> [option_letter(a, 4) for a in ("B", "(c) a cat", "Not A: the answer is D.", "E", "Two cats.")]
        ['B', 'C', 'D', None, None]
    """
    place = _place(answer, options)
    return None if place is None else answer[place].upper()


def runs_on(answer: str, options: int) -> bool:
    """Whether the letter taken for an option stands before a word, so that it may be an article ("A cat")."""
    place = _place(answer, options)
    if place is None:
        return False
    rest = answer[place + 1 :]
    return rest[:1] == " " and rest[1:2].islower()


def _place(answer: str, options: int) -> int | None:
    offered = LETTERS[:options]
    declared = [match for match in DECLARED.finditer(answer) if match[1] in offered]
    if declared:
        return declared[-1].start(1)
    skipped = len(answer) - len(answer.lstrip())
    first = FIRST.match(answer.strip())
    if first is not None and first[1].upper() in offered:
        return skipped + first.start(1)
    return next((match.start(1) for match in ALONE.finditer(answer) if match[1] in offered), None)


def listed(options: Sequence[str], form: str = "({letter}) {option}") -> str:
    """Options as lines with their letters.

    Example:
        >>> print(listed(["a cat", "a dog"]))
        (A) a cat
        (B) a dog
    """
    return "\n".join(
        form.format(letter=letter, option=option) for letter, option in zip(LETTERS, options, strict=False)
    )


def letter_of(row: Mapping[str, Any], options: Sequence[str], where: str) -> str:
    """The right letter of a published row, whose `answer` is the letter or the option's words.

    Raises:
        ValueError: it is neither.
    """
    answer = str(row["answer"])
    if answer in options:
        return LETTERS[list(options).index(answer)]
    if len(letter := answer.strip().strip("().").upper()) == 1 and letter in LETTERS[: len(options)]:
        return letter
    raise ValueError(
        f"{where}: the right answer is {answer!r}, and the options are {', '.join(map(repr, options))}; needed one of them, or"
        " its letter"
    )


def tally(right: str, answer: str, options: int) -> Tally:
    """Counts of one answer.

    Args:
        right: the right option's letter.
        answer: the model's words; an empty answer is wrong.
        options: how many options there are.

    Raises:
        ValueError: a right answer that is not offered.
    """
    if len(right) != 1 or right not in LETTERS[:options]:
        raise ValueError(f"the right answer is {right!r} of {options} options; needed the letter of one")
    said = option_letter(answer, options)
    return {
        "n": 1, "correct": said == right, "no_letter": said is None, "empty": not answer.strip(),
        "letter_in_text": runs_on(answer, options),
    }  # fmt: skip


def figures(total: Tally) -> dict[str, float]:
    """Micro accuracy of summed counts."""
    return {"accuracy": ratio(total.get("correct", 0), total.get("n", 0))}


def parts_of(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    right: Callable[[Question], tuple[str, int]],
    groups: Callable[[Question], Sequence[str]],
) -> list[Part]:
    """All questions, and each group of them; the questions of a video are drawn together.

    Args:
        questions, answers: of the benchmark.
        right: the letter of a question's right option, and how many there are.
        groups: names of the parts that a question counts to, beside "all".
    """
    complete(answers, [question.id for question in questions], "the answers")
    found: dict[str, list[tuple[str, Tally]]] = {"all": []}
    for question in questions:
        counted = tally(right(question)[0], answers[question.id], right(question)[1])
        for name in ("all", *dict.fromkeys(groups(question))):
            found.setdefault(name, []).append((unit(question), counted))
    return [Part(name, by_unit(found[name]), figures) for name in ("all", *sorted(set(found) - {"all"}))]


def unit(question: Question) -> str:
    """What is drawn together by the bootstrap: the questions of a video."""
    return question.video.names[0] if question.video else question.id


# -- files of answers ----------------------------------------------------------------------------------------


def read_predictions(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read rows of `id` and `pred`; an empty cell is an empty answer."""
    rows = read_rows(path, ("id",))
    if not any("pred" in row for row in rows):
        raise ValueError(f"{path} has no `pred`, only {', '.join(rows[0])}: needed the model's answers there")
    return keyed(
        ((ident(row["id"]), "" if row.get("pred") is None else str(row["pred"])) for row in rows), path
    )


def predictions_file(questions: Sequence[Question], answers: Mapping[str, str]) -> str:
    """`[{"id": ..., "question": ..., "pred": ...}]`."""
    return json_list(
        {"id": q.id, "question": q.row.get("question", q.prompt), "pred": answers[q.id]} for q in questions
    )


def files_of(path: Path, *suffixes: str) -> list[Path]:
    """A file, or the files of a folder with these endings, by their names.

    Raises:
        ValueError: a folder without any.
    """
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.name.endswith(suffixes))
    if not found:
        raise ValueError(f"{path} has no files *{', *'.join(suffixes)}: needed the published questions")
    return found
