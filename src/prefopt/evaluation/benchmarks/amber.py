"""AMBER (arXiv 2311.07397): objects that descriptions name, and questions of existence, attributes and relations.

Generative: CHAIR, Cover, Hal and Cog over nouns of the annotated vocabulary. Discriminative: accuracy, and precision, recall
and F1 with "no" as the positive class. Where a noun may stand for several annotated objects, it covers the one that the
official script would take. That script also lets word vectors decide (spaCy, similarity above 0.8): give such a function as
`similar` for its figures; without one, words count as the same by the published associations alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from prefopt.evaluation.benchmarks.base import (
    Given,
    Part,
    Question,
    Score,
    Tally,
    asked_once,
    by_unit,
    complete,
    harmonic,
    ident,
    image_of,
    json_list,
    keyed,
    ratio,
    read_json,
    read_rows,
    scored,
)
from prefopt.evaluation.benchmarks.objects import Vocabulary
from prefopt.evaluation.benchmarks.yes_no import yes_or_no

ANSWERS = "answers.json"
NEEDS = "AMBER's annotations.json, given as --annotations"

Denominator = Literal["mentions", "targets"]
Similar = Callable[[str, str], bool]

# published beside the annotations: never hallucinated
SAFE_WORDS = frozenset(("orange", "snack", "line", "camera", "light", "shoe", "sign", "range", "individual"))
FIRST_DISCRIMINATIVE = 1005
"""Id of the first yes/no question: the official script takes nothing but "Yes" and "No" from there on."""
DIMENSIONS = {
    "discriminative-hallucination": ("existence",),
    "discriminative-attribute-state": ("attribute", "state"),
    "discriminative-attribute-number": ("attribute", "number"),
    "discriminative-attribute-action": ("attribute", "action"),
}
"""Parts that a question counts to beside "discriminative", by its type; every other discriminative type is a relation."""


@dataclass(frozen=True)
class Description:
    """One answer of the generative part.

    Attributes:
        nouns: every noun of the vocabulary that it mentions, as often as it does.
        truth: annotated objects.
        hallu: annotated objects that are not there and that a person would expect.
    """

    nouns: Sequence[str]
    truth: Sequence[str]
    hallu: Sequence[str]


def generative(
    descriptions: Iterable[Description],
    association: Mapping[str, Sequence[str]],
    *,
    safe_words: Collection[str] = SAFE_WORDS,
    similar: Similar | None = None,
    denominator: Denominator = "targets",
) -> Score:
    """CHAIR, Cover, Hal, Cog, and F1 of 1 - CHAIR and Cover; all pooled over descriptions.

    Args:
        descriptions: nouns and annotations of each.
        association: words that may stand for an object (relation.json).
        safe_words: mentions that are never hallucinated; they count as mentions.
        similar: whether two words mean the same, beyond the association.
        denominator: of Cog: annotated targets, as the official script and tables have it, or mentions, as the paper writes.

    Raises:
        ValueError: an annotated object without an association, or another denominator.

    Example:
        >>> seen = Description(["dog", "cat"], truth=["dog", "sky"], hallu=["cat"])
        >>> generative([seen], {"dog": [], "sky": [], "cat": []}).figures["cover"]
        0.5
    """
    if denominator not in ("targets", "mentions"):
        raise ValueError(f"denominator={denominator!r} is not one of: targets, mentions")
    tallies = (tally_description(one, association, safe_words, similar) for one in descriptions)
    return scored(tallies, partial(generative_figures, denominator=denominator))


def tally_description(
    one: Description,
    association: Mapping[str, Sequence[str]],
    safe_words: Collection[str] = SAFE_WORDS,
    similar: Similar | None = None,
) -> Tally:
    """Counts of one description."""
    for word in (*one.truth, *one.hallu):
        if word not in association:
            raise ValueError(
                f"the annotated object {word!r} has no entry in the vocabulary: needed AMBER's relation.json, which lists all"
            )

    def place(noun: str, annotated: Sequence[str], alike: Similar | None) -> int | None:
        """Which annotated object a noun stands for: through an associated word first, as in the official script."""
        if alike is None:
            return None
        for number, word in enumerate(annotated):
            if any(alike(noun, other) for other in association[word]):
                return number
        return next((number for number, word in enumerate(annotated) if alike(noun, word)), None)

    covered, expected = set(), set()
    hallucinated = on_target = 0
    for noun in one.nouns:
        if noun in safe_words:
            continue
        if (there := place(noun, one.truth, str.__eq__)) is not None:
            covered.add(there)
            continue
        targets = {place(noun, one.hallu, str.__eq__), place(noun, one.hallu, similar)} - {None}
        expected |= targets
        on_target += bool(targets)
        if (there := place(noun, one.truth, similar)) is not None:
            covered.add(there)
        else:
            hallucinated += 1
    return {
        "descriptions": 1, "mentions": len(one.nouns), "without_mention": not one.nouns,
        "hallucinated": hallucinated, "hallucinating": hallucinated > 0,
        "covered": len(covered), "objects": len(one.truth),
        "targets_hit": len(expected), "targets": len(one.hallu), "mentions_on_target": on_target,
    }  # fmt: skip


def generative_figures(total: Tally, denominator: Denominator = "targets") -> dict[str, float]:
    """Figures of summed counts."""
    chair = ratio(total.get("hallucinated", 0), total.get("mentions", 0))
    cover = ratio(total.get("covered", 0), total.get("objects", 0))
    if denominator == "targets":
        cog = ratio(total.get("targets_hit", 0), total.get("targets", 0))
    else:
        cog = ratio(total.get("mentions_on_target", 0), total.get("mentions", 0))
    return {
        "chair": chair,
        "cover": cover,
        "object_f1": harmonic(1 - chair, cover),
        "hal": ratio(total.get("hallucinating", 0), total.get("descriptions", 0)),
        "cog": cog,
    }


def discriminative(pairs: Iterable[tuple[str, str]], *, epsilon: float = 1e-4) -> Score:
    """Accuracy, and precision, recall and F1 with "no" positive.

    F1 is that of the official script: of precision and recall rounded to a tenth of a percent, with `epsilon` in its
    denominator. That script starts its denominators at 0.001, so its last digit may differ on a few dozen questions.

    Args:
        pairs: truth ("yes" or "no") and answer. An answer that says neither is wrong, and counted.
        epsilon: 1e-4; the script has 1e-3 for questions of existence.

    Raises:
        ValueError: another truth.

    Example:
        >>> discriminative([("no", "No."), ("yes", "No"), ("yes", "Yes")]).figures["precision"]
        0.5
    """
    tallies = (tally_answer(truth, answer) for truth, answer in pairs)
    return scored(tallies, partial(discriminative_figures, epsilon=epsilon))


def tally_answer(truth: str, answer: str) -> Tally:
    """Counts of one answer."""
    truth = truth.strip().lower()
    if truth not in ("yes", "no"):
        raise ValueError(f"the truth of a question is {truth!r}; needed yes or no")
    said = yes_or_no(answer)
    return {
        "n": 1, "truth_no": truth == "no", "said_no": said == "no", "correct": said == truth,
        "correct_no": said == "no" == truth, "unclear": said == "unclear",
    }  # fmt: skip


def discriminative_figures(total: Tally, epsilon: float = 1e-4) -> dict[str, float]:
    """Figures of summed counts."""
    hits = total.get("correct_no", 0)
    precision = ratio(hits, total.get("said_no", 0))
    recall = ratio(hits, total.get("truth_no", 0))
    p, r = (0.0 if math.isnan(value) else round(value, 3) for value in (precision, recall))
    return {
        "accuracy": ratio(total.get("correct", 0), total.get("n", 0)),
        "precision": precision,
        "recall": recall,
        "f1": math.nan if math.isnan(recall) else 2 * p * r / (p + r + epsilon),
    }


def questions(path: Path) -> list[Question]:
    """Read query_all.json, or the query_*.json of a part."""
    rows = read_rows(path, ("id", "image", "query"))
    return asked_once(
        [Question(ident(row["id"]), str(row["query"]), image_of(row["image"]), row) for row in rows], path
    )


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, str]:
    """Read `[{"id": ..., "response": ...}]`; `answer`, the model's own words, is taken instead where it is there."""
    rows = read_rows(path, ("id", "response"))
    return keyed(((ident(row["id"]), str(row.get("answer") or row["response"])) for row in rows), path)


