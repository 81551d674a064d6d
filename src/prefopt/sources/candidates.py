"""Candidates of a prompt: read, made distinct, paired, and written as rows; the common part of `mining.py`'s rules."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeGuard

Row = Mapping[str, Any]
Pairing = Literal["all", "adjacent", "best_vs_rest"]
PAIRINGS = ("all", "adjacent", "best_vs_rest")


@dataclass(frozen=True)
class Mined:
    """Rows made by a rule, and counts.

    Attributes:
        rows: comparisons, ready for JSON lines.
        prompts: input rows read.
        dropped: candidates and prompts that gave nothing, by reason.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    prompts: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def wins(self) -> int:
        """Clear-preference pairs (CP)."""
        return sum(row["label"] == "win" for row in self.rows)

    @property
    def ties(self) -> int:
        """Tied pairs (TP)."""
        return sum(row["label"] == "tie" for row in self.rows)


class Candidate(NamedTuple):
    """A distinct text with what a rule reads of it."""

    text: Any
    value: Any


class Pair(NamedTuple):
    """Two candidates, the better first (the first listed, where they are equal)."""

    chosen: Candidate
    rejected: Candidate

    @property
    def gap(self) -> float:
        """Difference of their scores, not negative."""
        return self.chosen.value - self.rejected.value


# -- pairs among candidates ----------------------------------------------------------------------------------


def ordered_pairs(candidates: Sequence[Candidate]) -> list[Pair]:
    """All pairs, each with the higher value first; equal ones in the order listed."""
    best_first = sorted(candidates, key=lambda candidate: -candidate.value)
    return [Pair(a, b) for a, b in itertools.combinations(best_first, 2)]


def select_pairs(candidates: Sequence[Candidate], pairs: Pairing) -> list[Pair]:
    """Pairs among candidates sorted from best to worst."""
    best_first = sorted(candidates, key=lambda candidate: -candidate.value)
    match pairs:
        case "all":
            return ordered_pairs(candidates)
        case "adjacent":
            return [Pair(a, b) for a, b in itertools.pairwise(best_first)]
        case "best_vs_rest":
            return [Pair(best_first[0], other) for other in best_first[1:]]
    raise ValueError(f"pairs={pairs!r} is not one of: {', '.join(PAIRINGS)}")


