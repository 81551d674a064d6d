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
from prefopt.training.record import Record


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
    ) -> None:
        limit = None if config.max_length is None else config.max_length - 1
        encoded = [(c, likelihood.prompt_ids(c)) for c in prompts[: 2 * config.sample_prompts]]
        fitting = [(c, ids) for c, ids in encoded if ids and (limit is None or len(ids) <= limit)]
        self.prompts = fitting[: config.sample_prompts]
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
            "max_new_tokens": self.config.sample_max_new_tokens,
        }
        model = self.model
        model.eval()
        with self.accelerator.autocast():
            drawn = generate(
                model,
                self.likelihood,
                [ids for _, ids in self.prompts],
                max_new_tokens=self.config.sample_max_new_tokens,
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
