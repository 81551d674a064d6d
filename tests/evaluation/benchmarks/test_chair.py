"""CHAIR by hand: mentions, captions, recall and F1."""

from __future__ import annotations

import math

import pytest

from prefopt.evaluation.benchmarks.chair import Caption, chair
from prefopt.evaluation.benchmarks.objects import Vocabulary

WORDS = Vocabulary({"man": "person", "woman": "person", "dog": "dog", "cat": "cat", "car": "car"})


def test_three_captions():
    score = chair(
        [
            Caption(["man", "dog", "cat"], {"person", "dog"}),  # 1 of 3 hallucinated, both classes found
            Caption(["car"], {"car", "dog"}),  # none, 1 of 2 found
            Caption([], {"cat"}),  # no mention, 0 of 1
        ],
        WORDS,
    )
    assert score.figures == pytest.approx(
        {
            "chair_i": 1 / 4,
            "chair_s": 1 / 3,
            "chair_s_refined": 1 / 2,
            "recall": 3 / 5,
            "object_f1": 2 * 0.75 * 0.6 / 1.35,
        }
    )
    assert score.counts == {
        "captions": 3, "mentions": 4, "hallucinated": 1, "hallucinating": 1, "without_mention": 1, "classes_found": 3,
        "classes": 5,
    }  # fmt: skip


def test_a_word_counts_once_and_two_words_of_a_class_twice():
    score = chair([Caption(["man", "man", "woman", "cat", "cat"], {"person"})], WORDS)
    assert score.counts["mentions"] == 3
    assert score.figures["chair_i"] == pytest.approx(1 / 3)
    assert score.figures["recall"] == 1


def test_words_outside_the_vocabulary_are_no_mentions():
    score = chair([Caption(["tree", "dog"], {"dog"})], WORDS)
    assert (score.counts["mentions"], score.figures["chair_i"]) == (1, 0)
    assert (
        chair([Caption(["tree", "dog"], {"dog"})]).figures["chair_i"] == 0.5
    )  # without one, every word is a class


def test_nothing_mentioned_is_undefined_and_no_zero():
    score = chair([Caption([], {"dog"}), Caption([], {"cat"})])
    assert math.isnan(score.figures["chair_i"])
    assert math.isnan(score.figures["chair_s_refined"])
    assert score.figures["chair_s"] == 0  # by its definition: of all captions
    assert score.figures["recall"] == score.figures["object_f1"] == 0
    assert score.counts["without_mention"] == 2


def test_images_without_objects_have_no_recall():
    score = chair([Caption(["dog"], set())])
    assert score.figures["chair_i"] == 1
    assert math.isnan(score.figures["recall"])
    assert score.figures["object_f1"] == 0


def test_everything_hallucinated_and_no_captions():
    assert chair([Caption(["dog"], {"cat"})]).figures["object_f1"] == 0
    assert all(math.isnan(value) for value in chair([]).figures.values())
