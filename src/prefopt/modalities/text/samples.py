"""Answers of the policy to fixed prompts through a run: texts for the reader, KL, reward, length, repetition."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from prefopt.config import TrainConfig
from prefopt.evaluation.answers import repetition, sequence_logps
from prefopt.evaluation.rewards import WeightedSum, as_reward
from prefopt.generation.base import Prompt, Request, Response, Settings
from prefopt.generation.local import LocalGenerator
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.references import Reference


class TextSamples:
    """One answer a prompt, drawn from the policy with the same seed each time.

    Args:
        config: number of prompts, length, temperature.
        likelihood: of the run.
        model: the policy, unwrapped.
        reference: for the KL.
        conditions: held out where possible.
        reward: exact or judged reward of (prompt text, answer), or a `TextReward`; None for none.
        note: told what of the samples had to be left out.
    """

    generator: type[LocalGenerator] = LocalGenerator

    def __init__(
        self,
        config: TrainConfig,
        likelihood: TokenLikelihood,
        model: Any,
        reference: Reference,
        conditions: Sequence[Mapping[str, Any]],
        reward: Callable[[str, str], float] | None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        new_tokens, limit = room(config.sample_max_new_tokens, likelihood.max_length, likelihood.positions)
        encoded = [(c, likelihood.prompt_ids(c)) for c in conditions[: 2 * config.sample_prompts]]
        fitting = [(c, ids) for c, ids in encoded if ids and (limit is None or len(ids) <= limit)]
        asked = fitting[: config.sample_prompts]
        if told := shortage(config, likelihood, len(encoded), len(fitting), new_tokens):
            note(told)
        self.prompts = [shown(condition) for condition, _ in asked]
        self.settings = {"temperature": config.sample_temperature, "max_new_tokens": new_tokens}
        self._ids = [list(ids) for _, ids in asked]
        self._requests = [request_of(str(n), condition) for n, (condition, _) in enumerate(asked)]
        self._drawn_as = Settings(new_tokens, config.sample_temperature, seed=config.seed)
        self._generator = self.generator(model, likelihood.tokenizer, counted=False, likelihood=likelihood)
        self._likelihood, self._model, self._reference, self._reward = likelihood, model, reference, reward
        self._apart: tuple[Any, dict[str, list[float]]] = None, {}

    def draw(self, step: int) -> list[Response]:
        """An answer to each prompt."""
        found = {r.id: r for batch in self._generator.generate(self._requests, self._drawn_as) for r in batch}
        return [found[request.id] for request in self._requests]

    def measure(self, drawn: Sequence[Response], step: int) -> dict[str, float]:
        """kl (nats a sequence; of a reference that moves also kl_to_reference), sample_length (tokens), sample_repetition; of a sum
        of rewards each part's mean."""
        values: dict[str, float] = {}
        if self._reference.kind != "none":
            items = [
                self.item(request, [*ids, *answer.ids], len(ids))
                for request, ids, answer in zip(self._requests, self._ids, drawn, strict=True)
            ]
            logp = sequence_logps(self._model, self._likelihood, items)
            # of a reference that moves, the distance to the start is what compares with other runs
            lenders = {"kl": self._reference.start}
            if self._reference.sync is not None:
                lenders["kl_to_reference"] = self._reference.model
            for name, lent in lenders.items():
                with lent() as frozen:
                    reference_logp = sequence_logps(frozen, self._likelihood, items)
                values[name] = sum(a - b for a, b in zip(logp, reference_logp, strict=True)) / len(items)
        if isinstance(self._reward, WeightedSum):
            parts = self._reward.apart(
                self._asked, [answer.text.strip() for answer in drawn], [answer.ended for answer in drawn]
            )
            self._apart = drawn, parts
            values |= {f"reward/{name}": fmean(found) for name, found in parts.items()}
        values["sample_length"] = sum(len(answer.ids) for answer in drawn) / len(drawn)
        values["sample_repetition"] = sum(repetition(answer.text.strip()) for answer in drawn) / len(drawn)
        return values

    def item(self, request: Request, ids: Sequence[int], start: int) -> EncodedText:
        """A prompt and the answer to it, to be scored."""
        return EncodedText(array("i", ids), start)

    def rewards(self, drawn: Sequence[Response]) -> list[float | None]:
        """The reward of each answer."""
        if self._reward is None:
            return [None] * len(drawn)
        if isinstance(self._reward, WeightedSum) and self._apart[0] is drawn:
            return [*self._reward.joined(self._apart[1])]
        texts, ended = [answer.text.strip() for answer in drawn], [answer.ended for answer in drawn]
        return [*as_reward(self._reward).scores(self._asked, texts, ended)]

    @property
    def _asked(self) -> list[Prompt]:
        return [request.prompt for request in self._requests]

    def entries(self, drawn: Sequence[Response], step: int) -> list[dict[str, Any]]:
        """Text and length of each answer."""
        return [{"text": answer.text.strip(), "length": len(answer.ids)} for answer in drawn]


def request_of(name: str, condition: Mapping[str, Any]) -> Request:
    """A condition as what a generator is asked."""
    return Request(name, condition["prompt"], template={k: v for k, v in condition.items() if k != "prompt"})


def room(asked: int, max_length: int | None, positions: int | None) -> tuple[int, int | None]:
    """New tokens of a sample, and the longest prompt that has room for them; at most half of the positions are new.

    Args:
        asked: new tokens by the configuration.
        max_length: longest row of training; a prompt leaves at least one place of it.
        positions: of the model; None: not known.

    Example:
        >>> room(64, 1024, 512), room(64, 1024, 100)
        ((64, 448), (50, 50))
    """
    limits = [] if max_length is None else [max_length - 1]
    if positions is None:
        return asked, min(limits, default=None)
    new = min(asked, max(1, positions // 2))
    return new, min([*limits, positions - new])


def shortage(
    config: TrainConfig, likelihood: TokenLikelihood, asked: int, fitting: int, new_tokens: int
) -> str:
    """A sentence on samples that the model's positions shorten or forbid; empty if they do not."""
    told = []
    if new_tokens < config.sample_max_new_tokens:
        told.append(f"they end after {new_tokens} of sample_max_new_tokens={config.sample_max_new_tokens}")
    if fitting < min(asked, config.sample_prompts):
        told.append(f"{fitting} of {asked} prompts leave room for {new_tokens} new tokens")
    if not told:
        return ""
    why = (
        f"rows have at most {likelihood.max_length} tokens"
        if likelihood.positions is None
        else f"the model has {likelihood.positions} positions"
    )
    return f"samples: {' and '.join(told)} ({why})"


def shown(condition: Mapping[str, Any]) -> str:
    """The prompt as a reader sees it."""
    prompt = condition["prompt"]
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n".join(
        f"{m['role']}: {m['content'] if isinstance(m['content'], str) else json.dumps(m['content'])}"
        for m in prompt
    )
