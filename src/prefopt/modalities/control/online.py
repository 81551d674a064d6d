"""Losing conditions of the present model: for every step it draws under the true conditions, and a detector looks.

All randomness follows from the run's seed, the example and the epoch, so that a resumed run draws the same.

Legend: B images, H W in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from prefopt.comparisons import Encoded
from prefopt.modalities.control.building import without_ignored
from prefopt.modalities.control.detectors import Detector
from prefopt.modalities.control.drawing import as_batch, check_finite, seed_of
from prefopt.modalities.control.likelihood import EncodedControl
from prefopt.modalities.control.models import LoadedControl
from prefopt.modalities.control.store import CachedControls
from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.models.tensors import generate_images
from prefopt.sources.feeds import OfflineFeed


@dataclass(frozen=True)
class Author:
    """Makes losing conditions with the policy as it is.

    Attributes:
        loaded: the policy's pipeline, its VAE in memory.
        store: embeddings and true conditions; the made ones are kept in it.
        detector: reads the samples.
        accelerator: for autocast, and to share the work out.
        seed: of the run.
        num_inference_steps: of a sample.
        guidance_scale: of a sample.
        batch_size: samples at a time.
    """

    loaded: LoadedControl
    store: CachedControls
    detector: Detector
    accelerator: Any
    seed: int
    num_inference_steps: int
    guidance_scale: float
    batch_size: int

    def rewritten(
        self, examples: Sequence[Encoded[EncodedControl]], epoch: int, for_good: bool = False
    ) -> list[Encoded[EncodedControl]]:
        """The examples with losing conditions that the model makes now.

        Args:
            examples: of two items each, the true condition first.
            epoch: of the samples' noise.
            for_good: hold the conditions through the run.
        """
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        model: Any = self.loaded.model
        training = model.training
        model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            made = self._made(examples[rank::processes], epoch)
        model.train(training)
        if processes > 1:
            from accelerate.utils import gather_object

            made = dict(gather_object(list(made.items())))
        self.store.keep(made, for_good)
        return [
            replace(e, items=(e.items[0], replace(e.items[1], control=key_of(e.id, epoch)))) for e in examples
        ]

    def _made(
        self, examples: Sequence[Encoded[EncodedControl]], epoch: int
    ) -> dict[str, np.ndarray[Any, Any]]:
        """8-bit control images (3, H, W) by key."""
        found: dict[str, np.ndarray[Any, Any]] = {}
        for start in range(0, len(examples), self.batch_size):
            some = examples[start : start + self.batch_size]
            true = [e.items[0] for e in some]
            controls_BCHW = self.store.controls([item.control for item in true])
            known = self.store.conditions_of([item.prompt for item in true])
            samples_BCHW = generate_images(
                self.loaded,
                Conditions({**known.tensors, "control": controls_BCHW}),
                [seed_of(self.seed, f"losing condition of {e.id}", epoch) for e in some],
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                height=self.store.resolution,
                width=self.store.resolution,
                batch_size=len(some),
                unconditional=self.store.unconditional,
            )
            check_finite(samples_BCHW, self.loaded.source)
            levels = (samples_BCHW.mul(255).round().byte()).numpy()  # as a file would hold them
            with torch.autocast("cpu", enabled=False):  # where these pictures are
                seen = self.detector.detect(as_batch(list(levels)))
                if self.detector.metric != "pose":
                    seen = without_ignored(self.detector.read(controls_BCHW), seen)
            drawn = self.detector.draw(seen).clamp(0, 1).mul(255).round().byte().cpu().numpy()
            found |= {key_of(e.id, epoch): drawn[k] for k, e in enumerate(some)}
        return found


def key_of(example: str, epoch: int) -> str:
    """What the store holds a made condition as."""
    return f"losing condition of {example}, epoch {epoch}"


@dataclass(frozen=True)
class OnlineConditions(OfflineFeed):
    """The examples of a data set in their counted order, their losing conditions made anew for every step.

    Attributes:
        author: makes them.
    """

    author: Author

    def updates(self, step: int) -> list[list[Encoded[Any]]]:
        """One update, with the noise of the step's epoch."""
        epoch = step // self.steps_per_epoch
        chosen = [self.examples[i] for i in self.schedule.examples(step)]
        return [[self.likelihood.at(e, epoch) for e in self.author.rewritten(chosen, epoch)]]
