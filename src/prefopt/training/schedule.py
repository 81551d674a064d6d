"""Which examples make up which optimizer step: a pure function of the seed.

Every process computes the whole schedule and takes its own micro-batches from it, so the examples of a step do not
depend on how many processes share it, and resuming needs nothing but the step number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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

    def micro_batches(self, step: int, rank: int) -> list[list[int]]:
        """The micro-batches of one process; empty lists where a small last step leaves it without work."""
        chosen = self.examples(step)
        chunks = [chosen[i : i + self.per_device] for i in range(0, len(chosen), self.per_device)]
        needed = math.ceil(len(chunks) / self.processes)
        chunks += [[]] * (needed * self.processes - len(chunks))
        return chunks[rank :: self.processes]


def split_evenly(items: Sequence[int], size: int, rank: int, processes: int) -> list[list[int]]:
    """Batches of at most `size` of the items that fall to a process, for evaluation; same count on every process."""
    chunks = [list(items[i : i + size]) for i in range(0, len(items), size)]
    chunks += [[]] * (-len(chunks) % processes)
    return chunks[rank::processes]
