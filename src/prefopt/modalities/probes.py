"""What a run measures of its policy beside losses: samples on fixed conditions, their rewards, the distance to the start.

    draw -> measure -> reward -> record

The order and the record are the same for every modality; what a sample is, and what is measured of it, is a `Samples`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from prefopt.runs.record import Record


class Samples(Protocol):
    """Samples of the policy on fixed conditions, as one modality draws them."""

    @property
    def prompts(self) -> Sequence[str]:
        """The conditions as a reader sees them; empty: nothing is drawn."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the sampling, for the report."""
        ...

    def draw(self, step: int) -> Any:
        """A sample a condition, with the same randomness each time; the model is in eval mode, under autocast.

        Raises:
            ValueError: samples that are no numbers.
        """
        ...

    def measure(self, drawn: Any, step: int) -> dict[str, float]:
        """Metrics of the samples (kl, length, ...), in the same mode."""
        ...

    def rewards(self, drawn: Any) -> Sequence[float | None]:
        """The reward of each sample; None where there is none."""
        ...

    def entries(self, drawn: Any, step: int) -> Sequence[Mapping[str, Any]]:
        """What the record keeps of the first samples: text, or the path of a picture."""
        ...


@dataclass(frozen=True)
class SampleProbe:
    """Draws, measures and records each time it is asked.

    Attributes:
        samples: of the modality.
        model: the policy's, unwrapped.
        accelerator: for autocast.
        record: where samples go.
    """

    samples: Samples
    model: nn.Module
    accelerator: Any
    record: Record

    def take(self, step: int, label: str) -> dict[str, float]:
        """Metrics of samples drawn now, the mean reward as `reward`; every process takes part."""
        samples = self.samples
        if not samples.prompts:
            return {}
        self.model.eval()
        with self.accelerator.autocast():
            drawn = samples.draw(step)
            values = samples.measure(drawn, step)
        self.model.train()
        rewards = samples.rewards(drawn)
        known = [reward for reward in rewards if reward is not None]
        if known:
            values["reward"] = sum(known) / len(known)
        kept = samples.entries(drawn, step)
        self.record.samples(
            samples.settings,
            samples.prompts[: len(kept)],
            [
                {"step": step, "label": label, **entry, "score": reward}
                for entry, reward in zip(kept, rewards, strict=False)
            ],
        )
        return values
