"""AMBER by hand: what descriptions name, and the official rounding of yes/no questions."""

from __future__ import annotations

import json
import math

import pytest

from prefopt.evaluation.benchmarks.amber import (
    Description,
    answers_file,
    discriminative,
    generative,
    parts,
    questions,
    read_answers,
)
from prefopt.evaluation.benchmarks.base import Given

WORDS = {
    "sky": [], "grass": ["ground"], "ground": ["floor"], "person": ["people", "man"], "dog": [], "cat": [], "sun": [],
    "bird": ["bill"], "car": ["vehicle"],
}  # fmt: skip


def test_two_descriptions():
    score = generative(
        [
            # sky and man are there; dog was expected and is not; a car nobody expected
            Description(
                ["sky", "man", "sky", "dog", "car"], truth=["sky", "person", "grass"], hallu=["dog", "bird"]
            ),
            # bill stands for a bird, which was expected
            Description(["cat", "bill"], truth=["cat"], hallu=["bird", "sun"]),
        ],
        WORDS,
    )
    cover = 3 / 4
    chair = 3 / 7
    assert score.figures == pytest.approx(
        {
            "chair": chair,
            "cover": cover,
            "hal": 1.0,
            "cog": 2 / 4,
            "object_f1": 2 * (1 - chair) * cover / (1 - chair + cover),
        }
    )
    assert score.counts["mentions"] == 7


def test_cog_of_mentions():
    one = Description(["dog", "dog", "cat"], truth=["cat"], hallu=["dog", "sun"])
    assert generative([one], WORDS, denominator="mentions").figures["cog"] == pytest.approx(2 / 3)
    assert generative([one], WORDS, denominator="targets").figures["cog"] == 1 / 2
    with pytest.raises(ValueError, match="denominator='objects' is not one of"):
        generative([one], WORDS, denominator="objects")


def test_an_associated_word_covers_before_the_object_itself_as_in_the_official_script():
    one = Description(["ground"], truth=["ground", "grass"], hallu=[])
    score = generative([one], WORDS)
    assert score.figures["cover"] == 0.5
    both = generative([Description(["ground", "floor"], truth=["ground", "grass"], hallu=[])], WORDS)
    assert both.figures["cover"] == 1  # "ground" is the grass's, "floor" the ground's
    twice = generative([Description(["sky", "sky"], truth=["sky", "sky"], hallu=[])], WORDS)
    assert twice.figures["cover"] == 0.5  # annotated twice: the first is covered


def test_safe_words_count_as_mentions_and_are_never_hallucinated():
    score = generative(
        [Description(["light", "camera", "dog"], truth=["sky"], hallu=[])], {**WORDS, "light": []}
    )
    assert score.figures["chair"] == pytest.approx(1 / 3)
    alone = generative([Description(["light"], truth=["sky"], hallu=[])], WORDS)
    assert (alone.figures["chair"], alone.figures["hal"], alone.figures["cover"]) == (0, 0, 0)


def test_similar_words():
    def similar(a: str, b: str) -> bool:
        return {a, b} in ({"hound", "dog"}, {"kitten", "cat"})

    one = Description(["hound", "kitten"], truth=["dog"], hallu=["cat"])
    assert generative([one], WORDS).figures["chair"] == 1
    found = generative([one], WORDS, similar=similar).figures
    assert (found["chair"], found["cover"], found["cog"]) == (0.5, 1, 1)


def test_nothing_mentioned_is_undefined():
    score = generative([Description([], truth=["sky"], hallu=["sun"])], WORDS)
    assert math.isnan(score.figures["chair"])
    assert (
        score.figures["cover"],
        score.figures["hal"],
        score.figures["cog"],
        score.figures["object_f1"],
    ) == (0, 0, 0, 0)
    assert score.counts["without_mention"] == 1
    assert math.isnan(generative([Description(["sky"], ["sky"], [])], WORDS).figures["cog"])


def test_an_annotated_object_outside_the_vocabulary():
    with pytest.raises(ValueError, match="'unicorn' has no entry"):
        generative([Description([], truth=["unicorn"], hallu=[])], WORDS)