def disagree(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    """Whether some judge puts the first higher and another the second."""
    signs = {(first[judge] > second[judge]) - (first[judge] < second[judge]) for judge in first}
    return {1, -1} <= signs


# -- reading candidates and writing rows ------------------------------------------------------------------------


@dataclass
class Writer:
    """What a rule writes to, while it reads one row after the other."""

    rule: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    prompts: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    row: Row = field(default_factory=dict)
    row_id: str = ""
    made: Counter[str] = field(default_factory=Counter)

    def start(self, row: Row, row_id: str) -> None:
        """Turn to the next input row."""
        self.prompts += 1
        self.row, self.row_id, self.made = row, row_id, Counter()

    def drop(self, reason: str) -> None:
        """Count something that gave nothing."""
        self.dropped[reason] += 1

    def add(self, pair: Pair, label: str) -> None:
        """Write a pair of the current row's candidates."""
        self.made[label] += 1
        prompt = self.row["prompt"]
        self.rows.append(
            {
                "id": f"{self.row_id}/{label}-{self.made[label]}",
                "prompt": prompt,
                "chosen": _side(pair.chosen.text, prompt),
                "rejected": _side(pair.rejected.text, prompt),
                "label": label,
                "score_chosen": pair.chosen.value,
                "score_rejected": pair.rejected.value,
                "source": self.row.get("source") or self.row_id,
                "rule": self.rule,
                **{
                    k: self.row[k]
                    for k in ("tools", "chat_template_kwargs", "weight")
                    if self.row.get(k) is not None
                },
            }
        )

    def mined(self) -> Mined:
        """All that was written."""
        return Mined(self.rows, self.prompts, dict(self.dropped))


def each_prompt(
    rows: Iterable[Row], name: str, reader: Reader, rule: Callable[[Sequence[Candidate], Writer], None]
) -> Mined:
    """Apply a rule to the distinct candidates of every row that has two or more."""
    out = Writer(name)
    seen: dict[str, int] = {}
    usable = 0
    for n, row in enumerate(rows, 1):
        candidates = _candidates_of(row, n)
        row_id = row_id_of(row, n)
        if row_id in seen:
            raise ValueError(f"id {row_id!r} is on rows {seen[row_id]} and {n}; ids must be unique")
        seen[row_id] = n
        out.start(row, row_id)
        kept: dict[str, Candidate] = {}
        contradicting = set()
        for candidate in candidates:
            text, value = candidate["text"], reader.read(candidate)
            if value is None:
                out.drop(f"candidate_without_{reader.column}")
                continue
            usable += 1
            if not _has_text(text):
                out.drop("candidate_without_text")
                continue
            key = text_key(text)
            if key in kept:
                out.drop("duplicate_candidate")
                if reader.column == "correct" and kept[key].value != value:
                    contradicting.add(key)
                continue
            kept[key] = Candidate(text, value)
        for key in contradicting:
            out.drop("both_right_and_wrong")
            del kept[key]
        if len(kept) < 2:
            out.drop("fewer_than_two_distinct_candidates")
        else:
            rule(list(kept.values()), out)
    if out.prompts and not usable:
        raise ValueError(f"{name} needs {reader.needed} with each candidate, and no candidate has it")
    return out.mined()


def _candidates_of(row: Row, n: int) -> list[Row]:
    if missing := [name for name in ("prompt", "candidates") if name not in row]:
        raise ValueError(
            f'row {n} has no {missing[0]!r}; needed {{"prompt": ..., "candidates": [{{"text": ...}}, ...]}}; '
            f"the row has {', '.join(row)}"
        )
    candidates = row["candidates"]
    if not isinstance(candidates, list) or any(
        not isinstance(c, Mapping) or "text" not in c for c in candidates
    ):
        raise ValueError(f'row {n}: candidates must be a list of objects {{"text": ..., ...}}')
    return candidates


class Reader(NamedTuple):
    """How a rule reads a candidate: its value, or None where it cannot be used."""

    column: str
    needed: str
    read: Callable[[Row], Any]


def _read_judges(candidate: Row) -> dict[str, float] | None:
    scores = candidate.get("scores")
    if not isinstance(scores, Mapping) or len(scores) < 2 or not all(map(is_number, scores.values())):
        return None
    return dict(scores)


def _read_score(candidate: Row) -> float | None:
    score = candidate.get("score")
    if score is None and isinstance(scores := candidate.get("scores"), Mapping) and scores:
        return mean_of(scores) if all(map(is_number, scores.values())) else None
    return float(score) if is_number(score) else None


def _read_correct(candidate: Row) -> float | None:
    correct = candidate.get("correct")
    return float(correct) if isinstance(correct, bool) else None


def _read_rank(candidate: Row) -> float | None:
    rank = candidate.get("rank")
    return -float(rank) if is_number(rank) else None  # so that higher is better


MEAN_SCORE = Reader("score", "a number `score`, or numbers `scores` by judge,", _read_score)
JUDGE_SCORES = Reader("scores", "`scores`, a number from each of two or more judges,", _read_judges)
CORRECTNESS = Reader("correct", "`correct`, true or false,", _read_correct)
NEGATIVE_RANK = Reader("rank", "a number `rank`, 1 for the best,", _read_rank)


def mean_of(scores: Mapping[str, float]) -> float:
    """Mean over judges."""
    return sum(scores.values()) / len(scores)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _has_text(text: Any) -> bool:
    return bool(text.strip() if isinstance(text, str) else text)


def text_key(value: Any) -> str:
    """A string that two values share only if they are the same text or messages."""
    return json.dumps(value, sort_keys=True)


def row_id_of(row: Row, n: int) -> str:
    """A row's `id`, or one made of its number."""
    given = row.get("id")
    return str(given) if isinstance(given, str | int) and given != "" else f"row-{n}"


def _side(text: Any, prompt: Any) -> Any:
    """A candidate's text as the side of a pair: a message where the prompt is a conversation."""
    if isinstance(text, str) and isinstance(prompt, list):
        return [{"role": "assistant", "content": text}]
    return text
