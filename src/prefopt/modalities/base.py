"""What a modality brings. Whatever is not here is the same for text, images and all that follows.

A modality is a folder, here or in a package of one's own (`docs/add_a_modality.md`). Its `__init__.py` says as `MODALITY` what
it is; the rest lies in modules that are imported when they are needed:

| module | holds |
|---|---|
| `setup` | `set_up(context) -> Setup`: data first, then the model |
| `trained` | `load(run) -> Any`: what a run left in its folder `model`, ready for inference |
| `check` | `takes(columns) -> bool`: whether rows are its own; `examine(rows, asked) -> Examined` (`checking.py`): `prefopt check` |
| `report` | `ACCOUNT`, a `prefopt.report.account.Account`: what page and card of a run show |
| `build` | only where there is something to build comparisons with: `COMMANDS`, of `prefopt build` |
| `evaluate` | only where models are judged otherwise than by answers to prompts: `COMMAND`, `prefopt evaluate` for its models |
| `merge` | only where adapters can be put into their model: `merge(adapter, folder, dtype, run)` (`merging.py`), `prefopt merge` |
| `answers` | only where the policy can answer prompts: what methods of several runs ask of it |
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the finder and the report read this file, and need no torch
    from torch import Tensor, nn

    from prefopt.comparisons import Encoded
    from prefopt.config import TrainConfig
    from prefopt.likelihoods.base import Likelihood
    from prefopt.modalities.splits import PreparedData
    from prefopt.models.policy import Policy
    from prefopt.objectives.base import Objective
    from prefopt.references import Reference
    from prefopt.runs.console import Console
    from prefopt.runs.record import Record
    from prefopt.runs.trackers import Trackers
    from prefopt.sources.feeds import Feed


@dataclass(frozen=True, kw_only=True)
class Modality:
    """What a modality says of itself, without importing anything heavy.

    Attributes:
        name: of the modality; the manifest of its runs holds it.
        noun: as in "an image model".
        traits: what its models and samples have; methods and keys of the configuration ask for these.
        model: what a model of it is, for errors.
        claims: whether a folder or hub id holds such a model.
        asked_before: names of modalities that would claim its models, too, since they look less closely.
        package: `__name__` of the folder's `__init__.py`.
        key: a key of the configuration that makes a model of another modality one of this, where there is one.
    """

    name: str
    noun: str
    traits: frozenset[str]
    model: str
    claims: Callable[[str], bool]
    package: str
    key: str | None = None
    asked_before: frozenset[str] = frozenset()

    def part(self, name: str) -> Any:
        """One of the folder's modules.

        Raises:
            ModuleNotFoundError: it has none of that name.
        """
        return importlib.import_module(f"{self.package}.{name}")

    def part_or_none(self, name: str) -> Any | None:
        """One of the modules that a folder need not have; None where it has not."""
        if importlib.util.find_spec(f"{self.package}.{name}") is None:
            return None
        return self.part(name)


class Probe(Protocol):
    """Measures the policy beside its loss each time it is asked (`probes.py`: samples), the same way each time."""

    def take(self, step: int, label: str) -> dict[str, float]:
        """Measure and record; returns metrics (kl, reward, ...). Every process takes part."""
        ...


class Sums(Protocol):
    """Metrics of the steps since the last line of the log."""

    def add(self, name: str, value_N: Tensor, /) -> None:
        """Count N values in."""
        ...


class Steps(Protocol):
    """What a rule of its own may use of the loop."""

    step: int
    """Steps taken."""
    tokens: int
    """Summed width of the items read so far."""

    @property
    def metrics(self) -> Sums:
        """What is logged."""
        ...


class Rule(Protocol):
    """How examples become an update of the weights, where that is not by the gradient."""

    by_gradient: bool
    """Whether there is a backward pass and an optimizer's step."""

    def __call__(self, loop: Steps, examples: Sequence[Encoded[Any]]) -> None:
        """Make one update, and add what is worth logging to the loop's metrics."""
        ...


@dataclass(frozen=True)
class Context:
    """What a modality is given.

    Attributes:
        modality: what the model is.
        config: resolved configuration.
        objective: the loss.
        accelerator: Accelerate's.
        precision: of autocast: no, bf16 or fp16.
        record: the run's folder.
        console: the terminal.
        reward: the user's reward of (condition, sample), for samples.
        trackers: of the run.
    """

    modality: Modality
    config: TrainConfig
    objective: Objective
    accelerator: Any
    precision: str
    record: Record
    console: Console
    reward: Callable[[Any, Any], float] | None
    trackers: Trackers

    def announce(
        self,
        data: PreparedData,
        first_pair: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None,
        n: tuple[int, int] | None = None,
    ) -> None:
        """Open the trackers and the run's folder, and show and record the data, before anything expensive happens.

        Args:
            data: what is known of it.
            first_pair: the first example as the model sees it, where that is known already; or what makes it, and may
                write its pictures into the folder.
            n: examples to train on and held out, where `data` does not hold them yet.
        """
        self.record.claim()
        self.trackers.open()
        self.record.open()
        self.record.manifest(modality=self.modality.name)
        from prefopt.models.given import told_of

        for source in dict.fromkeys((self.config.model, self.config.reference_model)):
            if source is not None and (told := told_of(source)) is not None:
                self.record.check("model in memory", "note", told)
                self.console.say(told)
        self.record.data(data.report, data.dropped)
        self.console.data(data.report, *(n or (len(data.train), len(data.held_out))), data.not_held_out)
        if first_pair is not None:
            made = first_pair() if callable(first_pair) else first_pair
            self.record.json("first_pair", dict(made))
            self.console.first_pair(made)


@dataclass(frozen=True)
class Setup:
    """What a modality brings to one run.

    Attributes:
        policy: the model to train.
        likelihood: encodes nothing any more; plans and scores.
        data: encoded examples.
        load_reference: builds a frozen copy of the reference from its source.
        reference_kind: what "auto" means here.
        forecast: memory by part, given whether a reference copy stays in memory.
        probe: made once the reference is known.
        save: writes the trained model into a (partial) folder; a state dict is given where parameters are sharded.
        batch_tokens: cut a step's examples into forward passes of so many tokens; None: by number of examples.
        feed: where a method makes its own examples: the feed, given the reference. None for `data`.
        rule: how examples become an update, where that is not by the gradient.
        not_off: why the policy with its adapters off is not what training began from; None where it is.
    """

    policy: Policy
    likelihood: Likelihood
    data: PreparedData
    load_reference: Callable[[], nn.Module]
    reference_kind: str
    forecast: Callable[[bool], list[dict[str, Any]]]
    probe: Callable[[Reference], Probe]
    save: Callable[[Path, dict[str, Tensor] | None], None]
    batch_tokens: int | None = None
    feed: Callable[[Reference], Feed] | None = None
    rule: Rule | None = None
    not_off: str | None = None