def test_yes_and_no():
    # no, no, no, yes, yes true; answered no, No., yes, no, an unclear one
    pairs = [("no", "no"), ("no", "No."), ("no", "Yes, there is"), ("yes", "no"), ("yes", "It is sunny")]
    score = discriminative(pairs)
    assert score.figures["accuracy"] == pytest.approx(2 / 5)
    assert score.figures["precision"] == score.figures["recall"] == pytest.approx(2 / 3)
    assert score.figures["f1"] == pytest.approx(2 * 0.667 * 0.667 / (0.667 + 0.667 + 1e-4), abs=1e-12)
    assert discriminative(pairs, epsilon=1e-3).figures["f1"] == pytest.approx(
        2 * 0.667 * 0.667 / (0.667 + 0.667 + 1e-3), abs=1e-12
    )
    assert score.counts["unclear"] == 1


def test_never_no_and_nothing_to_deny():
    score = discriminative([("no", "Yes"), ("yes", "yes")])
    assert math.isnan(score.figures["precision"])
    assert (score.figures["recall"], score.figures["f1"]) == (0, 0)
    assert math.isnan(discriminative([("yes", "yes")]).figures["f1"])
    assert discriminative([("yes", "")]).figures["accuracy"] == 0
    with pytest.raises(ValueError, match="needed yes or no"):
        discriminative([("unknown", "yes")])


QUERIES = [
    {"id": 1, "image": "AMBER_1.jpg", "query": "Describe this image."},
    {"id": 1005, "image": "AMBER_1.jpg", "query": "Is the sky sunny?"},
    {"id": 1006, "image": "AMBER_2.jpg", "query": "Is there a dog?"},
    {"id": 1007, "image": "AMBER_2.jpg", "query": "Are they touching?"},
]
ANNOTATIONS = [
    {"id": "1", "type": "generative", "truth": ["sky", "person"], "hallu": ["sun"]},
    {"id": "1005", "type": "discriminative-attribute-state", "truth": "yes"},
    {"id": "1006", "type": "discriminative-hallucination", "truth": "no"},
    {"id": "1007", "type": "relation", "truth": "no"},
]


@pytest.fixture
def files(tmp_path):
    for name, content in (("query_all", QUERIES), ("annotations", ANNOTATIONS), ("relation", WORDS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_all_parts_from_files_with_ids_of_either_type(files):
    asked = questions(files / "query_all.json")
    answers = {"1": "People under the sun and sky.", "1005": "Yes, it is.", "1006": "No", "1007": "Yes"}
    given = Given((files / "annotations.json",), files / "relation.json")
    found = {part.name: part.score() for part in parts(asked, answers, given)}
    assert list(found) == ["generative", "discriminative", "existence", "attribute", "state", "relation"]
    assert found["generative"].figures["chair"] == pytest.approx(1 / 3)
    assert found["generative"].figures["cover"] == 1
    assert found["discriminative"].figures["accuracy"] == pytest.approx(2 / 3)
    assert found["existence"].figures["f1"] == pytest.approx(2 / 2.001)
    assert found["relation"].figures["accuracy"] == 0
    written = files / "answers.json"
    written.write_text(answers_file(asked, answers))
    rows = json.loads(written.read_text())
    assert [(row["id"], row["response"]) for row in rows] == [
        (1, answers["1"]), (1005, "Yes"), (1006, "No"), (1007, "Yes"),  # as the official script compares them
    ]  # fmt: skip
    assert read_answers(written, asked) == answers


def test_what_is_needed_is_said(files):
    asked = questions(files / "query_all.json")
    answers = dict.fromkeys(("1", "1005", "1006", "1007"), "No")
    assert parts(asked, answers, Given()) == []
    with pytest.raises(ValueError, match="2 files of annotations given"):
        parts(asked, answers, Given((files / "annotations.json",) * 2))
    with pytest.raises(ValueError, match=r"give its relation\.json as --vocabulary"):
        parts(asked, answers, Given((files / "annotations.json",)))
    with pytest.raises(ValueError, match="is no vocabulary of AMBER"):
        parts(asked, answers, Given((files / "annotations.json",), files / "query_all.json"))
    (files / "annotations.json").write_text(json.dumps(ANNOTATIONS[:2]))
    with pytest.raises(ValueError, match="the annotations lack 2 of 4 questions, such as '1006'"):
        parts(asked, answers, Given((files / "annotations.json",), files / "relation.json"))
