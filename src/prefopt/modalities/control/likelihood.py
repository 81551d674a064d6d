"""Denoising error under a control image.

Both items of a row that share an image share its sample of the VAE's posterior, noise and timestep too, so that everything
which does not depend on the condition cancels from their difference; and so that it is computed once, see `network.py`.

Legend: N items, C channels, H W of the latents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from prefopt.likelihoods.denoising import DenoisingLikelihood, DenoisingPlan
from prefopt.likelihoods.latents import EncodedLatent, LatentStore
from prefopt.modalities.control.network import States


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


@dataclass(frozen=True, slots=True)
class ControlPlan(DenoisingPlan):
    """Which items share noised latent, timestep, prompt and sizes, besides.

    Attributes:
        state_N: number of each item's state.
        states: made anew for every plan, so that features never outlive the timesteps that they belong to.
    """

    state_N: tuple[int, ...]
    states: States = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", States(self.state_N, self.x0_NCHW.device))


@dataclass(frozen=True, kw_only=True)
class ControlLikelihood(DenoisingLikelihood):
    """Minus the denoising error of latents under a control image; see `DenoisingLikelihood`.

    Attributes:
        network: `denoise_controlled` of a family.
    """

    network: Callable[..., Tensor]
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

    def family(self, item: EncodedLatent) -> tuple[str, int, int]:
        """Items of one image and its noise: half of the base network is computed once for them."""
        return item.example, item.slot, item.epoch

    def plan(self, items: Sequence[EncodedLatent]) -> ControlPlan:
        """As for images, and which items differ in their control images alone."""
        plan = super().plan(items)
        states: dict[Any, int] = {}
        state_N = tuple(
            states.setdefault((i.latent, i.example, i.slot, i.epoch, i.sizes, self.prompt_of(i)), len(states))
            for i in items
        )
        return ControlPlan(plan.x0_NCHW, plan.noise_NCHW, plan.t_N, plan.conditions, state_N)

    def output(self, model: nn.Module, x_NCHW: Tensor, plan: DenoisingPlan) -> Tensor:
        """The network's, which computes once what items share."""
        assert isinstance(plan, ControlPlan)
        t_N = self.process.model_timestep(plan.t_N)
        return self.network(model, x_NCHW, t_N, plan.conditions, states=plan.states)
