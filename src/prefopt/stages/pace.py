"""How fast a round's answers came, and how long training stood still for them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.stages.folder import read_rows


class Stopwatch:
    """Runs while a round is prepared; counts what this process sampled, not what an interrupted one left.

    Args:
        stage: folder of the round, with the journals of its answers.
    """

    def __init__(self, stage: Path) -> None:
        self.stage = stage
        self.began = self.until = time.perf_counter()
        self.before = tokens_in(stage)

    def sampled(self) -> None:
        """All answers are there."""
        self.until = time.perf_counter()

    def told(self) -> dict[str, Any]:
        """`sampled_tokens`, `sampling_seconds` (loading the model included), `tokens_per_second`, `judging_seconds`, and
        `waited_seconds` from the end of one training to the beginning of the next.

        A server that does not count tokens leaves the first and third out.
        """
        now = time.perf_counter()
        seconds, tokens = self.until - self.began, tokens_in(self.stage) - self.before
        speed = (
            {"sampled_tokens": tokens, "tokens_per_second": round(tokens / max(seconds, 1e-9), 2)}
            if tokens
            else {}
        )
        return {
            **speed,
            "sampling_seconds": round(seconds, 3),
            "judging_seconds": round(now - self.until, 3),
            "waited_seconds": round(now - self.began, 3),
        }


def tokens_in(stage: Path) -> int:
    """Tokens of all answers of a round that are in its journals."""
    paths = [path for path in (stage / "answers.jsonl", stage / "opponents.jsonl") if path.exists()]
    return sum(row["tokens"] for path in paths for row in read_rows(path)[1:])


def in_words(told: Mapping[str, Any]) -> str:
    """The same as a sentence.

    Example:
        >>> in_words({"sampled_tokens": 900, "tokens_per_second": 300.0, "sampling_seconds": 3.0, "judging_seconds": 1.0,
        ...     "waited_seconds": 4.0})
        '900 tokens sampled in 3.0 s (300 tokens a second), judged in 1.0 s; training stood still for 4.0 s'
    """
    much = f"{told['sampled_tokens']:,} tokens sampled" if "sampled_tokens" in told else "answers sampled"
    speed = f" ({told['tokens_per_second']:,.0f} tokens a second)" if "tokens_per_second" in told else ""
    return (
        f"{much} in {told['sampling_seconds']:.1f} s{speed}, judged in {told['judging_seconds']:.1f} s; training stood still "
        f"for {told['waited_seconds']:.1f} s"
    )
