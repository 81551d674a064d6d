"""The data report of images: how many, how large, of which kinds, and what could mislead a model about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefopt.comparisons import TIE, Example
from prefopt.sources.hints import ENOUGH, assemble
from prefopt.sources.pictures import ImageRef
from prefopt.sources.report import DataReport, Dropped, Hint, Measures, Origin, summary

SIZES_LISTED = 8
LONG_CAPTION = (
    60  # words; CLIP's text encoders stop at 77 tokens, of which two are marks and a word makes 1.3
)


def describe_images(
    source: str,
    rows: int,
    examples: Sequence[Example],
    dropped: Sequence[Dropped],
    origins: Mapping[str, Origin],
    notes: Sequence[Hint] = (),
) -> DataReport:
    """The report of examples whose samples are `ImageRef`s and whose prompts are text; see `hints.describe`."""
    refs: list[ImageRef] = [item.sample for example in examples for item in example.items]
    captions = [example.items[0].condition["prompt"] for example in examples]
    pairs = list(_pairs(examples))
    mixed = sum(first.size != second.size for first, second, _ in pairs)
    by_digest = {ref.digest: ref for ref in refs}
    sizes = Counter("{} x {}".format(*ref.size) for ref in refs)
    listed = dict(sizes.most_common(SIZES_LISTED))
    if len(sizes) > SIZES_LISTED:
        listed["other"] = len(refs) - sum(listed.values())
    images: dict[str, Any] = {
        "count": len(refs),
        "distinct": len(by_digest),
        "megabytes": round(sum(ref.facts.bytes for ref in by_digest.values()) / 1e6, 3),
        "formats": dict(Counter(ref.facts.format for ref in refs).most_common()),
        "modes": dict(Counter(ref.facts.mode for ref in refs).most_common()),
        "sizes": listed,
        "width": summary([ref.size[0] for ref in refs]),
        "height": summary([ref.size[1] for ref in refs]),
        "mixed_sizes": mixed,
    }
    # a sample has no length here, so that there is nothing for a gap or a histogram
    measures = Measures(
        lengths={
            "unit": "characters",
            "prompt": summary([len(caption) for caption in captions]),
            "chosen": None,
            "rejected": None,
        },
        length_gap={"mean": None, "share_chosen_longer": None},
        histograms={},
    )
    found = [*_size_hints(pairs, mixed), *_caption_hints(captions)]
    report = assemble(source, rows, examples, dropped, origins, measures, notes, found)
    return replace(report, own={"images": images})


def _pairs(examples: Sequence[Example]) -> Iterator[tuple[ImageRef, ImageRef, bool]]:
    """Both images of each comparison, and whether it is a tie."""
    for example in examples:
        for edge in example.comparisons:
            if edge.second is not None:
                yield example.items[edge.first].sample, example.items[edge.second].sample, edge.outcome == TIE


def _size_hints(pairs: Sequence[tuple[ImageRef, ImageRef, bool]], mixed: int) -> list[Hint]:
    hints = []
    if mixed:
        hints.append(
            Hint(
                "note",
                f"{mixed} of {len(pairs)} pairs have images of different sizes; both are resized to one",
            )
        )
    areas = [(a.size[0] * a.size[1], b.size[0] * b.size[1]) for a, b, tie in pairs if not tie]
    larger, smaller = sum(a > b for a, b in areas), sum(a < b for a, b in areas)
    most, word = max((larger, "larger"), (smaller, "smaller"))
    if most >= 0.9 * len(areas) and most >= ENOUGH:
        hints.append(
            Hint(
                "warn",
                f"the chosen image is the {word} one in {most / len(areas):.0%} of the pairs: once resized, a model can "
                "learn sharpness instead of quality",
            )
        )
    return hints


def _caption_hints(captions: Sequence[str]) -> list[Hint]:
    long = sum(len(caption.split()) > LONG_CAPTION for caption in captions)
    if not long:
        return []
    return [
        Hint(
            "note",
            f"{long} caption(s) have more than {LONG_CAPTION} words: CLIP text encoders read 77 tokens and ignore the rest",
        )
    ]