def answers_file(questions: Sequence[Question], answers: Mapping[str, str]) -> str:
    """`[{"id": ..., "response": ...}]`; of a yes/no question "Yes" or "No", and the model's own words as `answer`."""
    return json_list(_answer(question, answers[question.id]) for question in questions)


def _answer(question: Question, answer: str) -> dict[str, str]:
    row = {"id": question.row["id"], "response": answer}
    if question.id.isdigit() and int(question.id) >= FIRST_DISCRIMINATIVE:
        row |= {"response": official_response(answer), "answer": answer}
    return row


def official_response(answer: str) -> str:
    """An answer to a yes/no question as the official script takes it: "Yes", "No", or unchanged where it says neither."""
    said = yes_or_no(answer)
    return answer if said == "unclear" else said.capitalize()


def parts(questions: Sequence[Question], answers: Mapping[str, str], given: Given) -> list[Part]:
    """Generative and discriminative parts, those that there are questions of; none without annotations.

    What is of one image is drawn together.

    Raises:
        ValueError: a file that is needed is not given, or does not fit.
    """
    complete(answers, [question.id for question in questions], "the answers")
    if not given.annotations:
        return []
    if len(given.annotations) > 1:
        raise ValueError(
            f"{len(given.annotations)} files of annotations given; needed one: AMBER's annotations.json"
        )
    annotated = {ident(row["id"]): row for row in read_rows(given.annotations[0], ("id", "type", "truth"))}
    complete(annotated, [question.id for question in questions], "the annotations")
    described: list[tuple[str, Tally]] = []
    answered: dict[str, list[tuple[str, Tally]]] = {}
    words: Mapping[str, Sequence[str]] | None = None
    vocabulary: Vocabulary | None = None
    for question in questions:
        row, unit = annotated[question.id], str(question.row["image"])
        if row["type"] == "generative":
            if words is None or vocabulary is None:
                words = read_association(given.vocabulary)
                vocabulary = Vocabulary({w: w for key, others in words.items() for w in (key, *others)})
            one = Description(vocabulary.mentions(answers[question.id]), row["truth"], row.get("hallu") or [])
            described.append((unit, tally_description(one, words)))
            continue
        tally = tally_answer(str(row["truth"]), answers[question.id])
        for name in ("discriminative", *DIMENSIONS.get(row["type"], ("relation",))):
            answered.setdefault(name, []).append((unit, tally))
    found = [Part("generative", by_unit(described), generative_figures)] if described else []
    order = ("discriminative", "existence", "attribute", "state", "number", "action", "relation")
    for name in (name for name in order if name in answered):
        epsilon = 1e-3 if name == "existence" else 1e-4
        found.append(Part(name, by_unit(answered[name]), partial(discriminative_figures, epsilon=epsilon)))
    return found


def read_association(path: Path | None) -> dict[str, list[str]]:
    """Read relation.json: words that may stand for each object.

    Raises:
        ValueError: no file is given, or it holds something else.
    """
    if path is None:
        raise ValueError("AMBER's descriptions need a vocabulary: give its relation.json as --vocabulary")
    words = read_json(path)
    if not isinstance(words, dict) or not all(isinstance(others, list) for others in words.values()):
        raise ValueError(
            f"{path} is no vocabulary of AMBER: needed an object of lists of words, as in its relation.json"
        )
    return words
