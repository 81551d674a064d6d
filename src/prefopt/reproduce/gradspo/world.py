"""The vector world of `prefopt reproduce gradspo`: a Gaussian mixture, its small diffusion model, an exact reward.

A sample is a vector of 32 numbers, shaped (32, 1, 1) so that the step likelihoods and the collector for images take it
as it is. A prompt names one of four Gaussians, told apart by the first 8 numbers; the reward looks at the other 24
alone, so that following it and following the prompt do not exclude each other.

Legend: B samples, CHW = (32, 1, 1), S reverse steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from prefopt.likelihoods.process import Process
from prefopt.likelihoods.steps import GuidedNetwork, transition
from prefopt.likelihoods.transition import inference_timesteps, kl
from prefopt.worlds.diffusion import build_scheduler

SHAPE = (32, 1, 1)
PROMPTS = ("0", "1", "2", "3")
TOLD = 8
"""The first numbers of a sample, two a prompt, at which prompts differ."""
MEAN, STD = 1.5, 0.4
GOAL, SIZE_PENALTY = 2.0, 0.6
TEMPERATURE = 0.25
"""The judge's scores are rewards over it: it decides which pairs pass the threshold."""
FREQUENCIES = 16


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    pretrain_steps: int = 1500
    states: int = 256
    """Trajectories of E1."""
    rounds: int = 12
    prompts: int = 32
    """Trajectories a round of collection."""
    test_samples: int = 1024


FULL = Size()
QUICK = Size(pretrain_steps=40, states=12, rounds=2, prompts=4, test_samples=16)


class NoisePredictor(nn.Module):
    """A perceptron on sample, timestep and prompt, which predicts the noise."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        inputs = SHAPE[0] + 2 * FREQUENCIES + len(PROMPTS)
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, SHAPE[0]),
        )

    def forward(self, x_BCHW: Tensor, t_B: Tensor, prompt_B: Tensor) -> Tensor:
        """(B, C, H, W) noise."""
        rate_F = torch.exp(-math.log(1000.0) * torch.arange(FREQUENCIES) / FREQUENCIES)
        angle_BF = t_B[:, None].float() * rate_F
        told_BP = nn.functional.one_hot(prompt_B, len(PROMPTS)).float()
        inputs = torch.cat([x_BCHW.flatten(1), angle_BF.sin(), angle_BF.cos(), told_BP], dim=-1)
        return self.layers(inputs).view_as(x_BCHW)


def network(model: nn.Module, x_BCHW: Tensor, t_B: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """The library's way of calling a model."""
    return model(x_BCHW, t_B, conditions["prompt"])


def conditions(prompts: Sequence[str]) -> dict[str, Tensor]:
    """What the model is given of prompts."""
    return {"prompt": torch.tensor([PROMPTS.index(prompt) for prompt in prompts])}


@dataclass(frozen=True, slots=True)
class Reward:
    """R(x) = -(w x - 2)^2 - 0.6 mean(x_d^2), over the numbers that no prompt tells; a judge of clean samples.

    Attributes:
        w_D: unit vector, zero on the first 8 numbers.
    """

    w_D: Tensor
    sees: Literal["clean"] = "clean"

    def of(self, x_BCHW: Tensor) -> Tensor:
        """(B,) rewards, with gradients."""
        x_BD = x_BCHW.flatten(1)
        return -(x_BD @ self.w_D - GOAL).square() - SIZE_PENALTY * x_BD[:, TOLD:].square().mean(-1)

    def __call__(self, x_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) scores for the collector."""
        return self.of(x_BCHW) / TEMPERATURE


@dataclass(frozen=True, slots=True)
class World:
    """One seed's world: its reward and its pretrained model."""

    seed: int
    process: Process
    steps_S2: Tensor
    reward: Reward
    reference: NoisePredictor

    @property
    def guided(self) -> GuidedNetwork:
        """The network as likelihoods and the collector call it; without guidance."""
        return GuidedNetwork(process=self.process, network=network, conditions=conditions)


class Measured(NamedTuple):
    """What samples of a policy say."""

    reward: float
    """Mean."""
    drift: float
    """KL of the policy's sampling path from the reference's, nats: summed over steps and numbers."""
    distance: float
    """Mean squared distance to the prompt's mean, summed over the first 8 numbers; 1.28 for the mixture itself."""


def prompt_means() -> Tensor:
    """(prompts, D) means of the mixture."""
    means = torch.zeros(len(PROMPTS), SHAPE[0])
    for k in range(len(PROMPTS)):
        means[k, 2 * k : 2 * k + 2] = MEAN
    return means


def make_world(seed: int, size: Size) -> World:
    """Draw a reward and pretrain a model of the mixture, on Stable Diffusion's noise schedule with 20 DDIM steps."""
    scheduler = build_scheduler()
    process = Process.from_scheduler(scheduler)
    generator = torch.Generator().manual_seed(seed)
    w_D = torch.cat([torch.zeros(TOLD), torch.randn(SHAPE[0] - TOLD, generator=generator)])
    reference = pretrain(process, size.pretrain_steps, seed)
    return World(seed, process, inference_timesteps(scheduler, 20), Reward(w_D / w_D.norm()), reference)


def pretrain(process: Process, steps: int, seed: int, batch: int = 256) -> NoisePredictor:
    """A model that denoises the mixture: Adam 2e-3, decayed to 0 along a cosine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NoisePredictor()
    generator = torch.Generator().manual_seed(seed + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        prompt_B, x0 = clean_samples(batch, generator)
        noise = torch.randn(x0.shape, generator=generator)
        t_B = process.timesteps(torch.rand(batch, generator=generator))
        error = model(process.add_noise(x0, noise, t_B), t_B, prompt_B) - process.target(x0, noise, t_B)
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
        decay.step()
    return model.requires_grad_(False)


def clean_samples(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(n,) prompts and (n, C, H, W) samples of the mixture."""
    prompt_B = torch.randint(len(PROMPTS), (n,), generator=generator)
    x_BD = prompt_means()[prompt_B] + STD * torch.randn(n, SHAPE[0], generator=generator)
    return prompt_B, x_BD.view(n, *SHAPE)


@torch.no_grad()
def measure(world: World, model: nn.Module, samples: int) -> Measured:
    """Sample with the same noise whatever the model, and score.

    Args:
        world: whose reward and reference count.
        model: the policy.
        samples: spread evenly over the prompts.
    """
    generator = torch.Generator().manual_seed(world.seed + 2)
    texts = [PROMPTS[b % len(PROMPTS)] for b in range(samples)]
    given, guided = conditions(texts), world.guided
    x = torch.randn((samples, *SHAPE), generator=generator)
    drift = 0.0
    for t, t_prev in world.steps_S2.tolist():
        t_B, t_prev_B = torch.full((samples,), t), torch.full((samples,), t_prev)
        policy, reference = (
            transition(world.process, guided(m, x, t_B, given), x, t_B, t_prev_B, 1.0)
            for m in (model, world.reference)
        )
        drift += SHAPE[0] * float(kl(policy, reference).mean())
        x = policy.sample(torch.randn(x.shape, generator=generator))
    off_BT = (x.flatten(1) - prompt_means()[given["prompt"]])[:, :TOLD]
    return Measured(float(world.reward.of(x).mean()), drift, float(off_BT.square().sum(-1).mean()))
