"""How much of a text run fits into memory: its forecast, and the choices that are left to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any

from torch import nn

from prefopt.comparisons import Encoded
from prefopt.config import TrainConfig
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.machine import memory
from prefopt.modalities.text.forecast import forecast
from prefopt.references import REFERENCE_BATCH

Examples = Sequence[Encoded[EncodedText]]


@dataclass(frozen=True)
class TextMemory:
    """Forecasts for one run.

    Attributes:
        config: of the run.
        model: the policy on its device.
        likelihood: plans batches as training will.
        train: examples to train on, the widest first.
        longest: tokens of the longest item of training and evaluation.
        items: their number.
        bf16: whether forward passes run under bf16 autocast.
        cached: whether the reference is scored before training.
        copies: whether a copy of the reference is made where it has to score something new.
    """

    config: TrainConfig
    model: nn.Module
    likelihood: TokenLikelihood
    train: Examples
    longest: int
    items: int
    bf16: bool
    cached: bool
    copies: bool

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        model: nn.Module,
        likelihood: TokenLikelihood,
        train: Examples,
        held_out: Examples,
        bf16: bool,
        needs_reference: bool,
        switches: bool = False,
    ) -> TextMemory:
        """Measure the data once; `switches`: whether the reference is the model with its adapters off."""
        items = [item for e in (*train, *held_out) for item in (*e.items, *e.aside)]
        return cls(
            config,
            model,
            likelihood,
            sorted(train, key=lambda e: -max(len(item.ids) for item in e.items)),
            max(len(item.ids) for item in items),
            len(items),
            bf16,
            needs_reference and config.reference in ("auto", "cached") and not config.sync_reference,
            needs_reference and not (switches and config.reference_model is None),
        )

    def forecast(self, examples: int, checkpointing: bool, resident: bool) -> list[dict[str, Any]]:
        """Bytes by part, with so many of the longest examples in a forward pass."""
        batch = [item for e in self.train[:examples] for item in e.items]
        plan = self.likelihood.plan(batch)
        rows, width = plan.input_ids_RT.shape
        evaluation = 2 * self.config.per_device_eval_batch_size * self.longest
        return forecast(
            self.model,
            optim=self.config.optim,
            rows=rows,
            length=width,
            reference_resident=resident,
            gradient_checkpointing=checkpointing,
            autocast_bf16=self.bf16,
            scored=len(plan.target_K),
            forward_tokens=min(max(REFERENCE_BATCH * self.cached, evaluation), self.items * self.longest),
            own_head=self.likelihood.ability.own_head,
            samples_reference=self.copies
            and self.config.sample_prompts > 0
            and (self.config.sync_reference or not resident),
        )

    def tokens_of(self, examples: int) -> int:
        """Summed width of so many of the longest examples."""
        return sum(self.likelihood.width(item) for e in self.train[:examples] for item in e.items)

    def examples_of(self, tokens: int) -> int:
        """How many of the longest examples `tokens` hold, at least one."""
        sums = accumulate(sum(map(self.likelihood.width, e.items)) for e in self.train)
        return max(1, sum(1 for _ in takewhile(lambda total: total <= tokens, sums)))


def resident(config: TrainConfig) -> bool:
    """Whether a copy of the reference is asked for that stays in memory."""
    return config.reference == "live" or config.sync_reference


@dataclass(frozen=True)
class Fit:
    """What is settled.

    Attributes:
        checkpointing: recompute activations.
        tokens: most tokens of a forward pass in training; None: batches by number of examples.
        examples: how many of the longest examples come together at most.
        chosen: a sentence on what was chosen here; empty if nothing was left open.
    """

    checkpointing: bool
    tokens: int | None
    examples: int
    chosen: str = ""


def settle(need: TextMemory, free: int, resident: bool) -> Fit:
    """Fill in what the configuration leaves to the memory: `auto` of checkpointing and of tokens in a forward pass.

    Args:
        need: forecasts.
        free: bytes.
        resident: whether a copy of the reference stays in memory.
    """
    config = need.config
    step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    tokens, checkpointing = config.per_device_train_batch_tokens, config.gradient_checkpointing

    def fits(examples: int, recompute: bool) -> bool:
        return memory.sentence(need.forecast(examples, recompute, resident), free)[1]

    if tokens is None:
        examples = config.per_device_train_batch_size
    else:
        examples = min(step, len(need.train)) if tokens == "auto" else need.examples_of(tokens)
    chosen = []
    if checkpointing == "auto":
        # recomputing costs a third more work, smaller batches far less: the least batch decides
        checkpointing = not fits(1 if tokens == "auto" else examples, False)
        chosen.append(f"gradient_checkpointing={str(checkpointing).lower()}")
    if tokens == "auto":
        while examples > 1 and not fits(examples, checkpointing):
            examples = (examples + 1) // 2
        tokens = need.tokens_of(examples)
        chosen.append(f"per_device_train_batch_tokens={tokens}")
    return Fit(
        checkpointing, tokens, examples, f"chosen by the forecast: {', '.join(chosen)}" if chosen else ""
    )
