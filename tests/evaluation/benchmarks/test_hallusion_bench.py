"""HallusionBench by hand: questions, groups, figures, and codes of either type."""

from __future__ import annotations

import json
import math

import pytest

from prefopt.evaluation.benchmarks.base import Given
from prefopt.evaluation.benchmarks.hallusion_bench import (
    Judged,
    answers_file,
    hallusion_bench,
    judged_row,
    parts,
    questions,
    read_answers,
)


def row(
    category: str, figure: object, question: object, visual: object, code: object, set_id: object = 0
) -> Judged:
    published = {
        "category": category, "subcategory": "map", "set_id": set_id, "figure_id": figure, "question_id": question,
        "visual_input": visual,
    }  # fmt: skip
    return judged_row(published, code)


VD = [
    row("VD", 0, 0, 1, 1), row("VD", 1, 0, 2, 1),  # both figures right: the group is
    row("VD", 0, 1, 1, 1), row("VD", 1, 1, 2, 0),  # the edited figure wrong
]  # fmt: skip
VS = [
    row("VS", 0, 0, 0, 2), row("VS", 1, 0, 1, 1), row("VS", 2, 0, 2, 1),  # no figure, and the model says so
    row("VS", 0, 1, 0, 0), row("VS", 1, 1, 1, 2), row("VS", 2, 1, 2, 1),  # made up; unclear with a figure
]  # fmt: skip


def test_figures_that_need_their_image():
    assert hallusion_bench(VD).figures == pytest.approx(
        {
            "aAcc": 3 / 4,
            "qAcc": 1 / 2,
            "fAcc": 1 / 2,
            "easy": 1,
            "hard": 1 / 2,
            "easy_by_figure": 1,
            "hard_by_figure": 1 / 2,
        }
    )


def test_figures_that_supplement():
    # figure 0 is none: it does not count for fAcc, and unclear is right there
    assert hallusion_bench(VS).figures == pytest.approx(
        {
            "aAcc": 4 / 6,
            "qAcc": 1 / 2,
            "fAcc": 1 / 2,
            "easy": 1 / 2,
            "hard": 1,
            "easy_by_figure": 1 / 2,
            "hard_by_figure": 1 / 2,
        }
    )
    assert hallusion_bench(VS).counts["unclear"] == 2


def test_easy_by_visual_input_is_another_than_by_figure():
    rows = [row("VS", 0, 0, 0, 1), row("VS", 1, 0, 1, 0)]
    found = hallusion_bench(rows).figures
    assert (found["easy"], found["easy_by_figure"], found["hard_by_figure"]) == (0, 1, 0)
    assert math.isnan(found["hard"])


def test_both_together():
    found = hallusion_bench(VD + VS).figures
    assert found["aAcc"] == pytest.approx(7 / 10)
    assert found["qAcc"] == pytest.approx(2 / 4)
    assert found["fAcc"] == pytest.approx(2 / 4)


def test_sets_are_apart_and_missing_figures_are_not_held_against_a_group():
    rows = [row("VD", 0, 0, 1, 1, set_id=0), row("VD", 1, 0, 2, 0, set_id=1)]
    assert hallusion_bench(rows).figures["qAcc"] == 1 / 2
    assert hallusion_bench([row("VD", 1, 0, 2, 1)]).figures["qAcc"] == 1


def test_unclear_is_wrong_where_there_is_a_figure():
    assert hallusion_bench([row("VD", 0, 0, 1, 2)]).figures["aAcc"] == 0
    assert hallusion_bench([row("VS", 1, 0, 1, 2)]).figures["aAcc"] == 0
    assert hallusion_bench([row("VS", 0, 0, 0, 2)]).figures["aAcc"] == 1
    assert math.isnan(hallusion_bench([]).figures["aAcc"])


def test_numbers_and_strings_are_the_same():
    assert row("VD", 0, 1, 2, 1) == row("VD", "0", "1", "2", "1") == row("VD", 0.0, " 1", "2", 1.0)


@pytest.mark.parametrize(
    ("said", "code"),
    [("Correct", "1"), ("incorrect.", "0"), ("The answer is unclear", "2"), ("I do not know", "2")],
)
def test_a_judges_words(said, code):
    assert row("VD", 0, 0, 1, said).code == code


@pytest.mark.parametrize("code", [3, "01", "12", None, "", -1])
def test_codes_that_are_none(code):
    with pytest.raises(ValueError, match="a judge's code is"):
        row("VD", 0, 0, 1, code)
    with pytest.raises(ValueError, match="needed VD or VS"):
        row("XX", 0, 0, 1, 1)


PUBLISHED = [
    {"category": "VD", "subcategory": "illusion", "visual_input": "1", "set_id": "0", "figure_id": "0", "question_id": "0",
     "question": "Same size?", "gt_answer_details": "yes", "filename": "./hallusion_bench/VD/illusion/0_0.png"},
    {"category": "VD", "subcategory": "illusion", "visual_input": 2, "set_id": 0, "figure_id": 1, "question_id": 0,
     "question": "Same size?", "gt_answer_details": "no"},
    {"category": "VS", "subcategory": "map", "visual_input": 0, "set_id": "0", "figure_id": "0", "question_id": "0",
     "question": "Is it larger?", "gt_answer_details": "no", "filename": None},
]  # fmt: skip


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "HallusionBench.json"
    path.write_text(json.dumps(PUBLISHED))
    return questions(path)


def test_a_figure_is_shown_whatever_the_type_of_visual_input(asked):
    assert [q.image for q in asked] == [
        ("hallusion_bench/VD/illusion/0_0.png", "VD/illusion/0_0.png"),
        ("VD/illusion/0_1.png", "VD/illusion/0_1.png"),
        None,
    ]


def test_files(asked, tmp_path):
    answers = {q.id: "Yes" for q in asked}
    path = tmp_path / "answers.json"
    path.write_text(answers_file(asked, answers))
    rows = json.loads(path.read_text())
    assert rows[0] == {**PUBLISHED[0], "model_prediction": "Yes"}
    assert read_answers(path, asked) == answers
    assert parts(asked, answers, Given()) == []
    judged = tmp_path / "judged.json"
    codes = ["1", 0, "2"]
    judged.write_text(
        json.dumps([{**r, "gpt4v_output_gpt_check": c} for r, c in zip(rows, codes, strict=True)])
    )
    found = {part.name: part.score().figures for part in parts(asked, answers, Given(judged=judged))}
    assert list(found) == ["all", "VD", "VS"]
    assert found["all"]["aAcc"] == pytest.approx(2 / 3)
    assert found["VD"]["qAcc"] == 0
    assert found["VS"]["aAcc"] == 1
    judged.write_text(json.dumps([{**rows[0], "gpt4v_output_gpt_check": "1"}]))
    with pytest.raises(ValueError, match="lack 2 of 3 questions, such as 'VD/illusion/0/1/0'"):
        parts(asked, answers, Given(judged=judged))
    with pytest.raises(ValueError, match="has no 'gpt4v_output_gpt_check'"):
        parts(asked, answers, Given(judged=path))
