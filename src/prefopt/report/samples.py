"""The section of samples on fixed prompts as text, laid out as before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from prefopt.report.changes import score_changes
from prefopt.report.format import finite
from prefopt.report.load import Run
from prefopt.report.page import render
from prefopt.report.pictures import Picture, embed

LONGEST_TEXT = 6_000  # characters of one generation
PICTURE_SIDE = 320  # pixels
TEXT_BUDGET = 400_000  # bytes of all generations of a page, as HTML


@dataclass(frozen=True)
class Generation:
    """One answer of the policy; its pieces are the text's, each with what is wrong with it, if that is known."""

    label: str
    text: str
    score: float | None
    length: Any
    cut: bool
    pieces: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Card:
    """One prompt with its answers: the first and the newest side by side, the others folded away."""

    prompt: str
    first: Generation
    newest: Generation | None
    between: list[Generation]
    pictures: Sequence[Picture] = ()

    @property
    def ends(self) -> tuple[float, float] | None:
        """Scores of the first and the newest answer."""
        if self.newest is None or self.first.score is None or self.newest.score is None:
            return None
        return self.first.score, self.newest.score

    @property
    def change(self) -> float | None:
        """Score of the newest answer minus that of the first."""
        return None if self.ends is None else self.ends[1] - self.ends[0]


def sample_cards(run: Run) -> tuple[list[Card], int]:
    """The prompts of `record/samples.json`, and how many were left out to keep the page light."""
    prompts = run.of("samples", "prompts")
    cards: list[Card] = []
    used = 0
    entries = [p for p in prompts if isinstance(p, Mapping)] if isinstance(prompts, list) else []
    for entry in entries:
        raw = entry.get("generations")
        generations = [g for g in raw if isinstance(g, Mapping)] if isinstance(raw, list) else []
        if not generations:
            continue
        generations.sort(key=lambda g: finite(g.get("step")) or 0.0)
        answers = [_generation(g) for g in generations]
        prompt = str(entry.get("prompt", ""))[:LONGEST_TEXT]
        used += sum(len(str(escape(text)).encode()) for text in (prompt, *(a.text for a in answers)))
        if cards and used > TEXT_BUDGET:
            return cards, len(entries) - len(cards)
        newest = answers[-1] if len(answers) > 1 else None
        shown = generations[0].get("pictures")
        pictures = [
            embed(run.folder, path, PICTURE_SIDE) for path in (shown if isinstance(shown, list) else [])
        ]
        cards.append(Card(prompt, answers[0], newest, answers[1:-1], pictures))
    return cards, 0


def _generation(raw: Mapping[str, Any]) -> Generation:
    text = str(raw.get("text", ""))
    step = finite(raw.get("step"))
    label = str(raw.get("label") or (f"step {step:.0f}" if step is not None else "answer"))
    return Generation(
        label,
        text[:LONGEST_TEXT],
        finite(raw.get("score")),
        raw.get("length"),
        len(text) > LONGEST_TEXT,
        pieces_of(text[:LONGEST_TEXT], raw.get("marks")),
    )


def pieces_of(text: str, marks: Any) -> list[tuple[str, str]]:
    """A text cut at its marks, [start, end, what is wrong]; anything else in their place is no mark.

    >>> pieces_of("a red cat", [[2, 5, "not there"]])
    [('a ', ''), ('red', 'not there'), (' cat', '')]
    """
    good = [
        (mark[0], mark[1], str(mark[2]))
        for mark in (marks if isinstance(marks, list) else [])
        if isinstance(mark, list) and len(mark) == 3 and all(isinstance(k, int) for k in mark[:2])
    ]
    pieces, place = [], 0
    for start, end, why in sorted(good):
        if place <= start < end <= len(text):
            pieces += [(text[place:start], ""), (text[start:end], why)]
            place = end
    return [piece for piece in (*pieces, (text[place:], "")) if piece[0]]


def samples(run: Run, word: str) -> Markup:
    """The section; empty where nothing was sampled.

    Args:
        run: of the page.
        word: what the samples are called.
    """
    cards, cut = sample_cards(run)
    if not cards:
        return Markup("")
    settings = run.of("samples", "settings")
    return render(
        "run/samples",
        word=word,
        cards=cards,
        cut=cut,
        changes=score_changes([card.ends for card in cards]),
        settings=settings if isinstance(settings, Mapping) else {},
    )
