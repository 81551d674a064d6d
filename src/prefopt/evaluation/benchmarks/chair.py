"""CHAIR (Rohrbach et al. 2018, arXiv 1809.02156): objects that captions name and images lack, beside recall and F1.

CHAIR alone rewards saying less. Nothing here gives it without recall, F1 and the number of mentions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from prefopt.evaluation.benchmarks.base import Score, Tally, harmonic, ratio, scored
from prefopt.evaluation.benchmarks.objects import Vocabulary


@dataclass(frozen=True)
class Caption:
    """What a caption mentions, and what is there.

    Attributes:
        mentions: words, from a text (`Vocabulary.mentions`) or extracted by a language model. A word counts once.
        truth: classes of the objects in the image.
    """

    mentions: Sequence[str]
    truth: Collection[str]


def chair(captions: Iterable[Caption], vocabulary: Vocabulary | None = None) -> Score:
    """CHAIR of objects and of captions, recall, and F1 of 1 - chair_i and recall.

    chair_i is hallucinated mentions / mentions; chair_s captions with a hallucination / captions, and chair_s_refined /
    captions with a mention (Object-HalBench); recall distinct true classes mentioned / true classes. Where nothing is
    mentioned, chair_i and chair_s_refined are NaN; `without_mention` counts such captions.

    Args:
        captions: mentions and truth of each.
        vocabulary: gives the classes of words, and leaves out other words; None: every word is its own class.

    Example:
        >>> chair([Caption(["dog", "dog", "cat"], {"dog", "person"})]).figures["chair_i"]
        0.5
    """
    return scored((tally(caption, vocabulary) for caption in captions), figures)


def tally(caption: Caption, vocabulary: Vocabulary | None = None) -> Tally:
    """Counts of one caption."""
    # by word, not by class: the reference implementation counts "man" and "woman" as two mentions of a person
    words = list(dict.fromkeys(caption.mentions))
    classes = words if vocabulary is None else vocabulary.classes(words)
    truth = set(caption.truth)
    hallucinated = sum(name not in truth for name in classes)
    return {
        "captions": 1, "mentions": len(classes), "hallucinated": hallucinated, "hallucinating": hallucinated > 0,
        "without_mention": not classes, "classes_found": len(truth & set(classes)), "classes": len(truth),
    }  # fmt: skip


def figures(total: Tally) -> dict[str, float]:
    """Figures of summed counts."""
    chair_i = ratio(total.get("hallucinated", 0), total.get("mentions", 0))
    recall = ratio(total.get("classes_found", 0), total.get("classes", 0))
    captions, hallucinating = total.get("captions", 0), total.get("hallucinating", 0)
    return {
        "chair_i": chair_i,
        "chair_s": ratio(hallucinating, captions),
        "chair_s_refined": ratio(hallucinating, captions - total.get("without_mention", 0)),
        "recall": recall,
        "object_f1": harmonic(1 - chair_i, recall),
    }
