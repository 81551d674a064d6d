"""Denoising error under a control image.

Both items of a row that share an image share its sample of the VAE's posterior, noise and timestep too, so that everything
which does not depend on the condition cancels from their difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from prefopt.likelihoods.denoising import DenoisingLikelihood
from prefopt.likelihoods.latents import EncodedLatent, LatentStore


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedControl(EncodedLatent):
    """One image under one prompt and one control image.

    Attributes:
        control: content key of the control image.
    """

    control: str


class ControlStore(LatentStore, Protocol):
    """Latents, prompt embeddings and control images by key."""

    def controls(self, keys: Sequence[str]) -> Tensor:
        """(N, 3, H, W) in [0, 1], as the pipeline takes them."""
        ...


@dataclass(frozen=True, kw_only=True)
class ControlLikelihood(DenoisingLikelihood):
    """Minus the denoising error of latents under a control image; see `DenoisingLikelihood`."""

    store: ControlStore

    def key(self, item: EncodedLatent) -> str:
        """Digest of latents, prompt, draw and control image."""
        assert isinstance(item, EncodedControl)
        text = f"{super().key(item)} under {item.control}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def conditions(self, items: Sequence[EncodedLatent], prompts: Sequence[str]) -> dict[str, Tensor]:
        """What the base network is given, and `control`."""
        keys = [item.control for item in items if isinstance(item, EncodedControl)]
        return super().conditions(items, prompts) | {"control": self.store.controls(keys)}
