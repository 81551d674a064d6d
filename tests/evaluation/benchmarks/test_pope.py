"""Yes or no, and POPE: by hand, beside torchmetrics, and in its files."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torchmetrics.functional.classification import binary_f1_score, binary_precision, binary_recall

from prefopt.evaluation.benchmarks.base import Given
from prefopt.evaluation.benchmarks.pope import answers_file, parts, pope, questions, read_answers
from prefopt.evaluation.benchmarks.yes_no import yes_or_no

ROWS = [
    {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 2, "image": "a.jpg", "text": "Is there a cat in the image?", "label": "no"},
    {"question_id": 3, "image": "b.jpg", "text": "Is there a car in the image?", "label": "yes"},
]


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "coco_pope_random.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return questions(path)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes.", "yes"), ("yes, there is", "yes"), ("YES!", "yes"), (" yes", "yes"), ("**Yes**", "yes"),
        ("No", "no"), ("no, there is no dog", "no"), ("NO.", "no"), ("There is not a dog.", "no"),
        ("There isn’t a dog.", "no"), ("I cannot see one. Yes.", "no"), ("None of them", "no"),
        ("Yes, there is no doubt.", "yes"), ("I think yes.", "yes"), ("A dog. No cat.", "unclear"), ("", "unclear"),
        ("...", "unclear"), ("Nothing known", "unclear"), ("Not sure", "no"),
    ],
)  # fmt: skip
def test_yes_or_no(answer, said):
    assert yes_or_no(answer) == said


def test_five_answers():
    score = pope([("yes", "Yes"), ("yes", "No."), ("no", "yes, there is"), ("no", "no"), ("no", "No")])
    assert score.figures == pytest.approx(
        {"accuracy": 0.6, "precision": 0.5, "recall": 0.5, "f1": 0.5, "yes_ratio": 0.4}
    )


def test_a_statement_is_a_yes_and_an_empty_answer_is_none():
    score = pope([("yes", "There is a dog."), ("yes", ""), ("no", "")])
    assert score.figures["accuracy"] == pytest.approx(1 / 3)
    assert score.figures["yes_ratio"] == pytest.approx(1 / 3)
    assert (score.counts["assumed_yes"], score.counts["empty"]) == (1, 2)


def test_no_yes_at_all():
    score = pope([("yes", "no"), ("no", "no")])
    assert math.isnan(score.figures["precision"])
    assert (score.figures["recall"], score.figures["f1"], score.figures["accuracy"]) == (0, 0, 0.5)
    assert math.isnan(pope([("no", "no")]).figures["recall"])
    with pytest.raises(ValueError, match="a label is 'maybe'"):
        pope([("maybe", "no")])


def test_as_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    truth, said = torch.randint(0, 2, (2, 200), generator=generator)
    words = ("no", "yes")
    found = pope((words[t], words[s]) for t, s in zip(truth.tolist(), said.tolist(), strict=True)).figures
    for name, theirs in (("precision", binary_precision), ("recall", binary_recall), ("f1", binary_f1_score)):
        assert found[name] == pytest.approx(theirs(said, truth).item(), abs=1e-6)


def test_questions_and_answers_travel(asked, tmp_path):
    assert [(q.id, q.image) for q in asked] == [("1", ("a.jpg",)), ("2", ("a.jpg",)), ("3", ("b.jpg",))]
    answers = {"1": "Yes", "2": "There is\nno cat, é", "3": ""}
    path = tmp_path / "answers.jsonl"
    path.write_text(answers_file(asked, answers))
    assert json.loads(path.read_text().splitlines()[1]) == {
        "question_id": 2, "question": ROWS[1]["text"], "answer": "There is\nno cat, é",
    }  # fmt: skip
    assert read_answers(path, asked) == answers
    (part,) = parts(asked, answers, Given())
    assert part.score().figures["accuracy"] == pytest.approx(2 / 3)
    assert {unit: tally["n"] for unit, tally in part.tallies.items()} == {
        "a.jpg": 2,
        "b.jpg": 1,
    }  # drawn by image


def test_answers_without_ids_go_by_their_order(asked, tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [{"question": row["text"].lower(), "answer": "yes"} for row in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_answers(path, asked) == {"1": "yes", "2": "yes", "3": "yes"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[::-1]))
    with pytest.raises(ValueError, match="answer 1 is to 'is there a car"):
        read_answers(path, asked)
    path.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(ValueError, match="1 answers without `question_id`, and there are 3 questions"):
        read_answers(path, asked)


def test_ids_are_the_same_as_numbers_and_as_strings(asked, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"question_id": str(n), "text": "no"}) + "\n" for n in (3, 1, 2)))
    assert read_answers(path, asked) == {"1": "no", "2": "no", "3": "no"}


def test_what_is_wrong_is_said(asked, tmp_path):
    with pytest.raises(ValueError, match=r"lack 1 of 3 questions, such as '3'"):
        parts(asked, {"1": "yes", "2": "no"}, Given())
    path = tmp_path / "twice.jsonl"
    path.write_text((json.dumps({"question_id": 1, "answer": "no"}) + "\n") * 2)
    with pytest.raises(ValueError, match="answers the question '1' twice"):
        read_answers(path, asked)
    path.write_text((json.dumps(ROWS[0]) + "\n") * 2)
    with pytest.raises(ValueError, match="has the question '1' twice"):
        questions(path)
    path.write_text(json.dumps({"id": 1, "query": "?", "image": "a.jpg"}) + "\n")
    with pytest.raises(ValueError, match=r"line 1 has no 'question_id'.*another benchmark"):
        questions(path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        questions(tmp_path / "none.json")
