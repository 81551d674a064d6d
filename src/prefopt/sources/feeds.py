"""Where a step's comparisons come from: a fixed data set, or (with the same face) rounds collected while training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from prefopt.comparisons import Encoded
from prefopt.likelihoods.base import Likelihood
from prefopt.sources.schedule import Schedule


class Feed(Protocol):
    """What the loop asks for examples."""

    @property
    def steps(self) -> int:
        """Steps of the run."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Steps in a pass over the data (or prompts)."""
        ...

    @property
    def step_size(self) -> int:
        """Examples (or prompts) of one step."""
        ...

    def updates(self, step: int) -> Iterable[list[Encoded[Any]]]:
        """The examples of each optimizer update of a step, over all processes; a pure function of the step and model."""
        ...

    def updated(self) -> None:
        """Told after every optimizer update."""
        ...

    def measures(self) -> dict[str, float]:
        """What is worth logging of the collection since the last call."""
        ...

    def rehearsal(self, size: int) -> list[Encoded[Any]]:
        """The most demanding micro-batch of `size` examples; may be empty."""
        ...

    def opening(self, size: int) -> list[Encoded[Any]]:
        """Some examples to compare policy and reference on before the first step; may be empty."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What an exact resume needs besides weights and step."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take `state` back."""
        ...


class Scheduled:
    """A feed whose length is its schedule's."""

    schedule: Schedule

    @property
    def steps(self) -> int:
        """Steps of the run: updates, or rounds of collecting."""
        return self.schedule.steps

    @property
    def steps_per_epoch(self) -> int:
        """Steps in a pass over the data or prompts."""
        return self.schedule.steps_per_epoch

    @property
    def step_size(self) -> int:
        """Examples or prompts of a step."""
        return self.schedule.step_size


@dataclass(frozen=True)
class OfflineFeed(Scheduled):
    """A fixed set of examples in a counted order; a step is one update."""

    examples: Sequence[Encoded[Any]]
    schedule: Schedule
    likelihood: Likelihood

    def updates(self, step: int) -> list[list[Encoded[Any]]]:
        """One update, with the noise of the step's epoch."""
        epoch = step // self.steps_per_epoch
        return [[self.likelihood.at(self.examples[i], epoch) for i in self.schedule.examples(step)]]

    def updated(self) -> None:
        """Nothing depends on the policy."""

    def measures(self) -> dict[str, float]:
        """Nothing is collected."""
        return {}

    def rehearsal(self, size: int) -> list[Encoded[Any]]:
        """The widest examples."""
        width = self.likelihood.width
        widest = sorted(self.examples, key=lambda e: -max(width(item) for item in e.items))
        return [self.likelihood.at(e, 0) for e in widest[:size]]

    def opening(self, size: int) -> list[Encoded[Any]]:
        """The first examples."""
        return [self.likelihood.at(e, 0) for e in self.examples[:size]]

    def state(self) -> dict[str, Tensor]:
        """Nothing: everything follows from the step."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to take back."""
