"""Rewards of answers: what anything that scores texts offers, functions as such, and weighted sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefopt.generation.base import Prompt, last_turn


class TextReward:
    """Base: anything that scores answers to prompts.

    It is also a function of (prompt, answer), as a user's own reward is; where several are scored, `scores` is faster.
    """

    name: str
    """As it was given, for errors and metrics."""

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[str], ended: Sequence[bool] | None = None
    ) -> list[float]:
        """A number for each answer to its prompt (text, or messages), higher is better.

        Args:
            prompts: texts or messages.
            answers: as many.
            ended: whether each came to its end, rather than being cut; None: all did.

        Raises:
            ValueError: one that cannot be scored.
        """
        raise NotImplementedError

    def __call__(self, prompt: Prompt, answer: str) -> float:
        """The score of one answer."""
        return self.scores([prompt], [answer])[0]


@dataclass(frozen=True)
class FunctionReward(TextReward):
    """A function of (text of the prompt's last turn, answer).

    Attributes:
        function: of two texts; gives a number.
        name: for errors and metrics.

    Example:
        >>> FunctionReward(lambda prompt, answer: len(answer))("Hi", "Ho ho")
        5.0
    """

    function: Callable[[str, str], float]
    name: str = "reward"

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[str], ended: Sequence[bool] | None = None
    ) -> list[float]:
        """The function's values, whether answers were cut or not."""
        return [float(self.function(last_turn(p), a)) for p, a in zip(prompts, answers, strict=True)]


@dataclass(frozen=True)
class WeightedSum(TextReward):
    """The sum of several rewards, each times its weight.

    Attributes:
        parts: (weight, reward).
        name: as it was given.
    """

    parts: tuple[tuple[float, TextReward], ...]
    name: str

    @property
    def labels(self) -> list[str]:
        """A short name for each part: a model's folder, a function's name; in full where two would be alike."""
        short = [label_of(reward.name) for _, reward in self.parts]
        return [
            label if short.count(label) == 1 else reward.name
            for label, (_, reward) in zip(short, self.parts, strict=True)
        ]

    def apart(
        self, prompts: Sequence[Prompt], answers: Sequence[str], ended: Sequence[bool] | None = None
    ) -> dict[str, list[float]]:
        """The scores of each part, unweighted, by its label."""
        return {
            label: reward.scores(prompts, answers, ended)
            for label, (_, reward) in zip(self.labels, self.parts, strict=True)
        }

    def joined(self, apart: Mapping[str, Sequence[float]]) -> list[float]:
        """The weighted sums of what `apart` gave."""
        weights = [weight for weight, _ in self.parts]
        return [
            sum(w * v for w, v in zip(weights, row, strict=True)) for row in zip(*apart.values(), strict=True)
        ]

    def scores(
        self, prompts: Sequence[Prompt], answers: Sequence[str], ended: Sequence[bool] | None = None
    ) -> list[float]:
        """The weighted sums."""
        return self.joined(self.apart(prompts, answers, ended))


def finite(
    name: str, scores: Sequence[float], prompts: Sequence[Prompt], answers: Sequence[str]
) -> list[float]:
    """The scores, each a finite number: of others neither pairs nor means can be made.

    Args:
        name: of the reward.
        scores: of the answers.
        prompts: that they answer.
        answers: as many.

    Raises:
        ValueError: one is not; names the reward and the prompt.

    Example:
        >>> finite("short", [-5.0], ["Hi"], ["Ho ho"])
        [-5.0]
    """
    for score, prompt, answer in zip(scores, prompts, answers, strict=True):
        if not math.isfinite(score):
            raise ValueError(
                f"{name} gives the score {score} to the answer {answer[:60]!r} to {last_turn(prompt)[:60]!r}; needed a finite "
                "number: mend it, and run again to continue"
            )
    return list(scores)


def as_reward(given: Callable[[Any, Any], float] | TextReward) -> TextReward:
    """A function of (text of the last turn, answer) as a reward; rewards are handed back as they are."""
    return given if isinstance(given, TextReward) else FunctionReward(given)


def label_of(name: str) -> str:
    """What a metric is called after a reward.

    Example:
        >>> label_of("reward:models/helpful/"), label_of("rules/style.py:short"), label_of("world:text")
        ('helpful', 'short', 'world:text')
    """
    if name.startswith("reward:"):
        return Path(name.removeprefix("reward:")).name
    return name.rpartition(":")[2] if ".py:" in name else name
