"""Judges: which of two answers to a prompt is better, as a preference for the first in [0, 1]."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prefopt.evaluation.rewards import TextReward, as_reward
from prefopt.generation import Request, ServerGenerator, Settings, collect
from prefopt.generation.base import Prompt


@dataclass(frozen=True, slots=True)
class Duel:
    """Two answers to one prompt.

    Attributes:
        id: unique among the duels judged together.
        prompt: text, or messages.
        first: an answer.
        second: another.
    """

    id: str
    prompt: Prompt
    first: str
    second: str


class Judge(Protocol):
    """Anything that compares answers."""

    def preferences(self, duels: Sequence[Duel]) -> list[float | None]:
        """For each duel how much the first answer is preferred: 1, 0.5 for a tie, 0, or between; None if unreadable.

        Raises:
            ValueError: duels that this judge cannot judge.
            OSError: it cannot be reached.
        """
        ...


class ScorerJudge:
    """Prefers the answer with the higher score; equal scores tie.

    Args:
        score: of (prompt, answer), such as a world's `verify`; of a conversation it is given the last message's text. Or a
            reward (`reward_names.reward_named`), which is given whole conversations.
        margin: scores that differ by no more tie.

    Raises:
        ValueError: a negative margin.

    Example:
        >>> judge = ScorerJudge(lambda prompt, answer: -len(answer))
        >>> judge.preferences([Duel("a", "Hi", "short", "much longer")])
        [1.0]
    """

    def __init__(self, score: Callable[[str, str], float] | TextReward, margin: float = 0.0) -> None:
        if margin < 0:
            raise ValueError(f"margin must be at least 0; given {margin}")
        self.reward, self.margin = as_reward(score), margin

    def preferences(self, duels: Sequence[Duel]) -> list[float | None]:
        """1, 0.5 or 0 for each duel; never None.

        Raises:
            ValueError: a score is not a finite number.
        """
        prompts = [duel.prompt for duel in duels]
        first, second = (
            self.reward.scores(prompts, [getattr(duel, side) for duel in duels])
            for side in ("first", "second")
        )
        out: list[float | None] = []
        for duel, one, other in zip(duels, first, second, strict=True):
            gap = one - other
            if not abs(gap) < float("inf"):
                raise ValueError(f"the scores of duel {duel.id!r} differ by {gap}; needed finite scores")
            out.append(0.5 if abs(gap) <= self.margin else float(gap > 0))
        return out


INSTRUCTION = """You compare two answers to a request. Judge which serves the person who asks better: correct, complete, \
to the point. Length alone is no merit, and the order of the answers means nothing.

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

[Verdict]
Reply with one word and nothing else: A if answer A is better, B if answer B is better, tie if neither is."""

VERDICT = re.compile(r"[\s\"'`*\[(]*(a|b|tie)[\s\"'`*\])]*\.?\s*", re.IGNORECASE)


def read_verdict(reply: str) -> float | None:
    """1 for A, 0 for B, 0.5 for a tie; None for anything but that one word, quoted or in brackets at most.

    Example:
        >>> [read_verdict(reply) for reply in ("A", "[[B]]", "Tie.", "A is better", "")]
        [1.0, 0.0, 0.5, None, None]
    """
    found = VERDICT.fullmatch(reply)
    return None if found is None else {"a": 1.0, "b": 0.0, "tie": 0.5}[found[1].lower()]


class ServerJudge:
    """A language model behind a server, asked twice a duel: each answer comes first once.

    The preference is the mean of both verdicts, so a judge that always names the first answer ties everything. A duel
    with an unreadable verdict has no preference. Replies are kept in a journal and never asked for twice.

    Args:
        url: of an OpenAI-compatible server, such as http://localhost:8000/v1.
        model: its name there.
        journal: file of replies; belongs to these settings.
        instruction: with {prompt}, {first} and {second}; must ask for one word: A, B or tie.
        max_new_tokens: of a reply.
        options: of `ServerGenerator`: concurrency, timeout, retries, api_key.

    Attributes:
        unreadable: number of unreadable replies of the last call; `example` is one of them.
        consistent: share of the duels whose two verdicts agree; None before the first call, or if none was readable.

    Raises:
        ValueError: the `openai` package is missing, an argument is out of range, or the instruction lacks a part.

    Example:
        >>> judge = ServerJudge("http://localhost:8000/v1", "judge", "judge.jsonl")        # doctest: +SKIP
        >>> judge.preferences([Duel("a", "2 + 2?", "4", "5")])                            # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        model: str,
        journal: str | Path,
        instruction: str = INSTRUCTION,
        max_new_tokens: int = 8,
        **options: Any,
    ) -> None:
        for part in ("{prompt}", "{first}", "{second}"):
            if part not in instruction:
                raise ValueError(f"the judge's instruction lacks {part}: without it the judge cannot see it")
        self.generator = ServerGenerator(url, model, **options)
        self.journal, self.instruction = Path(journal), instruction
        self.settings = Settings(max_new_tokens=max_new_tokens, temperature=0.0)
        self.unreadable = 0
        self.example: str | None = None
        self.consistent: float | None = None

    def preferences(self, duels: Sequence[Duel]) -> list[float | None]:
        """The mean of both orders' verdicts for each duel, in [0, 1]; None where one cannot be read.

        Raises:
            ConnectionError: the server cannot be reached; replies that had arrived are in the journal.
            ValueError: the server refuses, or the journal holds replies to other duels under these ids.
        """
        requests = [
            Request(f"{duel.id}/{order}", [{"role": "user", "content": self._question(duel, order)}])
            for duel in duels
            for order in ("given", "swapped")
        ]
        replies = collect(self.generator, requests, self.settings, self.journal, "judging")
        verdicts = [read_verdict(reply.text) for reply in replies]
        lost = [reply.text for reply, verdict in zip(replies, verdicts, strict=True) if verdict is None]
        self.unreadable, self.example = len(lost), lost[0] if lost else None
        out: list[float | None] = []
        agreeing = []
        for given, swapped in zip(verdicts[::2], verdicts[1::2], strict=True):
            if given is None or swapped is None:
                out.append(None)
                continue
            out.append((given + 1 - swapped) / 2)
            agreeing.append(given == 1 - swapped)
        self.consistent = sum(agreeing) / len(agreeing) if agreeing else None
        return out

    def _question(self, duel: Duel, order: str) -> str:
        first, second = (duel.first, duel.second) if order == "given" else (duel.second, duel.first)
        parts = {"prompt": as_text(duel.prompt), "first": first, "second": second}
        # not str.format, which would trip over braces elsewhere in the instruction
        return re.sub(r"\{(prompt|first|second)\}", lambda m: parts[m[1]], self.instruction)


def as_text(prompt: Prompt) -> str:
    """A prompt as a judge reads it; of several messages, who says what."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
