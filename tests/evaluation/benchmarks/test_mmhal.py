"""MMHal by hand: ratings, types, and the judge's replies as files."""

from __future__ import annotations

import json
import math

import pytest

from prefopt.evaluation.benchmarks.base import Given
from prefopt.evaluation.benchmarks.mmhal import (
    answers_file,
    mmhal,
    parse_rating,
    parts,
    questions,
    read_answers,
    read_ratings,
)

ROWS = [
    {"question_type": f"kind{n % 8}", "image_id": f"i{n}", "image_src": f"https://x.org/o/{n}_o.jpg", "question": f"What {n}?",
     "image_content": ["Cat"], "gt_answer": "a cat", "model_answer": ""}
    for n in range(10)
]  # fmt: skip


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "response_template.json"
    path.write_text(json.dumps(ROWS))
    return questions(path)


def test_four_ratings():
    score = mmhal([6, 3, 2, 0])
    # informativeness: 3, 0, 2, 0 of 3
    assert score.figures == pytest.approx(
        {"score": 11 / 4, "hallucination_rate": 1 / 2, "informativeness": 5 / 12}
    )


def test_what_cannot_be_parsed_counts_as_0_and_is_counted():
    score = mmhal([6, None])
    assert score.figures == pytest.approx({"score": 3, "hallucination_rate": 1 / 2, "informativeness": 1 / 2})
    assert score.counts["unparsable"] == 1
    assert math.isnan(mmhal([]).figures["score"])
    with pytest.raises(ValueError, match="a rating is 7"):
        mmhal([7])


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Fine.\n- Rating: 4, somewhat informative", 4), ("RATING:0", 0), ("Rating: 2. I repeat: rating: 2", 2),
        ("Rating: 2 or Rating: 3", None), ("4", None), ("Rating: 10", None), ("Rating: 7", None), ("", None),
    ],
)  # fmt: skip
def test_a_judges_words(text, rating):
    assert parse_rating(text) == rating


def test_files(asked, tmp_path):
    assert asked[3].image == ("3_o.jpg", "i3.jpg")
    answers = {q.id: f"A cat {q.id}" for q in asked}
    path = tmp_path / "answers.json"
    path.write_text(answers_file(asked, answers))
    assert json.loads(path.read_text())[2] == {**ROWS[2], "model_answer": "A cat 2"}
    assert read_answers(path, asked) == answers
    assert parts(asked, answers, Given()) == []
    path.write_text(json.dumps([{**ROWS[1], "model_answer": "a"}] * 10))
    with pytest.raises(ValueError, match=r"answer 1 is to 'What 1\?', and question 1 is 'What 0\?'"):
        read_answers(path, asked)
    path.write_text(json.dumps([{**ROWS[0], "model_answer": "a"}]))
    with pytest.raises(ValueError, match="has 1 answers, and there are 10 questions"):
        read_answers(path, asked)


def test_ratings_by_type(asked, tmp_path):
    path = tmp_path / "judged.json"
    replies = [{"choices": [{"message": {"content": f"Rating: {n % 7}"}}]} for n in range(8)]
    path.write_text(json.dumps([*replies, {"review": "no idea"}, {"rating": 5}]))
    assert read_ratings(path) == [0, 1, 2, 3, 4, 5, 6, 0, None, 5]
    found = {part.name: part.score() for part in parts(asked, {}, Given(judged=path))}
    assert list(found) == ["all", *(f"kind{n}" for n in range(8))]
    assert found["all"].figures["score"] == pytest.approx(26 / 10)
    assert found["kind0"].figures["score"] == 0  # questions 0 and 8
    assert found["kind1"].figures["score"] == 3  # questions 1 and 9
    path.write_text(json.dumps([{"rating": 5}]))
    with pytest.raises(ValueError, match="has 1 ratings, and there are 10 questions"):
        parts(asked, {}, Given(judged=path))
    path.write_text(json.dumps([{"points": 5}]))
    with pytest.raises(ValueError, match="no rating in them"):
        read_ratings(path)
