"""Latents as items: what names them and their noise, where they come from, and what their likelihoods share.

A latent is a sample as a network takes it: an image behind its VAE, or a motion's z-scores.

All that is drawn for an item is counted: it follows from (run seed, example id, slot, epoch) alone, so that resuming,
other orders and other batch sizes change nothing, and scores of the reference can be cached.

Legend: N items, C channels, H W latent height and width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from prefopt.comparisons import Encoded
from prefopt.likelihoods.process import Process, counted_noise


@dataclass(frozen=True, slots=True)
class EncodedLatent:
    """One sample (an image) under one prompt, by what the stores know it as.

    Attributes:
        latent: content key of the image's latents.
        prompt: text; the empty one stands for no condition.
        sizes: original height and width, crop top and left, target height and width (SDXL's conditions).
        example: id of the row, from which noise and timestep derive.
        slot: place among the row's items; those of the same latents have one place, and so the same draws.
        epoch: of this noise; below 0 in evaluations.
        drawn: the latent itself, where it was sampled while training and no store has it.
    """

    latent: str
    prompt: str
    sizes: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0)
    example: str = ""
    slot: int = 0
    epoch: int = 0
    drawn: Tensor | None = field(default=None, repr=False, compare=False)


class LatentStore(Protocol):
    """Latents and prompt embeddings by key."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of the latents, or whatever axes one has."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What latents and conditions depend on besides their keys: encoders, resolution, crop."""
        ...

    def latents(self, keys: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the VAE's posterior, (N, C, H, W) float32 each, scaled as the model takes them.

        No deviation where a sample is what it is.
        """
        ...

    def conditions(
        self, prompts: Sequence[str], sizes: Sequence[tuple[int, ...]] | None = None
    ) -> dict[str, Tensor]:
        """What the network is given of prompts (and image sizes), by name."""
        ...


@dataclass(frozen=True, kw_only=True)
class LatentLikelihood:
    """The half of a likelihood of latents that does not depend on what is scored; `plan` and `score` are the other.

    Attributes:
        process: of the model's scheduler.
        store: latents and prompt embeddings.
        seed: of the run; noise derives from it.
        noise_epochs: draws repeat after so many epochs; None for never.
    """

    process: Process
    store: LatentStore
    seed: int = 0
    noise_epochs: int | None = None

    version = 1

    def settings(self) -> dict[str, Any]:
        """Process, draws, and what made latents and embeddings."""
        return {
            "store": dict(self.store.identity),
            "process": self.process.settings(),
            "seed": self.seed,
        }

    def at(self, example: Encoded[EncodedLatent], epoch: int) -> Encoded[EncodedLatent]:
        """The example as it is shown in an epoch, its items named by row, slot and epoch, from which their noise derives."""
        return self.renoised(self.shown(example, epoch), epoch)

    def shown(self, example: Encoded[EncodedLatent], epoch: int) -> Encoded[EncodedLatent]:
        """Where items may be shown in several ways (captions, stretches of a motion): that of an epoch."""
        return example

    def renoised(self, example: Encoded[EncodedLatent], epoch: int) -> Encoded[EncodedLatent]:
        """The same items with another epoch's noise."""
        if epoch >= 0 and self.noise_epochs is not None:
            epoch %= self.noise_epochs
        places: dict[str, int] = {}
        items = tuple(
            replace(item, example=example.id, slot=places.setdefault(item.latent, slot), epoch=epoch)
            for slot, item in enumerate(example.items)
        )
        return replace(example, items=items)

    def renewed(self, example: Encoded[EncodedLatent]) -> bool:
        """Each epoch draws its noise."""
        return True

    def seen_by_reference(self, item: EncodedLatent) -> EncodedLatent:
        """The same."""
        return item

    def key(self, item: EncodedLatent) -> str:
        """Digest of latents, prompt and draw."""
        # repr quotes: ids and prompts may hold any separator
        text = repr((item.latent, item.sizes, item.example, item.slot, item.epoch, item.prompt))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def family(self, item: EncodedLatent) -> Any:
        """None: nothing is gained by scoring some items together rather than others."""
        return None

    def width(self, item: EncodedLatent) -> int:
        """Places of a latent."""
        return math.prod(self.store.shape[1:])

    def extent(self, items: Sequence[EncodedLatent]) -> tuple[int, ...]:
        """Shape that a batch of these items needs, up to that of the store: of motions, as long as the longest."""
        return self.store.shape

    def stream(
        self, name: str, item: EncodedLatent, shape: Sequence[int] | None = None
    ) -> tuple[float, Tensor]:
        """A uniform number and noise of their own for each name, of an item's row and epoch; see `counted_noise`.

        Noise has the shape of a latent, unless another is given.
        """
        given = self.store.shape if shape is None else shape
        return counted_noise(self.seed, f"{name} of {item.example}", item.epoch, given)

    def latents(self, items: Sequence[EncodedLatent]) -> Tensor:
        """(N, C, H, W) latents, of each item its own sample of the VAE's posterior, or what was drawn."""
        stored = [item for item in items if item.drawn is None]
        found = iter(self.stored(stored) if stored else ())
        return torch.stack([next(found) if item.drawn is None else item.drawn for item in items])

    def stored(self, items: Sequence[EncodedLatent]) -> Tensor:
        """(N, C, H, W) those of items that the store has."""
        mean_NCHW, std_NCHW = self.store.latents([item.latent for item in items])
        if std_NCHW is None:
            return mean_NCHW
        z = [self.stream(f"posterior {item.slot}", item)[1] for item in items]
        return mean_NCHW + std_NCHW * torch.stack(z)

    def conditions(self, items: Sequence[EncodedLatent], prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the network is given of these items under these prompts, by name."""
        return self.store.conditions(prompts, [item.sizes for item in items])
