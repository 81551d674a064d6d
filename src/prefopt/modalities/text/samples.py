"""Samples of the policy on fixed prompts through a run: texts for the reader, KL, reward, length, repetition."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefopt.config import TrainConfig
from prefopt.evaluation.generation import generate, repetition, sequence_logps
from prefopt.generation.base import last_turn
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.references import Reference
from prefopt.runs.record import Record


class TextSampler:
    """Draws one completion a prompt each time it is asked, with the same seed each time.

    Args:
        config: number of prompts, length, temperature.
        likelihood: of the run.
        model: the policy, unwrapped.
        reference: for the KL.
        prompts: conditions, held out where possible.
        reward: exact or judged reward of (prompt text, completion text); None for none.
        record: where texts go.
        accelerator: for autocast.
        say: told what of the samples had to be left out.
    """

    def __init__(
        self,
        config: TrainConfig,
        likelihood: TokenLikelihood,
        model: Any,
        reference: Reference,
        prompts: Sequence[Mapping[str, Any]],
        reward: Callable[[str, str], float] | None,
        record: Record,
        accelerator: Any,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.new_tokens, limit = room(
            config.sample_max_new_tokens, likelihood.max_length, likelihood.positions
        )
        encoded = [(c, likelihood.prompt_ids(c)) for c in prompts[: 2 * config.sample_prompts]]
        fitting = [(c, ids) for c, ids in encoded if ids and (limit is None or len(ids) <= limit)]
        self.prompts = fitting[: config.sample_prompts]
        if told := shortage(config, likelihood, len(encoded), len(fitting), self.new_tokens):
            record.check("samples", "note", told)
            say(told)
        self.config, self.likelihood, self.model, self.reference = config, likelihood, model, reference
        self.reward, self.record, self.accelerator = reward, record, accelerator

    def take(self, step: int, label: str) -> dict[str, float]:
        """Generate, score and record; returns kl, reward, sample_length and sample_repetition.

        Every process takes part (a sharded model needs all of them); results are the same on each.
        """
        if not self.prompts:
            return {}
        settings = {
            "temperature": self.config.sample_temperature,
            "max_new_tokens": self.new_tokens,
        }
        model = self.model
        model.eval()
        with self.accelerator.autocast():
            drawn = generate(
                model,
                self.likelihood,
                [ids for _, ids in self.prompts],
                max_new_tokens=self.new_tokens,
                temperature=self.config.sample_temperature,
                seed=self.config.seed,
            )
            items = [g.item for g in drawn]
            logp = sequence_logps(model, self.likelihood, items)
            values: dict[str, float] = {}
            if self.reference.kind != "none":
                with self.reference.model() as frozen:
                    reference_logp = sequence_logps(frozen, self.likelihood, items)
                values["kl"] = sum(a - b for a, b in zip(logp, reference_logp, strict=True)) / len(items)
        model.train()
        scores = [
            None if self.reward is None else self.reward(last_turn(c["prompt"]), g.text)
            for (c, _), g in zip(self.prompts, drawn, strict=True)
        ]
        known = [s for s in scores if s is not None]
        if known:
            values["reward"] = sum(known) / len(known)
        values["sample_length"] = sum(g.item.length for g in drawn) / len(drawn)
        values["sample_repetition"] = sum(repetition(g.text) for g in drawn) / len(drawn)
        self.record.samples(
            settings,
            [shown(c) for c, _ in self.prompts],
            [
                {"step": step, "label": label, "text": g.text, "score": score, "length": g.item.length}
                for g, score in zip(drawn, scores, strict=True)
            ],
        )
        return values


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
