"""HallusionBench (arXiv 2310.14566): the same questions of related figures, judged correct, incorrect or unclear.

aAcc is over questions, qAcc over groups (category, subcategory, set, question) with all figures right, fAcc over figures with
all questions right. The judge is a language model that compares answers with the reference; its codes are read from a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks.base import (
    Given,
    Part,
    Question,
    Score,
    Tally,
    asked_once,
    complete,
    ident,
    json_list,
    keyed,
    ratio,
    read_rows,
    scored,
)

ANSWERS = "answers.json"
NEEDS = "codes of a judge (0 incorrect, 1 correct, 2 unclear) in `gpt4v_output_gpt_check`, given as --judged"

PREDICTION, CODE = "model_prediction", "gpt4v_output_gpt_check"
FIELDS = ("category", "subcategory", "set_id", "figure_id", "question_id", "visual_input", "question")
CORRECT, INCORRECT, UNCLEAR = "1", "0", "2"


@dataclass(frozen=True)
class Judged:
    """One judged answer. Whatever the file holds, numbers are strings here (`judged_row`).

    Attributes:
        category: "VD" (needs the figure) or "VS" (the figure supplements what may be known).
        subcategory, set_id, question_id: name the group, with the category.
        figure_id: "0" for the original figure; in VS for none at all.
        visual_input: "0" text alone, "1" original figure, "2" edited figure.
        code: "1" correct, "0" incorrect, "2" unclear.
    """

    category: str
    subcategory: str
    set_id: str
    figure_id: str
    question_id: str
    visual_input: str
    code: str

    @property
    def correct(self) -> bool:
        """Unclear is right where a supplementing figure is withheld: there is no telling."""
        withheld = self.category == "VS" and self.figure_id == "0"
        return self.code == CORRECT or (withheld and self.code == UNCLEAR)

    @property
    def of_set(self) -> tuple[str, str, str]:
        """The set of figures: nothing is shared between sets."""
        return self.category, self.subcategory, self.set_id


def judged_row(row: Mapping[str, Any], code: Any) -> Judged:
    """A published row and what the judge said.

    Args:
        row: with the published fields; numbers may be strings or numbers.
        code: 0, 1 or 2 as number or string, or the judge's words: one with "incorrect", else "correct", else unclear.

    Raises:
        ValueError: another number or category, or nothing.
    """
    if row["category"] not in ("VD", "VS"):
        raise ValueError(f"a row has the category {row['category']!r}; needed VD or VS")
    given = ident(code).lower()
    if (
        code is None
        or not given
        or (given.lstrip("-").isdigit() and given not in (CORRECT, INCORRECT, UNCLEAR))
    ):
        raise ValueError(f"a judge's code is {code!r}; needed 0 (incorrect), 1 (correct) or 2 (unclear)")
    if not given.isdigit():
        given = INCORRECT if "incorrect" in given else CORRECT if "correct" in given else UNCLEAR
    values = (ident(row[name]) for name in FIELDS[1:6])
    subcategory, set_id, figure_id, question_id, visual_input = values
    return Judged(row["category"], subcategory, set_id, figure_id, question_id, visual_input, given)


def hallusion_bench(rows: Iterable[Judged]) -> Score:
    """Accuracies of questions (aAcc), groups (qAcc), figures (fAcc), and easy and hard groups.

    Easy groups are of figures that are not edited (`visual_input` other than 2), hard ones of edited figures. The current
    official script splits by `figure_id` instead, 0 being easy, which differs in VS and in early versions of the data: its
    figures are `easy_by_figure` and `hard_by_figure`. A group or figure is judged by the answers that are there.

    Args:
        rows: judged answers.

    Example:
        >>> hallusion_bench([Judged("VS", "map", "0", "0", "0", "0", "2")]).figures["aAcc"]
        1.0
    """
    return scored(tallies(rows).values(), figures)


def tallies(rows: Iterable[Judged]) -> dict[str, Tally]:
    """Counts by set, in which all groups and figures lie whole."""
    sets: dict[tuple[str, str, str], list[Judged]] = {}
    for row in rows:
        sets.setdefault(row.of_set, []).append(row)
    return {"/".join(name): _tally(group) for name, group in sets.items()}


def _tally(rows: Sequence[Judged]) -> Tally:
    def whole(chosen: Iterable[Judged], key: str) -> tuple[int, int]:
        """How many there are of a key, and of how many all answers are right."""
        groups: dict[str, bool] = {}
        for row in chosen:
            name = getattr(row, key)
            groups[name] = groups.get(name, True) and row.correct
        return len(groups), sum(groups.values())

    found: dict[str, float] = {
        "questions": len(rows),
        "questions_right": sum(row.correct for row in rows),
        "unclear": sum(row.code == UNCLEAR for row in rows),
    }
    shown = [row for row in rows if not (row.category == "VS" and row.figure_id == "0")]
    for name, chosen, key in (
        ("groups", rows, "question_id"),
        ("figures", shown, "figure_id"),
        ("easy", [row for row in rows if row.visual_input != "2"], "question_id"),
        ("hard", [row for row in rows if row.visual_input == "2"], "question_id"),
        ("easy_by_figure", [row for row in rows if row.figure_id == "0"], "question_id"),
        ("hard_by_figure", [row for row in rows if row.figure_id != "0"], "question_id"),
    ):
        found[name], found[f"{name}_right"] = whole(chosen, key)
    return found


def figures(total: Tally) -> dict[str, float]:
    """Figures of summed counts."""
    names = {
        "aAcc": "questions", "qAcc": "groups", "fAcc": "figures", "easy": "easy", "hard": "hard",
        "easy_by_figure": "easy_by_figure", "hard_by_figure": "hard_by_figure",
    }  # fmt: skip
    return {short: ratio(total.get(f"{name}_right", 0), total.get(name, 0)) for short, name in names.items()}


def questions(path: Path) -> list[Question]:
    """Read HallusionBench.json. A figure is shown unless `visual_input` is 0, whether numbers or strings are given."""
    rows = read_rows(path, FIELDS)
    return asked_once([Question(_id(row), str(row["question"]), _image(row), row) for row in rows], path)


def _id(row: Mapping[str, Any]) -> str:
    return "/".join(ident(row[name]) for name in FIELDS[:5])


def _image(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    if ident(row["visual_input"]) == "0":
        return None
    name = f"{row['category']}/{row['subcategory']}/{ident(row['set_id'])}_{ident(row['figure_id'])}.png"
    published = str(row.get("filename") or name).removeprefix("./")
    return published, name


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read rows as published with `model_prediction`."""
    rows = read_rows(path, (*FIELDS[:5], PREDICTION))
    return keyed(((_id(row), str(row[PREDICTION])) for row in rows), path)


def answers_file(questions: Sequence[Question], answers: Mapping[str, str]) -> str:
    """The published rows with `model_prediction`, for the judge."""
    return json_list({**q.row, PREDICTION: answers[q.id]} for q in questions)


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """All, VD and VS; none without a judge's codes.

    Raises:
        ValueError: questions without a code, or codes that are none.
    """
    if given.judged is None:
        return []
    codes = {_id(row): row[CODE] for row in read_rows(given.judged, (*FIELDS[:5], CODE))}
    complete(codes, [question.id for question in questions], f"the codes of {given.judged}")
    rows = [judged_row(question.row, codes[question.id]) for question in questions]
    groups = {
        "all": rows,
        **{name: [row for row in rows if row.category == name] for name in ("VD", "VS")},
    }
    return [Part(name, tallies(chosen), figures) for name, chosen in groups.items() if chosen]
