"""What a modality brings to a run. Whatever is not here is the same for text, images and all that follows.

A modality is a module with `set_up(context) -> Setup`; `modality_of` finds the one that a model belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from prefopt.config import TrainConfig
from prefopt.likelihoods.base import Likelihood
from prefopt.models.policy import Policy
from prefopt.objectives.base import Objective
from prefopt.references import Reference
from prefopt.training.console import Console
from prefopt.training.data import PreparedData
from prefopt.training.feed import Feed
from prefopt.training.loop import Rule
from prefopt.training.record import Record
from prefopt.training.trackers import Trackers


class Sampler(Protocol):
    """Draws from the policy on fixed conditions each time it is asked, with the same randomness each time."""

    def take(self, step: int, label: str) -> dict[str, float]:
        """Draw, score and record; returns metrics (kl, reward, ...). Every process takes part."""
        ...


@dataclass(frozen=True)
class Context:
    """What a modality is given.

    Attributes:
        config: resolved configuration.
        objective: the loss.
        accelerator: Accelerate's.
        bf16: whether forward passes run under bf16 autocast.
        record: the run's folder.
        console: the terminal.
        reward: the user's reward of (condition, sample), for samples.
        trackers: of the run.
    """

    config: TrainConfig
    objective: Objective
    accelerator: Any
    bf16: bool
    record: Record
    console: Console
    reward: Callable[[Any, Any], float] | None
    trackers: Trackers

    def announce(
        self, data: PreparedData, first_pair: Mapping[str, Any] | None, n: tuple[int, int] | None = None
    ) -> None:
        """Open the trackers and the run's folder, and show and record the data, before anything expensive happens.

        Args:
            data: what is known of it.
            first_pair: the first example as the model sees it, where that is known already.
            n: examples to train on and held out, where `data` does not hold them yet.
        """
        self.record.claim()
        self.trackers.open()
        self.record.open()
        self.record.data(data.report, data.dropped)
        self.console.data(data.report, *(n or (len(data.train), len(data.held_out))), data.not_held_out)
        if first_pair is not None:
            self.record.json("first_pair", dict(first_pair))
            self.console.first_pair(first_pair)


@dataclass(frozen=True)
class Setup:
    """What a modality brings.

    Attributes:
        policy: the model to train.
        likelihood: encodes nothing any more; plans and scores.
        data: encoded examples.
        load_reference: builds a frozen copy of the reference from its source.
        reference_kind: what "auto" means here.
        forecast: memory by part, given whether a reference copy stays in memory.
        sampler: made once the reference is known.
        save: writes the trained model into a (partial) folder; a state dict is given where parameters are sharded.
        batch_tokens: cut a step's examples into forward passes of so many tokens; None: by number of examples.
        feed: where a method makes its own examples: the feed, given the reference. None for `data`.
        rule: how examples become an update, where that is not by the gradient.
    """

    policy: Policy
    likelihood: Likelihood
    data: PreparedData
    load_reference: Callable[[], nn.Module]
    reference_kind: str
    forecast: Callable[[bool], list[dict[str, Any]]]
    sampler: Callable[[Reference], Sampler]
    save: Callable[[Path, dict[str, Tensor] | None], None]
    batch_tokens: int | None = None
    feed: Callable[[Reference], Feed] | None = None
    rule: Rule | None = None
