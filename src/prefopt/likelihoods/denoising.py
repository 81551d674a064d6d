"""Denoising error as a score: how well a diffusion or flow model finds its way back to an image.

    score(x) = -w(t) mean_d (target(x_0, noise, t) - f_theta(x_t, t, c))^2

One timestep t and one noise for all items of an example (arXiv 2311.12908, section 4): what they share cancels in the
difference. Both are counted: they follow from (run seed, example id, epoch) alone, so that resuming, other orders and
other batch sizes change nothing, and scores of the reference can be cached. Means over the D latent elements, so that
beta does not depend on the resolution. Winner and loser are one forward pass.

Legend: N items, C channels, H W latent height and width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prefopt.comparisons import Encoded
from prefopt.likelihoods.base import ItemScores
from prefopt.likelihoods.process import Process, TimeDensity, WeightRule, counted_noise

Network = Callable[[nn.Module, Tensor, Tensor, Mapping[str, Tensor]], Tensor]
"""(model, x_NCHW, model timestep, conditions) -> output, the same for every architecture."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One image under one prompt, by what the stores know it as.

    Attributes:
        latent: content key of the image's latents.
        prompt: text; the empty one stands for no condition.
        sizes: original height and width, crop top and left, target height and width (SDXL's conditions).
        example: id of the row, from which noise and timestep derive.
        slot: place among the row's items.
        epoch: of this noise; below 0 in evaluations.
    """

    latent: str
    prompt: str
    sizes: tuple[int, int, int, int, int, int]
    example: str = ""
    slot: int = 0
    epoch: int = 0


class ImageStore(Protocol):
    """Latents and prompt embeddings by key."""

    shape: tuple[int, int, int]
    """(C, H, W) of the latents."""
    identity: Mapping[str, Any]
    """What latents and conditions depend on besides their keys: encoders, resolution, crop."""

    def latents(self, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE's posterior, (N, C, H, W) float32 each, scaled as the model takes them."""
        ...

    def conditions(
        self, prompts: Sequence[str], sizes: Sequence[tuple[int, ...]] | None = None
    ) -> dict[str, Tensor]:
        """What the network is given of prompts (and image sizes), by name."""
        ...


@dataclass(frozen=True, slots=True)
class DenoisingPlan:
    """Noised latents of a batch are made on the device; the plan holds what they are made of."""

    x0_NCHW: Tensor
    noise_NCHW: Tensor
    t_N: Tensor
    """int64, kept on the CPU, where looking up coefficients waits for nothing."""
    conditions: dict[str, Tensor]

    def to(self, device: torch.device) -> DenoisingPlan:
        """The same plan on another device."""
        return DenoisingPlan(
            self.x0_NCHW.to(device, non_blocking=True),
            self.noise_NCHW.to(device, non_blocking=True),
            self.t_N,
            {name: value.to(device, non_blocking=True) for name, value in self.conditions.items()},
        )

    def at(self, t: int) -> DenoisingPlan:
        """The same images and noise at one given timestep for all."""
        return replace(self, t_N=torch.full_like(self.t_N, t))


def at_epoch(
    example: Encoded[EncodedImage], epoch: int, noise_epochs: int | None = None
) -> Encoded[EncodedImage]:
    """The example's images named by row, slot and epoch, from which their noise derives.

    Args:
        example: of images.
        epoch: below 0 in evaluations.
        noise_epochs: draws repeat after so many epochs; None for never.
    """
    if epoch >= 0 and noise_epochs is not None:
        epoch %= noise_epochs
    items = tuple(
        replace(item, example=example.id, slot=slot, epoch=epoch) for slot, item in enumerate(example.items)
    )
    return replace(example, items=items)


def key_of(item: EncodedImage) -> str:
    """Digest of latents, prompt and draw."""
    # repr quotes: ids and prompts may hold any separator
    text = repr((item.latent, item.sizes, item.example, item.slot, item.epoch, item.prompt))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def stream(seed: int, name: str, item: EncodedImage, shape: Sequence[int]) -> tuple[float, Tensor]:
    """A uniform number and noise of their own for each name, of an item's row and epoch; see `counted_noise`."""
    return counted_noise(seed, f"{name} of {item.example}", item.epoch, shape)


@dataclass(frozen=True, kw_only=True)
class DenoisingLikelihood:
    """Minus the denoising error of latents.

    Attributes:
        process: of the model's scheduler.
        network: calls the model.
        store: latents and prompt embeddings.
        seed: of the run; noise derives from it.
        density: how timesteps are drawn.
        weight: of the error by timestep.
        prompt_dropout: share of examples that are trained on with the empty prompt.
        noise_epochs: draws repeat after so many epochs; None for never.
    """

    process: Process
    network: Network
    store: ImageStore
    seed: int = 0
    density: TimeDensity = "uniform"
    weight: WeightRule = "constant"
    prompt_dropout: float = 0.0
    noise_epochs: int | None = None

    version = 1

    def settings(self) -> dict[str, Any]:
        """Process, draws, weights, and what made latents and embeddings."""
        return {
            "store": dict(self.store.identity),
            "process": self.process.settings(),
            "seed": self.seed,
            "density": self.density,
            "weight": self.weight,
            "prompt_dropout": self.prompt_dropout,
        }

    def at(self, example: Encoded[EncodedImage], epoch: int) -> Encoded[EncodedImage]:
        """The example with an epoch's noise."""
        return at_epoch(example, epoch, self.noise_epochs)

    def seen_by_reference(self, item: EncodedImage) -> EncodedImage:
        """The same."""
        return item

    def key(self, item: EncodedImage) -> str:
        """Digest of latents, prompt and draw."""
        return key_of(item)

    def family(self, item: EncodedImage) -> None:
        """Nothing is gained by scoring some items together rather than others."""

    def width(self, item: EncodedImage) -> int:
        """Places of a latent."""
        return self.store.shape[1] * self.store.shape[2]

    def plan(self, items: Sequence[EncodedImage]) -> DenoisingPlan:
        """Look up latents and prompts, and draw noise and timesteps."""
        draws: dict[tuple[str, int], tuple[float, Tensor]] = {}
        mean_NCHW, std_NCHW = self.store.latents([item.latent for item in items])
        x0, noise, uniform, prompts = [], [], [], []
        for n, item in enumerate(items):
            drawn = (item.example, item.epoch)
            if drawn not in draws:
                draws[drawn] = counted_noise(self.seed, item.example, item.epoch, self.store.shape)
            # other streams: each image has its own sample of the posterior, both of a pair the same prompt
            _, z_CHW = stream(self.seed, f"posterior {item.slot}", item, self.store.shape)
            x0.append(mean_NCHW[n] + std_NCHW[n] * z_CHW)
            uniform.append(draws[drawn][0])
            noise.append(draws[drawn][1])
            dropped = item.epoch >= 0 and stream(self.seed, "prompt", item, (1,))[0] < self.prompt_dropout
            prompts.append("" if dropped else item.prompt)
        return DenoisingPlan(
            x0_NCHW=torch.stack(x0),
            noise_NCHW=torch.stack(noise),
            t_N=self.process.timesteps(torch.tensor(uniform), self.density),
            conditions=self.store.conditions(prompts, [item.sizes for item in items]),
        )

    def score(self, model: nn.Module, plan: DenoisingPlan, extras: Collection[str] = ()) -> ItemScores:
        """(N, 1) minus the weighted mean squared error, in float32, with gradients."""
        x_NCHW = self.process.add_noise(plan.x0_NCHW, plan.noise_NCHW, plan.t_N)
        target_NCHW = self.process.target(plan.x0_NCHW, plan.noise_NCHW, plan.t_N)
        output_NCHW = self.network(model, x_NCHW, self.process.model_timestep(plan.t_N), plan.conditions)
        error_N = (output_NCHW.float() - target_NCHW).square().flatten(1).mean(1)
        weight_N = self.process.weight(plan.t_N, self.weight).to(error_N.device)
        return ItemScores(
            logp_NL=-(weight_N * error_N)[:, None], length_N=torch.ones(len(error_N), device=error_N.device)
        )
