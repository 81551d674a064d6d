"""The data report: what a set of comparisons holds, what was dropped, how long its texts are, what looks odd.

Printed and saved before every training run, and by `prefopt check`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from prefopt.comparisons import TIE, WIN, Comparison
from prefopt.files import AGAIN, write_whole

HISTOGRAM_BINS = 24


class Hint(NamedTuple):
    """One sentence worth reading; "warn" where a run would probably disappoint."""

    level: Literal["note", "warn"]
    text: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that cannot be used, as listed in `dropped.jsonl`."""

    row: int
    """Number counted from 1: the line of a JSON lines file, the row elsewhere."""
    id: str
    reason: str
    detail: str


class Origin(NamedTuple):
    """Which row an example comes from, and what the row said about itself."""

    row: int
    score_chosen: float | None = None
    score_rejected: float | None = None
    source: str | None = None


@dataclass(frozen=True)
class DataReport:
    """Counts, lengths and hints of one data set.

    Attributes:
        source: where the rows come from.
        rows: rows read.
        examples: rows kept.
        comparisons: how many are wins, ties, soft (vote shares), desirable, undesirable.
        dropped: rows dropped, by reason.
        truncated: sides whose end was cut to the maximum length; 0 until the texts are tokenized.
        identical_sides: pairs dropped because both sides are the same, before or after truncation.
        duplicates: comparisons that repeat an earlier one exactly.
        conflicts: pairs of samples judged in both orders.
        lengths: "unit" and for "prompt", "chosen", "rejected" the min, median, p95, max and mean; None where there
            is no such side. Desirable samples count as chosen, undesirable ones as rejected.
        length_gap: "mean" of chosen minus rejected, and "share_chosen_longer" (equal lengths count one half), over comparisons that are not ties;
            None where there are none (the share also for unpaired samples).
        histograms: of the two sides' lengths, over the same "edges".
        label_balance_hint: what to do about an uneven share of desirable samples, if anything.
        hints: further findings.
        own: what only data of one modality have to tell, by name.
    """

    source: str
    rows: int
    examples: int
    comparisons: dict[str, int]
    dropped: dict[str, int]
    truncated: dict[str, int]
    identical_sides: int
    duplicates: int
    conflicts: int
    lengths: dict[str, Any]
    length_gap: dict[str, float | None]
    histograms: dict[str, dict[str, list[float]]]
    label_balance_hint: str | None = None
    hints: list[Hint] = field(default_factory=list)
    own: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; a modality's own beside the others."""
        values = {**asdict(self), "hints": [hint._asdict() for hint in self.hints]}
        return values | values.pop("own")


# -- comparisons ---------------------------------------------------------------------------------------------


def kind_of(edge: Comparison) -> str:
    """Which of the report's five counts a comparison belongs to."""
    if edge.second is None:
        return "desirable" if edge.outcome.win >= edge.outcome.lose else "undesirable"
    return "wins" if edge.outcome == WIN else "ties" if edge.outcome == TIE else "soft"


def count_comparisons(examples: Iterable[Any]) -> dict[str, int]:
    """Comparisons by kind; takes examples before or after encoding."""
    counts = Counter(kind_of(edge) for example in examples for edge in example.comparisons)
    return {kind: counts[kind] for kind in ("wins", "ties", "soft", "desirable", "undesirable")}


def count_reasons(dropped: Iterable[Dropped]) -> dict[str, int]:
    """Dropped rows by reason, the most frequent first."""
    return dict(Counter(drop.reason for drop in dropped).most_common())


