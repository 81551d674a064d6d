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

from prefopt.comparisons import Encoded
from prefopt.likelihoods.base import ItemScores
from prefopt.likelihoods.denoising import EncodedImage, ImageStore, at_epoch, key_of, stream
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.steps import one_part


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
class RewardLikelihood:
    """Scores by the model that is trained, at the timesteps that samplers visit.

    Attributes:
        process: of the scheduler of the pipeline that the judge is made of.
        store: latents.
        timesteps_S: the judge's, one is drawn for each example; as `process` counts them (noise levels for flow).
        seed: of the run; noise derives from it.
        shared_noise: the same noise for both images of a comparison (SPO's judge) instead of independent noise.
        noise_epochs: draws repeat after so many epochs; None for never.
    """

    process: Process
    store: ImageStore
    timesteps_S: Tensor
    seed: int = 0
    shared_noise: bool = False
    noise_epochs: int | None = None

    version = 1

    def settings(self) -> dict[str, Any]:
        """Process, draws, and what made the latents."""
        return {
            "store": dict(self.store.identity),
            "process": self.process.settings(),
            "seed": self.seed,
            "timesteps": self.timesteps_S.tolist(),
            "shared_noise": self.shared_noise,
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

    def plan(self, items: Sequence[EncodedImage]) -> RewardPlan:
        """Look up latents, draw a timestep for each example and noise for each item."""
        return self.plan_at(items, None)

    def plan_at(self, items: Sequence[EncodedImage], t: float | None) -> RewardPlan:
        """The same, at one given timestep (for flow, noise level) for all."""
        mean_NCHW, std_NCHW = self.store.latents([item.latent for item in items])
        x0, noise, places = [], [], []
        for n, item in enumerate(items):
            uniform, noise_CHW = self._stream("pair", item)
            if not self.shared_noise:
                _, noise_CHW = self._stream(f"noise {item.slot}", item)
            _, z_CHW = self._stream(f"posterior {item.slot}", item)
            x0.append(mean_NCHW[n] + std_NCHW[n] * z_CHW)
            noise.append(noise_CHW)
            places.append(int(uniform * len(self.timesteps_S)))
        t_N = self.timesteps_S[places]
        if t is not None:
            t_N = torch.full_like(t_N, t)
        return RewardPlan(
            x_NCHW=self.process.add_noise(torch.stack(x0), torch.stack(noise), t_N),
            t_N=self.process.model_timestep(t_N),
            prompts=[item.prompt for item in items],
        )

    def _stream(self, name: str, item: EncodedImage) -> tuple[float, Tensor]:
        return stream(self.seed, name, item, self.store.shape)

    def score(self, model: nn.Module, plan: RewardPlan, extras: Collection[str] = ()) -> ItemScores:
        """(N, 1) scores in float32, with gradients."""
        return one_part(model(plan.x_NCHW, plan.t_N, plan.prompts))
