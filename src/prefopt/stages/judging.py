"""Who says how good sampled answers are, where it is not the policy itself: a reward, or a model behind a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from prefopt.config import ConfigError, TrainConfig
from prefopt.evaluation.contest import SERVER, parse_server
from prefopt.evaluation.judges import Duel, ServerJudge
from prefopt.generation.base import last_turn, text_of
from prefopt.generation.server import check_server
from prefopt.methods import Method
from prefopt.sources.prompts import NamedPrompt
from prefopt.stages.folder import Reward
from prefopt.worlds import world_of


class Judge(Protocol):
    """Anything that scores the answers of a round."""

    def scores(
        self, stage: Path, prompts: Sequence[NamedPrompt], answers: Sequence[Sequence[Any]]
    ) -> list[list[float] | None]:
        """A score an answer, higher is better; None for a prompt that cannot be judged.

        Args:
            stage: folder of the round, for what must be kept.
            prompts: (id, condition).
            answers: of each prompt.
        """
        ...


@dataclass(frozen=True)
class RewardJudge:
    """Scores by a function of (last turn of the prompt, answer)."""

    reward: Reward

    def scores(
        self, stage: Path, prompts: Sequence[NamedPrompt], answers: Sequence[Sequence[Any]]
    ) -> list[list[float] | None]:
        """The rewards."""
        turns = [last_turn(condition["prompt"]) for _, condition in prompts]
        return [
            [float(self.reward(turn, text_of(a))) for a in row]
            for turn, row in zip(turns, answers, strict=True)
        ]


@dataclass(frozen=True)
class DuelJudge:
    """A language model behind a server, asked about every two answers to a prompt, in both orders.

    An answer's score is its mean preference over the others. Verdicts are kept in `verdicts.jsonl` and never asked for
    twice.

    Attributes:
        url: of the server.
        model: its name there.
    """

    url: str
    model: str

    def scores(
        self, stage: Path, prompts: Sequence[NamedPrompt], answers: Sequence[Sequence[Any]]
    ) -> list[list[float] | None]:
        """The mean preferences in [0, 1]; None where a verdict cannot be read.

        Raises:
            ConnectionError: the server went away; verdicts that had arrived are kept.
            ValueError: it refuses.
        """
        duels = [
            Duel(f"{name}/{i}-{k}", condition["prompt"], text_of(row[i]), text_of(row[k]))
            for (name, condition), row in zip(prompts, answers, strict=True)
            for i, k in combinations(range(len(row)), 2)
        ]
        judge = ServerJudge(self.url, self.model, stage / "verdicts.jsonl")
        found = iter(judge.preferences(duels) if duels else [])
        return [mean_preferences([next(found) for _ in combinations(row, 2)], len(row)) for row in answers]


def mean_preferences(preferences: Sequence[float | None], count: int) -> list[float] | None:
    """Each answer's mean preference over the others, from those of every two; None if one is unknown.

    Args:
        preferences: how much the first is preferred, in the order of `combinations(range(count), 2)`.
        count: of answers.

    Example:
        >>> mean_preferences([1.0, 0.5, 0.0], 3)
        [0.75, 0.0, 0.75]
    """
    won: list[list[float]] = [[] for _ in range(count)]
    for (i, k), preference in zip(combinations(range(count), 2), preferences, strict=True):
        if preference is None:
            return None
        won[i].append(preference)
        won[k].append(1 - preference)
    return [fmean(found) if found else 0.0 for found in won]


def the_judge(config: TrainConfig, method: Method, verify: Reward | None) -> Judge | None:
    """Who labels: None for the policy itself.

    Raises:
        ConfigError: a judge is needed and there is none, or the server's name cannot be read.
        ConnectionError: nobody is at the server's address.
    """
    if method.stages == "self":
        return None
    if config.judge is None:
        if verify is None:
            raise ConfigError(
                f"{method.name} needs a judge of answers: set judge=world:text for the bundled world, "
                "judge=openai:MODEL@URL for a model behind a server, or call prefopt.train with reward=a function of "
                "(prompt, answer)"
            )
        return RewardJudge(verify)
    if config.judge.startswith(SERVER):
        try:
            model, url = parse_server(config.judge)
            check_server(url, model)
        except ValueError as error:
            raise ConfigError(f"judge: {error}") from None
        return DuelJudge(url, model)
    world = world_of(config.judge)
    if world is None:
        raise ConfigError(
            f"judge={config.judge} is not known for text: needed world:text, openai:MODEL@URL, or "
            "prefopt.train(reward=function)"
        )
    return RewardJudge(world.verify)
