"""A feed of comparisons that are collected while training: a step is a round of sampling and several updates.

All randomness of a round follows from the run's seed and the round's number, so that resuming needs no more than the
weights, their average and what the collector remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded
from prefopt.models.ema import EMA
from prefopt.sources.feeds import Scheduled
from prefopt.sources.online import GapMemory, StepSampler, Tally, TrajectorySampler
from prefopt.sources.schedule import Schedule

EMPTY_ROUNDS = 10
"""So many rounds with next to nothing kept are worth a warning."""


@dataclass
class OnlineFeed(Scheduled):
    """Rounds of sampling.

    Attributes:
        collector: draws and compares.
        model: the policy, unwrapped.
        prompts: (id, text), in the order of the data.
        schedule: which prompts make up which round.
        update_size: comparisons of one optimizer update, over all processes.
        accelerator: shares prompts out and gathers comparisons.
        ema: average of the weights, where one is kept.
        sample_from_ema: whether candidates are drawn from it.
        warn: told what a user should know.
    """

    collector: StepSampler | TrajectorySampler
    model: nn.Module
    prompts: Sequence[tuple[str, str]]
    schedule: Schedule
    update_size: int
    accelerator: Any
    ema: EMA | None
    sample_from_ema: bool
    warn: Callable[[str], None]
    tally: Tally = field(default_factory=Tally)
    _lean: int = 0
    _updates: int = 0

    def updates(self, step: int) -> Iterator[list[Encoded[Any]]]:
        """Collect with the present weights, shuffle, and hand out in updates; the remainder makes a smaller one."""
        chosen = [self.prompts[i] for i in self.schedule.examples(step)]
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        tally = Tally()
        self.model.eval()
        swapped = self.ema.swapped_in() if self.ema is not None and self.sample_from_ema else nullcontext()
        with swapped, self.accelerator.autocast():
            mine = chosen[rank::processes]
            # each prompt's noise is its own: a second visit in a later epoch is another round
            found = list(self.collector.collect(self.model, mine, step, tally)) if mine else []
        self.model.train()
        memory = self._memory
        if processes > 1:
            from accelerate.utils import gather_object

            found = gather_object(found)
            if memory is not None:
                memory.settle(gather_object([memory.fresh]))
            totals = torch.tensor(
                list(vars(tally).values()), device=self.accelerator.device, dtype=torch.float64
            )
            tally = Tally(*self.accelerator.reduce(totals, "sum").tolist())
        elif memory is not None:
            memory.settle()
        for name, value in vars(tally).items():
            setattr(self.tally, name, getattr(self.tally, name) + value)
        self._look(tally)
        found.sort(key=lambda e: e.id)
        order = np.random.default_rng([self.collector.seed, 11, step]).permutation(len(found))
        for start in range(0, len(found), self.update_size):
            self._updates += 1
            yield [found[i] for i in order[start : start + self.update_size]]

    @property
    def _memory(self) -> GapMemory | None:
        return self.collector.seen if isinstance(self.collector, StepSampler) else None

    def _look(self, tally: Tally) -> None:
        """Warn once when hardly anything passes the threshold."""
        self._lean = self._lean + 1 if tally.kept < 0.01 * tally.pairs else 0
        if self._lean == EMPTY_ROUNDS:
            self.warn(
                f"fewer than 1 % of the pairs passed the threshold in {EMPTY_ROUNDS} rounds: the judge's scores hardly "
                "differ between candidates. Lower `threshold`, or set threshold_rule=quantile"
            )

    def updated(self) -> None:
        """Average the weights."""
        if self.ema is not None:
            self.ema.update()

    def measures(self) -> dict[str, float]:
        """Shares and means of the collections since the last call."""
        found = self.tally.measures() | {"collect/updates": float(self._updates)}
        self.tally, self._updates = Tally(), 0
        return found

    def rehearsal(self, size: int) -> list[Encoded[Any]]:
        """Nothing before the first round."""
        return []

    def opening(self, size: int) -> list[Encoded[Any]]:
        """Nothing before the first round."""
        return []

    def state(self) -> dict[str, Tensor]:
        """Averaged weights and remembered gaps."""
        found = {} if self.ema is None else self.ema.state()
        if self._memory is not None:
            found |= {f"gaps/{s}": gaps for s, gaps in self._memory.gaps.items()}
        return found

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take them back."""
        if self.ema is not None:
            self.ema.load_state(state)
        if self._memory is not None:
            self._memory.gaps = {int(k[5:]): v for k, v in state.items() if k.startswith("gaps/")}
