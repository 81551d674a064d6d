"""Objects in a text: plurals, phrases, classes, and files of vocabularies."""

from __future__ import annotations

import json

import pytest

from prefopt.evaluation.benchmarks.coco import CLASSES, objects_in
from prefopt.evaluation.benchmarks.objects import Vocabulary, read_vocabulary, words_of

COCO = Vocabulary({name: name for name in CLASSES})


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("Two dogs and a DOG.", ["dog", "dog"]),
        ("Hot dogs on a dining-table", ["hot dog", "dining table"]),
        ("The bus’s driver and three buses", ["bus", "bus"]),
        ("knives, scissors, skis and sheep", ["knife", "scissors", "skis", "sheep"]),
        ("people with umbrellas", ["person", "umbrella"]),
        ("a traffic\nlight; teddy bears, a bear", ["traffic light", "teddy bear", "bear"]),
        ("couches and wine glasses", ["couch", "wine glass"]),
        ("a catalogue of dogma", []),
        ("", []),
    ],
)
def test_mentions_of_coco_classes(text, mentions):
    assert COCO.mentions(text) == mentions


def test_plurals_that_only_some_vocabularies_have():
    vocabulary = Vocabulary(
        {name: name for name in ("man", "fireman", "puppy", "leaf", "people", "child", "glass")}
    )
    assert vocabulary.mentions("Men, firemen, puppies, leaves, people, children, glasses") == [
        "man", "fireman", "puppy", "leaf", "people", "child", "glass",
    ]  # fmt: skip


def test_the_longest_phrase_is_taken_and_one_without_class_hides_what_is_in_it():
    vocabulary = Vocabulary(
        {"plate": "plate", "home plate": None, "cell phone": "cell phone", "phone": "phone"}
    )
    assert vocabulary.mentions("a home plate, plates, a cell phone and a phone") == [
        "plate",
        "cell phone",
        "phone",
    ]
    assert vocabulary.classes(["home plate", "plates", "sofa"]) == ["plate"]
    seats = Vocabulary({name: name for name in ("car", "car seat", "seat", "car seat cover")})
    assert seats.mentions("car seats, a car seat cover, a car's seat") == [
        "car seat",
        "car seat cover",
        "car seat",
    ]


def test_words():
    assert words_of("A T-shirt, it's John's; naïve_2") == ["a", "t", "shirt", "it", "john", "naïve", "2"]


def test_vocabularies_are_read_from_both_kinds_of_file(tmp_path):
    (tmp_path / "synonyms.txt").write_text("person, man, woman\ndining table, table\n\n")
    (tmp_path / "words.json").write_text(json.dumps({"man": "person", "home plate": None}))
    lines = read_vocabulary(tmp_path / "synonyms.txt")
    assert lines.classes(lines.mentions("women at tables, a person")) == ["person", "dining table", "person"]
    assert read_vocabulary(tmp_path / "words.json").class_of("Man") == "person"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "[1]", "needed an object of class by word"),
        ("a.json", '{"dog": 1}', "needed an object of class by word"),
        ("a.json", "{", "is no JSON file"),
        ("a.txt", "dog, puppy\ncat, puppy", "line 2: 'puppy' stands for 'cat', and above for 'dog'"),
        ("a.txt", "", "has no words"),
        ("a.json", '{"dog": "dog", "Dog": "cat"}', "needed one class a word"),
        ("a.json", '{"?": "dog"}', "is no word"),
    ],
)
def test_wrong_vocabularies(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=said):
        read_vocabulary(tmp_path / name)


def test_a_missing_vocabulary(tmp_path):
    for name in ("none.txt", "none.json"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            read_vocabulary(tmp_path / name)


def test_cocos_80_classes():
    assert len(CLASSES) == len(set(CLASSES)) == 80
    # no class is taken for the plural, or for a part, of another
    assert all(COCO.mentions(name) == [name] for name in CLASSES)


def test_cocos_files():
    vocabulary = Vocabulary({**{name: name for name in CLASSES}, "man": "person"})
    instances = {
        "images": [{"id": 1}, {"id": 2}, {"id": 3}],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 18}, {"image_id": 1, "category_id": 18}, {"image_id": 2, "category_id": 1},
        ],
    }  # fmt: skip
    assert objects_in(instances, vocabulary) == {"1": {"dog"}, "2": {"person"}, "3": set()}
    captions = {"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "A man walks two dogs."}]}
    assert objects_in(captions, vocabulary) == {"1": {"person", "dog"}}
    with pytest.raises(ValueError, match="neither `caption` nor"):
        objects_in({"annotations": [{"image_id": 1, "keypoints": []}]}, vocabulary)
    instances["categories"].append({"id": 19, "name": "unicorn"})
    instances["annotations"].append({"image_id": 1, "category_id": 19})
    with pytest.raises(ValueError, match="'unicorn' is no word of the vocabulary"):
        objects_in(instances, vocabulary)
