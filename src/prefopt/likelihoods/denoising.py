"""Denoising error as a score: how well a diffusion or flow model finds its way back to an image.

    score(x) = -c w(t) mean_d (target(x_0, noise, t) - f_theta(x_t, t, c))^2

One timestep t and one noise for all items of an example (arXiv 2311.12908, section 4): what they share cancels in the
difference. Means over the D latent elements, so that beta does not depend on the resolution; c is 1, or what makes of
the error the bound on the log-likelihood. Winner and loser are one forward pass.

Legend: N items, C channels, H W latent height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from prefopt.likelihoods.base import ItemScores, one_part
from prefopt.likelihoods.latents import EncodedLatent, LatentLikelihood
from prefopt.likelihoods.process import TimeDensity, WeightRule, counted_noise

ErrorScale = Literal["mean", "steps", "sum"]
"""c: 1; T, the number of train timesteps (arXiv 2412.05095, eq. 16, with errors as means); or T times the elements of the sample."""
Network = Callable[[nn.Module, Tensor, Tensor, Mapping[str, Tensor]], Tensor]
"""(model, x_NCHW, model timestep, conditions) -> output, the same for every architecture."""


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
        return replace(
            self,
            x0_NCHW=self.x0_NCHW.to(device, non_blocking=True),
            noise_NCHW=self.noise_NCHW.to(device, non_blocking=True),
            conditions={k: value.to(device, non_blocking=True) for k, value in self.conditions.items()},
        )

    def at(self, t: int) -> DenoisingPlan:
        """The same images and noise at one given timestep for all."""
        return replace(self, t_N=torch.full_like(self.t_N, t))


class Predicted(NamedTuple):
    """What a network makes of noised latents."""

    x_NCHW: Tensor
    output_NCHW: Tensor


@dataclass(frozen=True, kw_only=True)
class DenoisingLikelihood(LatentLikelihood):
    """Minus the denoising error of latents.

    Attributes:
        network: calls the model.
        density: how timesteps are drawn.
        weight: of the error by timestep.
        scale: c.
        prompt_dropout: share of examples that are trained on with the empty prompt.
    """

    network: Network
    density: TimeDensity = "uniform"
    weight: WeightRule = "constant"
    scale: ErrorScale = "mean"
    prompt_dropout: float = 0.0

    def settings(self) -> dict[str, Any]:
        """As for images, with the draws of timesteps and the weights."""
        return super().settings() | {
            "density": self.density,
            "weight": self.weight,
            "scale": self.scale,
            "prompt_dropout": self.prompt_dropout,
        }

    def plan(self, items: Sequence[EncodedLatent]) -> DenoisingPlan:
        """Look up latents and prompts, and draw noise and timesteps."""
        draws: dict[tuple[str, int], tuple[float, Tensor]] = {}
        noise, uniform = [], []
        for item in items:
            drawn = (item.example, item.epoch)
            if drawn not in draws:
                draws[drawn] = counted_noise(self.seed, item.example, item.epoch, self.store.shape)
            uniform.append(draws[drawn][0])
            noise.append(draws[drawn][1])
        return DenoisingPlan(
            x0_NCHW=self.latents(items),
            noise_NCHW=torch.stack(noise),
            # in float32 the greatest numbers below 1 would become 1
            t_N=self.timesteps(torch.tensor(uniform).clamp(max=1 - 2**-24)),
            conditions=self.conditions(items, [self.prompt_of(item) for item in items]),
        )

    def timesteps(self, uniform_N: Tensor) -> Tensor:
        """(N,) train timesteps of numbers in [0, 1)."""
        return self.process.timesteps(uniform_N, self.density)

    def prompt_of(self, item: EncodedLatent) -> str:
        """What an item is scored under: its prompt, or the empty one."""
        return "" if self.drops_prompt(item) else item.prompt

    def drops_prompt(self, item: EncodedLatent) -> bool:
        """Whether an item is trained on with the empty prompt: by a stream that both of a pair share."""
        share = self.prompt_dropout
        # one number: noise of a latent's shape takes as long as all else here
        return share > 0 and item.epoch >= 0 and self.stream("prompt", item, (1,))[0] < share

    def score(self, model: nn.Module, plan: DenoisingPlan, extras: Collection[str] = ()) -> ItemScores:
        """(N, 1) minus the weighted mean squared error, in float32, with gradients."""
        return one_part(self.of_output(plan, self.predict(model, plan).output_NCHW))

    def predict(self, model: nn.Module, plan: DenoisingPlan) -> Predicted:
        """The network's output of the plan's noised latents."""
        x_NCHW = self.process.add_noise(plan.x0_NCHW, plan.noise_NCHW, plan.t_N)
        return Predicted(x_NCHW, self.output(model, x_NCHW, plan))

    def of_output(self, plan: DenoisingPlan, output_NCHW: Tensor) -> Tensor:
        """(N,) scores of an output."""
        error_N = self.error(plan, output_NCHW)
        weight_N = self.process.weight(plan.t_N, self.weight).to(error_N.device)
        if self.scale != "mean":
            weight_N = weight_N * self.process.n_train_timesteps
        if self.scale == "sum":
            weight_N = weight_N * self.elements(plan)
        return -(weight_N * error_N)

    def error(self, plan: DenoisingPlan, output_NCHW: Tensor) -> Tensor:
        """(N,) mean squared errors of an output."""
        target_NCHW = self.process.target(plan.x0_NCHW, plan.noise_NCHW, plan.t_N)
        return (output_NCHW.float() - target_NCHW).square().flatten(1).mean(1)

    def elements(self, plan: DenoisingPlan) -> Tensor:
        """(N,) over how many elements the errors are means."""
        return torch.full((len(plan.x0_NCHW),), float(plan.x0_NCHW[0].numel()), device=plan.x0_NCHW.device)

    def output(self, model: nn.Module, x_NCHW: Tensor, plan: DenoisingPlan) -> Tensor:
        """The network's, of noised latents."""
        return self.network(model, x_NCHW, self.process.model_timestep(plan.t_N), plan.conditions)
