"""A reward model's score of noised latents, for training it on comparisons (LRM, arXiv 2502.01051, section 4.1).

Both images of a comparison are noised to the same timestep, with independent noise unless asked otherwise. There is no
reference: the score itself is what an objective sees.

Legend: N items, C channels, H W latent height and width, S timesteps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.likelihoods.base import ItemScores, one_part
from prefopt.likelihoods.latents import EncodedLatent, LatentLikelihood


@dataclass(frozen=True, slots=True)
class RewardPlan:
    """Noised latents, timesteps as the network takes them, and prompts."""

    x_NCHW: Tensor
    t_N: Tensor
    prompts: list[str]

    def to(self, device: torch.device) -> RewardPlan:
        """The same plan on another device."""
        return RewardPlan(self.x_NCHW.to(device, non_blocking=True), self.t_N.to(device), self.prompts)


@dataclass(frozen=True, kw_only=True)
class RewardLikelihood(LatentLikelihood):
    """Scores by the model that is trained, at the timesteps that samplers visit.

    Attributes:
        timesteps_S: the judge's, one is drawn for each example; as `process` counts them (noise levels for flow).
        shared_noise: the same noise for both images of a comparison (SPO's judge) instead of independent noise.
    """

    timesteps_S: Tensor
    shared_noise: bool = False

    def settings(self) -> dict[str, Any]:
        """As for images, with the timesteps."""
        return super().settings() | {
            "timesteps": self.timesteps_S.tolist(),
            "shared_noise": self.shared_noise,
        }

    def plan(self, items: Sequence[EncodedLatent]) -> RewardPlan:
        """Look up latents, draw a timestep for each example and noise for each item."""
        return self.plan_at(items, None)

    def plan_at(self, items: Sequence[EncodedLatent], t: float | None) -> RewardPlan:
        """The same, at one given timestep (for flow, noise level) for all."""
        noise, places = [], []
        for item in items:
            uniform, noise_CHW = self.stream("pair", item)
            if not self.shared_noise:
                _, noise_CHW = self.stream(f"noise {item.slot}", item)
            noise.append(noise_CHW)
            places.append(int(uniform * len(self.timesteps_S)))
        t_N = self.timesteps_S[places]
        if t is not None:
            t_N = torch.full_like(t_N, t)
        return RewardPlan(
            x_NCHW=self.process.add_noise(self.latents(items), torch.stack(noise), t_N),
            t_N=self.process.model_timestep(t_N),
            prompts=[item.prompt for item in items],
        )

    def score(self, model: nn.Module, plan: RewardPlan, extras: Collection[str] = ()) -> ItemScores:
        """(N, 1) scores in float32, with gradients."""
        return one_part(model(plan.x_NCHW, plan.t_N, plan.prompts))
