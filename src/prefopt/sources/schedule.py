"""Which examples make up which optimizer step: a pure function of the seed.

Every process computes the whole schedule and takes its own micro-batches from it, so the examples of a step do not
depend on how many processes share it, and resuming needs nothing but the step number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

T = TypeVar("T")


class Course(Protocol):
    """What a configuration says of a run's length."""

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    num_train_epochs: float
    max_steps: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """The order of a run.

    Attributes:
        n_examples: size of the training set.
        per_device: examples in one micro-batch.
        accumulation: micro-batches a process adds up before a step.
        processes: processes that share a step.
        epochs: passes over the data, may be fractional.
        max_steps: upper limit on optimizer steps; None for none.
        seed: run seed.
    """

    n_examples: int
    per_device: int
    accumulation: int
    processes: int
    epochs: float
    max_steps: int | None
    seed: int

    @classmethod
    def of(cls, config: Course, n_examples: int, processes: int) -> Schedule:
        """The order of a run on a fixed set of examples, as its configuration has it."""
        return cls(
            n_examples=n_examples,
            per_device=config.per_device_train_batch_size,
            accumulation=config.gradient_accumulation_steps,
            processes=processes,
            epochs=config.num_train_epochs,
            max_steps=config.max_steps,
            seed=config.seed,
        )

    @property
    def step_size(self) -> int:
        """Examples in one optimizer step: the effective batch size."""
        return self.per_device * self.accumulation * self.processes

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in a pass; the last one of a pass may be smaller."""
        return math.ceil(self.n_examples / self.step_size)

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, math.ceil(self.epochs * self.steps_per_epoch))

    def examples(self, step: int) -> list[int]:
        """Indices of the examples of a step (from 0), in order."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n_examples)
        return order[place * self.step_size : (place + 1) * self.step_size].tolist()


def cut_by_count(items: Sequence[T], size: int) -> list[list[T]]:
    """Batches of `size` items, in order; the last may be smaller."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def cut_by_width(items: Sequence[T], most: int, width: Callable[[T], int]) -> list[list[T]]:
    """Batches of at most `most` summed width, widest items first; a wider item has a batch of its own."""
    batches: list[list[T]] = []
    free = 0
    for item in sorted(items, key=width, reverse=True):
        if not batches or width(item) > free:
            batches.append([])
            free = most
        batches[-1].append(item)
        free -= width(item)
    return batches


def shares(batches: Sequence[list[T]], rank: int, processes: int) -> list[list[T]]:
    """The batches that fall to a process, in turns; as many on every process, some perhaps empty."""
    return [*batches, *[[]] * (-len(batches) % processes)][rank::processes]
