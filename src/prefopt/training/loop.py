"""The training loop: examples, update, and so on to the end, for every method and modality.

Legend: E comparisons of a micro-batch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from prefopt.comparisons import Edges, Encoded
from prefopt.config import TrainConfig
from prefopt.objectives.base import Objective, State
from prefopt.objectives.sides import Sides
from prefopt.sources.feeds import Feed
from prefopt.sources.schedule import cut_by_count, cut_by_width
from prefopt.training.batches import Scorer
from prefopt.training.metrics import SumsAndCounts, add_comparison_metrics
from prefopt.training.schedule import LearningRate

ZERO_GRADIENT_STEPS = 5
SKIPPED_STEPS = 20
"""Updates in a row that fp16's scaler may skip; it starts far too high, and halves each time."""


class Rule(Protocol):
    """How examples become an update of the weights."""

    by_gradient: bool
    """Whether there is a backward pass and an optimizer's step."""

    def __call__(self, loop: Loop, examples: Sequence[Encoded[Any]]) -> None:
        """Make one update, and add what is worth logging to the loop's metrics."""
        ...


class StopRun(RuntimeError):
    """A run that must not go on; the message is the reason."""


@dataclass
class Loop:
    """One run's moving parts.

    Attributes:
        config: of the run.
        accelerator: Accelerate's; owns devices, precision, processes.
        model: the prepared (wrapped) policy.
        optimizer: prepared.
        learning_rate: along the run.
        objective: the loss.
        scorer: sides of a batch under policy and reference.
        feed: the examples of each step.
        state: the objective's running statistics.
        rule: how examples become an update; see `updates.py`.
        batch_tokens: summed width of the items of a forward pass at most; None: examples are counted.
        step: steps taken.
        updates: updates made; a step of a method that collects may bring several, or none.
        tokens: summed width of the items read in training so far, over all processes.
        part: updates that this step has had before the present one.
    """

    config: TrainConfig
    accelerator: Any
    model: nn.Module
    optimizer: Any
    learning_rate: LearningRate
    objective: Objective
    scorer: Scorer
    feed: Feed
    state: State
    rule: Rule
    batch_tokens: int | None = None
    step: int = 0
    updates: int = 0
    tokens: int = 0
    part: int = 0
    metrics: SumsAndCounts = field(default_factory=SumsAndCounts)
    last_grad_norm: float = math.nan
    _grad_norms: list[Tensor] = field(default_factory=list)
    _zero_gradients: int = 0
    _skipped: int = 0

    def fit(self, after_step: Callable[[], bool | None]) -> None:
        """Train to the end of the feed; `after_step` logs, evaluates and saves, and may end it by saying True.

        Raises:
            StopRun: the loss or gradient is not finite, nothing has a gradient for 5 updates, or no step had an update.
        """
        self.model.train()
        while self.step < self.feed.steps:
            self.part = 0
            for examples in self.feed.updates(self.step):
                self.update(examples)
                self.feed.updated()
                self.part += 1
                self.updates += 1
            with nullcontext() if self.part and self.rule.by_gradient else without_order_warning():
                self.learning_rate.step()
            self.step += 1
            self.scorer.reference.stepped(self.step)
            if after_step():
                return
        if not self.updates:
            raise StopRun(
                f"nothing was trained: none of the {self.feed.steps} steps found a comparison to learn from. Lower "
                "`threshold`, or set threshold_rule=quantile, and start over with overwrite=true"
            )

    def count_randomness(self, micro_batch: int, piece: int = 0) -> None:
        """Give a forward pass random numbers of its own (dropout is all that draws any).

        They follow from the run's seed and from where in the run the pass stands, so nothing depends on how many were
        drawn before: resuming is exact. Recomputed activations get the same ones from torch's checkpointing.
        """
        place = [self.config.seed, 13, self.step, self.part, micro_batch, self.accelerator.process_index]
        place += [piece] if piece else []
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))

    def update(self, examples: Sequence[Encoded[Any]]) -> None:
        """One update of the weights from these examples."""
        self.rule(self, examples)

    def cut(self, examples: Sequence[Encoded[Any]]) -> list[list[Encoded[Any]]]:
        """The forward passes that a step's examples are scored in."""
        if self.batch_tokens is None:
            return cut_by_count(examples, self.config.per_device_train_batch_size)
        width = self.scorer.likelihood.width
        return cut_by_width(examples, self.batch_tokens, lambda e: sum(map(width, e.items)))

    def losses(self, sides: Sides, edges: Edges, counted_E: Tensor) -> Tensor:
        """(E,) losses of scored comparisons in float32 or wider; updates running statistics and metrics."""
        outcome_E3 = edges.outcome_E3.to(sides.rho_w.dtype)
        sums = self.objective.statistics(sides, outcome_E3)
        if sums:
            sums = {k: self.accelerator.reduce(v * counted_E.max(), "sum") for k, v in sums.items()}
            self.state = self.objective.next_state(self.state, sums)
        losses_E = self.objective.losses(sides, None if edges.all_wins else outcome_E3, self.state)
        with torch.no_grad():
            add_comparison_metrics(
                self.metrics, self.objective, sides, outcome_E3, counted_E, losses_E, self.state
            )
        if losses_E.device.type == "cpu" and not bool(torch.isfinite(losses_E).all()):
            worst = int((~torch.isfinite(losses_E)).nonzero()[0])
            raise StopRun(
                f"the loss of comparison {worst} of the micro-batch at step {self.step + 1} is {losses_E[worst]:.3g} "
                f"(log-ratios {sides.rho_w[worst]:.4g} and {sides.rho_l[worst]:.4g}). Lower the learning rate or beta; "
                "with bpo set r_max, which bounds the loss of badly ranked pairs"
            )
        return losses_E

    def note_gradient(self, norm: Any) -> None:
        """Keep an update's gradient norm for `watch`, which looks at once where that is free."""
        if hasattr(norm, "full_tensor"):  # of a sharded model: every process takes part in adding it up
            norm = norm.full_tensor()
        self._grad_norms.append(norm.detach() if torch.is_tensor(norm) else torch.tensor(float(norm)))
        if self.accelerator.device.type == "cpu":
            self.watch()  # before the step: weights are never overwritten with NaN where looking is free

    def watch(self) -> float:
        """Read gradient norms since the last time, and stop a run that cannot succeed; returns the latest."""
        norms = torch.stack(self._grad_norms).tolist() if self._grad_norms else []
        self._grad_norms = []
        for norm in norms:
            if not math.isfinite(norm) and self.accelerator.scaler is not None:
                self._skipped += 1  # the scaler has left this update out, and will try a smaller scale
                if self._skipped < SKIPPED_STEPS:
                    continue
            if not math.isfinite(norm):
                raise StopRun(
                    f"the gradient is {norm} near step {self.step + 1}. Lower the learning rate or beta, or train in "
                    "float32 (bf16=false, fp16=false)"
                )
            self._skipped = 0
            self._zero_gradients = self._zero_gradients + 1 if norm == 0 else 0
            if self._zero_gradients >= ZERO_GRADIENT_STEPS:
                raise StopRun(
                    f"the gradient was exactly zero for {ZERO_GRADIENT_STEPS} updates: every comparison is outside the "
                    "range in which the loss reacts (clipped, or saturated), or the adapter is switched off"
                )
            self.last_grad_norm = norm
        return self.last_grad_norm

    def train_metrics(self) -> dict[str, float]:
        """Means since the last call, over all processes."""
        means = self.metrics.means(lambda x: self.accelerator.reduce(x, "sum"))
        self.metrics.clear()
        return derived(means, self.objective) | self.feed.measures()


@contextmanager
def without_order_warning() -> Iterator[None]:
    """Without torch's warning of a schedule that is ahead of the optimizer.

    The rate is a function of the step, and a round that kept no pair is a step without an update. Only there: leaving
    `catch_warnings` makes Python forget which warnings it has shown already.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step\(\)`"
        )
        yield


def derived(means: dict[str, float], objective: Objective) -> dict[str, float]:
    """Add metrics that are differences of means (unpaired rows have no margin of their own)."""
    if objective.unpaired and {"rewards/chosen", "rewards/rejected"} <= means.keys():
        means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
    if means.get("length_gap") == 0:  # items without a length, such as images
        del means["length_gap"]
    if means.get("ties/share") == 0:
        means = {k: v for k, v in means.items() if not k.startswith("ties/")}
    return means
