"""The questions of a benchmark put to a model: images found, answers kept as they arrive, and not asked for again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from prefopt.evaluation.benchmarks.base import Question
from prefopt.generation.journal import Journal
from prefopt.modalities.vision_language.requests import Answerer, Request
from prefopt.sources.pictures import ImageRef
from prefopt.sources.progress import with_bar


def requests_of(questions: Sequence[Question], folder: Path | None) -> list[Request]:
    """What the model is asked, images included.

    Args:
        questions: of a benchmark.
        folder: of the images that questions name.

    Raises:
        ValueError: images are named, and there is no folder, or some are not in it; before anything is asked.
    """
    named = [question for question in questions if isinstance(question.image, tuple)]
    if named and folder is None:
        raise ValueError(
            f"{len(named)} questions name image files, such as {_names(named[0])[0]!r}: give their folder as --images"
        )
    missing = [question for question in named if _place(question, folder) is None]
    if missing:
        raise ValueError(
            f"{len(missing)} images are not in {folder}, such as {' or '.join(map(repr, _names(missing[0])))} of question "
            f"{missing[0].id!r}: add them, or give the folder that holds them as --images"
        )
    return [Request(_images(question, folder), question.prompt) for question in questions]


def _names(question: Question) -> tuple[str, ...]:
    return question.image if isinstance(question.image, tuple) else ()


def _place(question: Question, folder: Path | None) -> Path | None:
    """Where the image lies; paths that lead out of the folder are not followed."""
    if folder is None:
        return None
    inside = (
        Path(name)
        for name in _names(question)
        if not Path(name).is_absolute() and ".." not in Path(name).parts
    )
    return next((folder / name for name in inside if (folder / name).is_file()), None)


def _images(question: Question, folder: Path | None) -> list[ImageRef]:
    if question.image is None:
        return []
    if isinstance(question.image, bytes):
        return [ImageRef(question.image, f"the image of question {question.id}")]
    place = _place(question, folder)
    assert place is not None  # looked for above
    return [ImageRef(place, str(place))]


def ask(
    answers: Answerer,
    questions: Sequence[Question],
    requests: Sequence[Request],
    journal_path: Path,
    settings: Mapping[str, Any],
    batch_size: int,
) -> dict[str, str]:
    """Answers by id; those in the journal are not asked for again.

    Args:
        answers: of the model; called with `batch_size` requests at most.
        questions, requests: one each.
        journal_path: where answers are kept as they arrive.
        settings: what the answers depend on beside the requests; a journal of others is refused.
        batch_size: answers between two writes.

    Raises:
        ValueError: a journal of other settings, or with another question or image under an id; or a model that gives another
            number of answers.
        UnusableItem: an image that cannot be read.
    """
    digests = [_digest(request) for request in requests]
    known = {question.id: digest for question, digest in zip(questions, digests, strict=True)}
    found: dict[str, str] = {}
    with Journal(journal_path, settings) as journal:
        for number, row in journal.lines:
            if known.get(row["id"], row["asked"]) != row["asked"]:
                raise ValueError(
                    f"{journal_path}, line {number}: answers another question or image under the id {row['id']!r}. Give another "
                    "--output, or delete the journal"
                )
            found[row["id"]] = row["answer"]
        left = [n for n, question in enumerate(questions) if question.id not in found]
        batches = [left[start : start + batch_size] for start in range(0, len(left), batch_size)]
        for batch in with_bar(batches, "asking"):
            said = answers([requests[n] for n in batch])
            if len(said) != len(batch):
                raise ValueError(
                    f"the model gave {len(said)} answers to {len(batch)} questions: needed one each"
                )
            lines = [
                {"id": questions[n].id, "answer": text, "asked": digests[n]}
                for n, text in zip(batch, said, strict=True)
            ]
            journal.append(lines)
            found |= {line["id"]: line["answer"] for line in lines}
    return {question.id: found[question.id] for question in questions}


def _digest(request: Request) -> str:
    """Of prompt and images, by their bytes."""
    content = json.dumps([request.prompt, *(image.digest for image in request.images)])
    return blake2b(content.encode(), digest_size=8).hexdigest()