def balance_hint(comparisons: Mapping[str, int]) -> str | None:
    """The class weights that unpaired objectives want for uneven labels (KTO, arXiv 2402.01306, section 4)."""
    good, bad = comparisons["desirable"], comparisons["undesirable"]
    if not good + bad:
        return None
    if not good or not bad:
        return f"all {good + bad} samples are {'desirable' if good else 'undesirable'}: unpaired objectives need both"
    # the paper's advice: weight * count of desirable over that of undesirable lies in [1, 4/3]
    if 1 <= good / bad <= 4 / 3:
        return None
    low, high = bad / good, 4 / 3 * bad / good
    return (
        f"{good} desirable and {bad} undesirable samples: with undesirable_weight=1, set desirable_weight between "
        f"{low:.3g} and {high:.3g}"
    )


# -- lengths -------------------------------------------------------------------------------------------------


class Measures(NamedTuple):
    """The length part of a report, by the names of `DataReport`'s fields."""

    lengths: dict[str, Any]
    length_gap: dict[str, float | None]
    histograms: dict[str, dict[str, list[float]]]


def measure(
    examples: Sequence[Any],
    unit: Literal["tokens", "characters"],
    prompt_length: Callable[[Any], int],
    sample_length: Callable[[Any], int],
) -> Measures:
    """Lengths of prompts and of both sides.

    Args:
        examples: examples, before or after encoding.
        unit: what the two functions count.
        prompt_length: of an item.
        sample_length: of an item.
    """
    prompts: list[int] = []
    chosen: list[int] = []
    rejected: list[int] = []
    gaps: list[int] = []
    for example in examples:
        prompts.append(prompt_length(example.items[0]))
        lengths = [sample_length(item) for item in example.items]
        for edge in example.comparisons:
            if edge.second is None:
                (chosen if kind_of(edge) == "desirable" else rejected).append(lengths[edge.first])
                continue
            chosen.append(lengths[edge.first])
            rejected.append(lengths[edge.second])
            if edge.outcome != TIE:
                gaps.append(lengths[edge.first] - lengths[edge.second])
    mean_gap = float(np.mean(gaps)) if gaps else None
    if not gaps and chosen and rejected and len(chosen) + len(rejected) == len(examples):  # unpaired
        mean_gap = float(np.mean(chosen) - np.mean(rejected))
    longest = max(chosen + rejected, default=0)
    edges = np.linspace(0, max(longest, 1), HISTOGRAM_BINS + 1)
    return Measures(
        lengths={
            "unit": unit,
            **{
                name: summary(x)
                for name, x in (("prompt", prompts), ("chosen", chosen), ("rejected", rejected))
            },
        },
        length_gap={
            "mean": mean_gap,
            "share_chosen_longer": float(np.mean((np.sign(gaps) + 1) / 2)) if gaps else None,
        },
        histograms={
            name: {"edges": edges.tolist(), "counts": np.histogram(x, edges)[0].tolist()}
            for name, x in (("chosen", chosen), ("rejected", rejected))
        },
    )


def summary(lengths: Sequence[int]) -> dict[str, float] | None:
    """Least, median, 95th percentile, greatest and mean; None of nothing."""
    if not lengths:
        return None
    x = np.array(lengths)
    return {
        "min": int(x.min()),
        "median": float(np.median(x)),
        "p95": float(np.percentile(x, 95)),
        "max": int(x.max()),
        "mean": float(x.mean()),
    }


def text_length(sample: Any) -> int:
    """Characters of a text, or of the contents of messages."""
    if isinstance(sample, str):
        return len(sample)
    return sum(len(text) for text in message_texts(sample))


def message_texts(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """The text of each message; content given as parts is joined."""
    texts = []
    for message in messages:
        content = message.get("content") or ""
        texts.append(
            content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
        )
    return texts


def write_report(report: DataReport, path: Path) -> None:
    """Save a report as JSON."""
    write_whole(path, json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_dropped(dropped: Iterable[Dropped], path: Path, advice: str = AGAIN) -> None:
    """Save dropped rows as JSON lines; an empty file says that none were dropped. `advice`: where they cannot be."""
    lines = (json.dumps(asdict(drop), ensure_ascii=False) + "\n" for drop in dropped)
    write_whole(path, "".join(lines), advice=advice)
