"""Object-HalBench: descriptions, extracted lists and annotations as files."""

from __future__ import annotations

import json

import pytest

from prefopt.evaluation.benchmarks.base import Given
from prefopt.evaluation.benchmarks.object_halbench import answers_file, parts, questions, read_answers

ROWS = [
    {"image_id": 139, "question": "Describe it."},
    {"image_id": 285, "prompt": "What is there?", "image": "bear.jpg"},
]
ANSWERS = {"0": "A man sits on a couch beside a dog and another dog.", "1": "Nothing to see."}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def asked(tmp_path):
    return questions(lines(tmp_path / "questions.jsonl", ROWS))


@pytest.fixture
def synonyms(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text("person, man\ncouch, sofa\ndog, puppy\nbear\n")
    return path


def test_from_text_with_synonyms(asked, synonyms, tmp_path):
    assert [q.image[0] for q in asked] == ["COCO_val2014_000000000139.jpg", "bear.jpg"]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"139": ["person", "sofa"], "285": ["bear"]}))
    (part,) = parts(asked, ANSWERS, Given((truth,), synonyms))
    score = part.score()
    # man, couch, dog: the dog is not there
    assert score.figures["chair_i"] == pytest.approx(1 / 3)
    assert (score.figures["chair_s"], score.figures["chair_s_refined"]) == (1 / 2, 1)
    assert score.figures["recall"] == pytest.approx(2 / 3)
    assert (score.counts["mentions"], score.counts["without_mention"]) == (3, 1)
    assert set(part.tallies) == {"139", "285"}


def test_without_synonyms_cocos_names_count(asked, tmp_path):
    truth = lines(
        tmp_path / "truth.jsonl",
        [{"image_id": "139", "objects": ["person"]}, {"image_id": 285, "objects": []}],
    )
    (part,) = parts(asked, ANSWERS, Given((truth,)))
    assert part.score().counts["mentions"] == 2  # couch, dog; "man" is no name of COCO


def test_rows_of_annotations_in_files_called_json(asked, synonyms, tmp_path):
    rows = [{"image_id": 139, "objects": ["man"]}, {"image_id": 285, "objects": ["bear"]}]
    path = lines(tmp_path / "truth.json", rows)  # as POPE publishes its own
    assert parts(asked, ANSWERS, Given((path,), synonyms))[0].score().counts["classes"] == 2
    path.write_text(json.dumps(rows))
    assert parts(asked, ANSWERS, Given((path,), synonyms))[0].score().counts["classes"] == 2
    one = questions(lines(tmp_path / "one.jsonl", ROWS[:1]))
    assert parts(one, ANSWERS, Given((lines(path, rows[:1]),), synonyms))[0].score().counts["classes"] == 1
    with pytest.raises(FileNotFoundError, match="there is no file"):
        parts(one, ANSWERS, Given((tmp_path / "none.json",), synonyms))


def test_extracted_lists(asked, synonyms, tmp_path):
    truth = lines(
        tmp_path / "truth.jsonl",
        [
            {"image": "COCO_val2014_000000000139.jpg", "objects": ["person"]},
            {"image": "COCO_val2014_000000000285.jpg", "objects": ["bear"]},
        ],
    )
    rows = [
        {"image_id": 139, "extract_objs": ["old man", "man", "leather sofa", "lamp"]},
        {"image_id": "285", "extract_objs": []},
    ]
    extracted = lines(tmp_path / "extracted.jsonl", rows)
    (part,) = parts(asked, ANSWERS, Given((truth,), synonyms, extracted))
    assert part.score().figures["chair_i"] == 1 / 2  # man, sofa
    lines(extracted, rows[:1])
    with pytest.raises(ValueError, match="lack 1 of 2 questions, such as '1'"):
        parts(asked, ANSWERS, Given((truth,), synonyms, extracted))
    lines(extracted, [{"image_id": 139, "extract_objs": "man"}])
    with pytest.raises(ValueError, match="needed a list of names"):
        parts(asked, ANSWERS, Given((truth,), synonyms, extracted))


def test_annotations_are_united_over_cocos_files(asked, synonyms, tmp_path):
    instances, captions = tmp_path / "instances.json", tmp_path / "captions.json"
    instances.write_text(
        json.dumps(
            {
                "images": [{"id": 139}, {"id": 285}],
                "categories": [{"id": 63, "name": "couch"}],
                "annotations": [{"image_id": 139, "category_id": 63}],
            }
        )
    )
    captions.write_text(json.dumps({"annotations": [{"image_id": 139, "caption": "a man and his puppies"}]}))
    (part,) = parts(asked, ANSWERS, Given((instances, captions), synonyms))
    assert part.score().figures["chair_i"] == 0
    assert part.score().counts["classes"] == 3


def test_answers_travel_as_the_official_script_reads_them(asked, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(answers_file(asked, ANSWERS))
    assert json.loads(path.read_text().splitlines()[0]) == {
        "question_id": 0, "image_id": 139, "question": "Describe it.", "answer": ANSWERS["0"],
    }  # fmt: skip
    assert read_answers(path, asked) == ANSWERS
    lines(path, [{"image_id": "285", "text": "b"}, {"image_id": 139, "text": "a"}])
    assert read_answers(path, asked) == {"0": "a", "1": "b"}


def test_what_is_wrong_is_said(asked, synonyms, tmp_path):
    assert parts(asked, ANSWERS, Given()) == []
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"139": ["person"]}))
    with pytest.raises(ValueError, match="the annotations lack 1 of 2 questions, such as '285'"):
        parts(asked, ANSWERS, Given((truth,), synonyms))
    truth.write_text(json.dumps({"139": ["unicorn"], "285": []}))
    with pytest.raises(ValueError, match="'unicorn', which is no word of the vocabulary"):
        parts(asked, ANSWERS, Given((truth,), synonyms))
    twice = questions(lines(tmp_path / "twice.jsonl", [ROWS[0], ROWS[0]]))
    with pytest.raises(ValueError, match="image 139 is asked 2 questions"):
        read_answers(lines(tmp_path / "a.jsonl", [{"image_id": 139, "answer": "x"}]), twice)
    with pytest.raises(ValueError, match="has none of answer, text, caption"):
        read_answers(lines(tmp_path / "a.jsonl", [{"image_id": 139, "response": "x"}]), asked)
    with pytest.raises(ValueError, match="has no `question`"):
        questions(lines(tmp_path / "none.jsonl", [{"image_id": 1}]))
