"""Who says how good sampled answers are, where it is not the policy itself: a reward, or a model behind a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from prefopt.config import ConfigError, TrainConfig
from prefopt.evaluation.contest import SERVER, parse_server
from prefopt.evaluation.judges import Duel, ScorerJudge, ServerJudge
from prefopt.evaluation.reward_names import KNOWN, reward_named
from prefopt.evaluation.rewards import TextReward, WeightedSum, as_reward, finite
from prefopt.generation.base import text_of
from prefopt.generation.server import check_server
from prefopt.methods import Method
from prefopt.sources.prompts import NamedPrompt
from prefopt.stages.folder import Reward
from prefopt.worlds import world_of


class Judge(Protocol):
    """Anything that scores the answers of a round."""

    def labels(
        self,
        stage: Path,
        prompts: Sequence[NamedPrompt],
        answers: Sequence[Sequence[Any]],
        ended: Sequence[Sequence[bool]],
    ) -> list[dict[str, Any]]:
        """For each prompt `score`, a number an answer, higher is better; None for a prompt that cannot be judged.

        Of a weighted sum also `rewards`, the scores of each part by its label.

        Args:
            stage: folder of the round, for what must be kept.
            prompts: (id, condition).
            answers: of each prompt.
            ended: whether each came to its end, rather than being cut.
        """
        ...

    def preferences(self, stage: Path, duels: Sequence[Duel]) -> list[float | None]:
        """For each duel how much the first answer is preferred, in [0, 1]; None if that cannot be told."""
        ...


@dataclass(frozen=True)
class RewardJudge:
    """Scores by a reward."""

    reward: TextReward

    def labels(
        self,
        stage: Path,
        prompts: Sequence[NamedPrompt],
        answers: Sequence[Sequence[Any]],
        ended: Sequence[Sequence[bool]],
    ) -> list[dict[str, Any]]:
        """The rewards.

        Raises:
            ValueError: one is no finite number.
        """
        asked = [
            condition["prompt"] for (_, condition), row in zip(prompts, answers, strict=True) for _ in row
        ]
        texts = [text_of(answer) for row in answers for answer in row]
        ends = [end for row in ended for end in row]
        if not isinstance(self.reward, WeightedSum):
            found = iter(finite(self.reward.name, self.reward.scores(asked, texts, ends), asked, texts))
            return [{"score": list(islice(found, len(row)))} for row in answers]
        apart = {
            name: finite(name, scores, asked, texts)
            for name, scores in self.reward.apart(asked, texts, ends).items()
        }
        joined, parts = (
            iter(self.reward.joined(apart)),
            {name: iter(values) for name, values in apart.items()},
        )
        return [
            {
                "score": list(islice(joined, len(row))),
                "rewards": {name: list(islice(values, len(row))) for name, values in parts.items()},
            }
            for row in answers
        ]

    def preferences(self, stage: Path, duels: Sequence[Duel]) -> list[float | None]:
        """By which reward is higher."""
        return ScorerJudge(self.reward).preferences(duels)


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

    def labels(
        self,
        stage: Path,
        prompts: Sequence[NamedPrompt],
        answers: Sequence[Sequence[Any]],
        ended: Sequence[Sequence[bool]],
    ) -> list[dict[str, Any]]:
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
        found = iter(self.preferences(stage, duels) if duels else [])
        return [
            {"score": mean_preferences([next(found) for _ in combinations(row, 2)], len(row))}
            for row in answers
        ]

    def preferences(self, stage: Path, duels: Sequence[Duel]) -> list[float | None]:
        """The mean of both orders' verdicts."""
        return ServerJudge(self.url, self.model, stage / "verdicts.jsonl").preferences(duels)


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


def against(
    judge: Judge,
    stage: Path,
    prompts: Sequence[NamedPrompt],
    ours: Sequence[Sequence[Any]],
    theirs: Sequence[str],
    ended: Sequence[Sequence[bool]],
) -> dict[str, float]:
    """How a model does on held-out prompts: `win_rate` against a baseline, ties one half; of a reward also its mean.

    Args:
        judge: of the run.
        stage: folder of the round, for what must be kept.
        prompts: held out.
        ours: the model's answers, of which the first of each prompt counts.
        theirs: the baseline's.
        ended: whether the model's answers, and whether the baseline's, came to their end.

    Returns:
        Shares in [0, 1]; `judged_reward` and `baseline_reward` in the reward's unit.
    """
    asked = [condition["prompt"] for _, condition in prompts]
    texts = [text_of(row[0]) for row in ours]
    if isinstance(judge, RewardJudge):
        mine, other = (
            finite(judge.reward.name, judge.reward.scores(asked, list(side), ends), asked, list(side))
            for side, ends in zip((texts, theirs), ended, strict=True)
        )
        verdicts: list[float | None] = [
            0.5 if a == b else float(a > b) for a, b in zip(mine, other, strict=True)
        ]
        found = {"judged_reward": fmean(mine), "baseline_reward": fmean(other)}
    else:
        duels = [
            Duel(f"{name}/held-out", condition["prompt"], a, b)
            for (name, condition), a, b in zip(prompts, texts, theirs, strict=True)
        ]
        verdicts, found = judge.preferences(stage, duels), {}
    known = [verdict for verdict in verdicts if verdict is not None]
    return ({"win_rate": fmean(known)} if known else {}) | found


def the_judge(config: TrainConfig, method: Method, verify: TextReward | None) -> Judge | None:
    """Who labels: None for the policy itself.

    Raises:
        ConfigError: a judge is needed and there is none, or it cannot be what is named.
        ConnectionError: nobody is at the server's address.
    """
    if method.stages == "self":
        return None
    if config.judge is None:
        if verify is None:
            raise ConfigError(
                f"{method.name} needs a judge of answers: set judge={KNOWN}; judge=openai:MODEL@URL for a model behind a "
                "server; or call prefopt.train with reward=a function of (prompt, answer)"
            )
        return RewardJudge(verify)
    if config.judge.startswith(SERVER):
        if config.missing_eos_penalty is not None:
            raise ConfigError(
                "missing_eos_penalty is taken off a reward, and a judge behind a server gives preferences: leave it out"
            )
        try:
            model, url = parse_server(config.judge)
            check_server(url, model)
        except ValueError as error:
            raise ConfigError(f"judge: {error}") from None
        return DuelJudge(url, model)
    try:
        return RewardJudge(reward_named(config.judge))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def known_reward(config: TrainConfig, given: Reward | None) -> TextReward | None:
    """What samples and labels are compared with: the caller's function, the key `reward`, or a world's exact score.

    Raises:
        ConfigError: no such reward, or one by key and one by the caller.
    """
    if given is not None:
        return as_reward(given)
    if config.reward is not None:
        try:
            return reward_named(config.reward, "reward")
        except ValueError as error:
            raise ConfigError(str(error)) from None
    world = world_of(config.data)
    return None if world is None else as_reward(world.verify)
