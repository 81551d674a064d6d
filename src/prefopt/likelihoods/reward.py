"""A reward model's score of noised latents, for training it on comparisons (LRM, arXiv 2502.01051, section 4.1).

Both images of a comparison are noised to the same timestep, with independent noise unless asked otherwise. There is no
reference: the score itself is what an objective sees.

Legend: N items, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.likelihoods.base import ItemScores
from prefopt.likelihoods.denoising import DenoisingLikelihood, EncodedImage
from prefopt.likelihoods.steps import one_part


@dataclass(frozen=True, slots=True)
class RewardPlan:
    """Noised latents and their prompts."""

    x_NCHW: Tensor
    t_N: Tensor
    prompts: list[str]

    def to(self, device: torch.device) -> RewardPlan:
        """The same plan on another device."""
        return RewardPlan(self.x_NCHW.to(device, non_blocking=True), self.t_N.to(device), self.prompts)


@dataclass(frozen=True, kw_only=True)
class RewardLikelihood(DenoisingLikelihood):
    """Scores by the model that is trained; noise as in `DenoisingLikelihood`, at the timesteps that samplers visit.

    Attributes:
        timesteps: the judge's, one is drawn for each example.
        shared_noise: the same noise for both images of a comparison (SPO's judge) instead of independent noise.
    """

    timesteps: tuple[int, ...]
    shared_noise: bool = False

    def settings(self) -> dict[str, Any]:
        """As for denoising, with the timesteps."""
        return super().settings() | {"timesteps": self.timesteps, "shared_noise": self.shared_noise}

    # a plan is opaque to all but its own likelihood
    def plan(self, items: Sequence[EncodedImage]) -> RewardPlan:  # type: ignore[override]
        """Look up latents, draw a timestep for each example and noise for each item."""
        return self.plan_at(items, None)

    def plan_at(self, items: Sequence[EncodedImage], t: int | None) -> RewardPlan:
        """The same, at one given timestep for all."""
        mean_NCHW, std_NCHW = self.store.latents([item.latent for item in items])
        x0, noise, times = [], [], []
        for n, item in enumerate(items):
            uniform, shared_CHW = self._stream("pair", item)
            own_CHW = shared_CHW if self.shared_noise else self._stream(f"noise {item.slot}", item)[1]
            _, z_CHW = self._stream(f"posterior {item.slot}", item)
            x0.append(mean_NCHW[n] + std_NCHW[n] * z_CHW)
            noise.append(own_CHW)
            times.append(self.timesteps[int(uniform * len(self.timesteps))] if t is None else t)
        t_N = torch.tensor(times)
        return RewardPlan(
            x_NCHW=self.process.add_noise(torch.stack(x0), torch.stack(noise), t_N),
            t_N=t_N,
            prompts=[item.prompt for item in items],
        )

    def score(self, model: nn.Module, plan: Any, extras: Collection[str] = ()) -> ItemScores:
        """(N, 1) scores in float32, with gradients."""
        return one_part(model(plan.x_NCHW, plan.t_N, plan.prompts))
