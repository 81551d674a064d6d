"""Object-HalBench (as in arXiv 2312.00849): CHAIR of detailed descriptions of COCO images.

Objects are found by the vocabulary, or were extracted from the descriptions by a language model and are given as a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks import chair, coco
from prefopt.evaluation.benchmarks.base import (
    Given,
    Part,
    Question,
    Tally,
    asked_once,
    by_unit,
    complete,
    ident,
    image_of,
    json_lines,
    keyed,
    read_json,
    read_rows,
)
from prefopt.evaluation.benchmarks.objects import Vocabulary, read_vocabulary

ANSWERS = "answers.jsonl"
NEEDS = "what is in the images, such as COCO's instances_val2014.json, given as --annotations"
EXTRACTED = ("extract_objs", "objects")


def questions(path: Path) -> list[Question]:
    """Read rows of `image_id` and `question` (or `prompt`), with `image` where the row holds the image or names its file."""
    rows = read_rows(path, ("image_id",))
    found = []
    for number, row in enumerate(rows):
        prompt = row.get("question") or row.get("prompt")
        if not prompt:
            raise ValueError(
                f"{path}, image {row['image_id']!r} has no `question`: needed what the model is asked"
            )
        image = row.get("image")
        names: tuple[str, ...] | bytes
        if image is None:
            padded = ident(row["image_id"]).zfill(12)
            names = (f"COCO_val2014_{padded}.jpg", f"{padded}.jpg", f"COCO_train2014_{padded}.jpg")
        else:
            names = image_of(image)
        found.append(Question(ident(row.get("question_id", number)), str(prompt), names, row))
    return asked_once(found, path)


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read lines of `answer` or `text`, each with `question_id` or else `image_id`, of which then one question may be asked."""
    return _by_question(read_rows(path), questions, path, ("answer", "text", "caption"), str)


def answers_file(questions: Sequence[Question], answers: Mapping[str, str]) -> str:
    """Lines of question_id, image_id, question and answer, as the official script reads them."""
    return json_lines(
        {
            "question_id": q.row.get("question_id", int(q.id) if q.id.isdigit() else q.id),
            "image_id": q.row["image_id"],
            "question": q.prompt,
            "answer": answers[q.id],
        }
        for q in questions
    )


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """One part, none without annotations; descriptions of the same image are drawn together.

    Raises:
        ValueError: images without any, or descriptions without extracted objects where some are given.
    """
    complete(answers, [question.id for question in questions], "the answers")
    if not given.annotations:
        return []
    vocabulary = (
        Vocabulary({name: name for name in coco.CLASSES})
        if given.vocabulary is None
        else read_vocabulary(given.vocabulary)
    )
    truth = read_truth(given.annotations, vocabulary)
    complete(truth, [ident(q.row["image_id"]) for q in questions], "the annotations")
    extracted: Mapping[str, list[str]] | None = None
    if given.judged is not None:
        extracted = _by_question(read_rows(given.judged), questions, given.judged, EXTRACTED, _strings)
        complete(
            extracted, [question.id for question in questions], f"the extracted objects of {given.judged}"
        )
    tallies: list[tuple[str, Tally]] = []
    for question in questions:
        image = ident(question.row["image_id"])
        if extracted is None:
            mentions = vocabulary.mentions(answers[question.id])
        else:  # "a wooden dining table" mentions a dining table
            mentions = [word for phrase in extracted[question.id] for word in vocabulary.mentions(phrase)]
        tallies.append((image, chair.tally(chair.Caption(mentions, truth[image]), vocabulary)))
    return [Part("all", by_unit(tallies), chair.figures)]


def read_truth(paths: Sequence[Path], vocabulary: Vocabulary) -> dict[str, set[str]]:
    """Classes of each image, united over files.

    Args:
        paths: COCO's instances_*.json and captions_*.json; an object of lists of classes by image id; or rows of `image_id`
            (or `image`, a file's name that ends with the id) and `objects`.
        vocabulary: gives the classes of words.

    Raises:
        ValueError: other content, or an object that the vocabulary lacks.
    """
    truth: dict[str, set[str]] = {}
    for path in paths:
        content = _object(path)
        found: Mapping[str, set[str]]
        if content is not None and isinstance(content.get("annotations"), list):
            found = coco.objects_in(content, vocabulary)
        elif content is not None:
            found = {ident(image): _classes(names, vocabulary, path) for image, names in content.items()}
        else:
            rows = read_rows(path, ("objects",))
            found = {_image(row, path): _classes(row["objects"], vocabulary, path) for row in rows}
        for image, classes in found.items():
            truth.setdefault(image, set()).update(classes)
    return truth


def _object(path: Path) -> dict[str, Any] | None:
    """The JSON object that a file holds; None where it holds rows: an array, JSON lines, or one such line."""
    if path.suffix != ".json":
        return None
    try:
        content = read_json(path)
    except ValueError:
        return None
    return content if isinstance(content, dict) and "objects" not in content else None


def _image(row: Mapping[str, Any], path: Path) -> str:
    if row.get("image_id") is not None:
        return ident(row["image_id"])
    digits = Path(str(row.get("image", ""))).stem.rpartition("_")[2]
    if not digits.isdigit():
        raise ValueError(
            f"{path}: a row names no image ({row.get('image')!r}): needed `image_id`, or `image`, a COCO file's name"
        )
    return str(int(digits))


def _classes(names: Any, vocabulary: Vocabulary, path: Path) -> set[str]:
    found = set()
    for name in _strings(names):
        of = vocabulary.class_of(name)
        if of is None:
            raise ValueError(
                f"{path} has the object {name!r}, which is no word of the vocabulary: add it, or leave it out"
            )
        found.add(of)
    return found


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"objects are given as {value!r}; needed a list of names")
    return value


def _by_question(
    rows: Sequence[Mapping[str, Any]],
    questions: Sequence[Question],
    path: Path,
    fields: Sequence[str],
    read: Any,
) -> dict[str, Any]:
    """A field of rows by the ids of the questions."""
    by_image: dict[str, list[str]] = {}
    for question in questions:
        by_image.setdefault(ident(question.row["image_id"]), []).append(question.id)
    found: list[tuple[str, Any]] = []
    for row in rows:
        name = next((name for name in fields if row.get(name) is not None), None)
        if name is None:
            raise ValueError(
                f"{path}: a row has none of {', '.join(fields)}, only {', '.join(row)}: is this another file?"
            )
        if row.get("question_id") is not None:
            found.append((ident(row["question_id"]), read(row[name])))
            continue
        image = ident(row.get("image_id"))
        asked = by_image.get(image, [image])
        if len(asked) > 1:
            raise ValueError(
                f"{path}: image {image} is asked {len(asked)} questions: needed `question_id` in each row"
            )
        found.append((asked[0], read(row[name])))
    return keyed(found, path)
