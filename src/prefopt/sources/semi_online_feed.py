"""A feed of pairs whose losers are sampled while training: a step is a round of sampling and one update or several on it.

All randomness of a round follows from the run's seed and the round's number, so that resuming needs no more than the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.comparisons import Comparison, Encoded
from prefopt.likelihoods.denoising import DenoisingLikelihood
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.sources.feeds import Scheduled
from prefopt.sources.schedule import Schedule
from prefopt.sources.semi_online import Collector, Tally, winner_of


@dataclass
class SemiOnlineFeed(Scheduled):
    """A step is a round of sampling and as many updates on it as are asked for; each with noise and timesteps of its own.

    Attributes:
        collector: draws and compares.
        model: the policy, unwrapped.
        start: opens the model that the run began with.
        examples: the data, encoded.
        schedule: which examples make up which step.
        reuse: updates on one round's candidates.
        accelerator: shares examples out and gathers comparisons.
        opening_examples: comparisons of the calibration.
    """

    collector: Collector
    model: nn.Module
    start: Any
    examples: Sequence[Encoded[EncodedLatent]]
    schedule: Schedule
    reuse: int
    accelerator: Any
    opening_examples: Sequence[Encoded[EncodedLatent]] = ()
    tally: Tally = field(default_factory=Tally)

    @property
    def likelihood(self) -> DenoisingLikelihood:
        """Of the run."""
        return self.collector.drawer.likelihood

    def updates(self, step: int) -> Iterator[list[Encoded[Any]]]:
        """Sample with the present weights; then one update after the other on what came of it."""
        epoch = step // self.steps_per_epoch
        chosen = [self.likelihood.shown(self.examples[i], epoch) for i in self.schedule.examples(step)]
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        tally = Tally()
        mine = chosen[rank::processes]
        self.model.eval()
        with self.accelerator.autocast():
            found = self.collector.collect(self.model, self.start, mine, step, tally) if mine else []
        self.model.train()
        if processes > 1:
            from accelerate.utils import gather_object

            found = gather_object(found)
            totals = torch.tensor(
                list(vars(tally).values()), device=self.accelerator.device, dtype=torch.float64
            )
            tally = Tally(*self.accelerator.reduce(totals, "sum").tolist())
        for name, value in vars(tally).items():
            setattr(self.tally, name, getattr(self.tally, name) + value)
        order = {e.id: n for n, e in enumerate(chosen)}
        found.sort(key=lambda e: order[e.id])
        for part in range(self.reuse):
            yield [self.likelihood.renoised(e, step * self.reuse + part) for e in found]

    def updated(self) -> None:
        """Nothing is averaged."""

    def measures(self) -> dict[str, float]:
        """Means of the collections since the last call."""
        found = self.tally.measures()
        self.tally = Tally()
        return found

    def rehearsal(self, size: int) -> list[Encoded[Any]]:
        """The widest examples, each against itself."""
        likelihood = self.likelihood
        shown = [likelihood.shown(e, 0) for e in self.examples]
        winners = [(e.id, e.items[winner_of(e)]) for e in shown]
        winners.sort(key=lambda named: -likelihood.width(named[1]))
        made = [
            Encoded(
                i,
                (item, replace(item, latent=f"{item.latent} again", drawn=likelihood.latents([item])[0])),
                (EVEN,),
            )
            for i, item in winners[:size]
        ]
        return [likelihood.renoised(e, 0) for e in made]

    def opening(self, size: int) -> list[Encoded[Any]]:
        """Comparisons of the calibration."""
        return [self.likelihood.renoised(e, 0) for e in self.opening_examples[:size]]

    def state(self) -> dict[str, Tensor]:
        """Nothing: rounds follow from step and weights."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to take back."""


EVEN = Comparison(0, 1, columns={"min_similarity": 0.0, "rejected_reward": 0.0, "tau": float("inf")})
"""A comparison with all columns, so that it can stand in a batch."""
