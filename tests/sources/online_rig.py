"""Samplers of steps and trajectories on the toy network, and the judges that watch them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from prefopt.comparisons import Encoded
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.steps import EncodedStep
from prefopt.likelihoods.transition import inference_timesteps
from prefopt.sources.online import Gap, StepSampler, Tally, TrajectorySampler
from step_toy import SD, SHAPE, Calls, Toy, guided_toy, picture

PROMPTS = [("a", "red"), ("b", "blue"), ("c", "green")]
ENDLESS = {
    # whose last step has no density: it ends at the clean sample
    "to clean": DDIMScheduler(**{**SD, "set_alpha_to_one": True}),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
}


@dataclass
class Watched:
    """A judge that remembers what it was given.

    Attributes:
        sees: as for judges.
        score: of (latents, prompts); the mean of the place that the prompt likes, by default.
    """

    sees: Literal["noisy", "clean"] = "noisy"
    score: Callable[[Tensor, Sequence[str]], Tensor] | None = None
    given: list[Tensor] = field(default_factory=list)
    told: list[list[float]] = field(default_factory=list)

    def __call__(self, x_BCHW: Tensor, t_B: Tensor, prompts: Sequence[str]) -> Tensor:
        assert len(x_BCHW) == len(t_B) == len(prompts)
        self.given.append(x_BCHW)
        self.told.append(t_B.tolist())
        if self.score is not None:
            return self.score(x_BCHW, prompts)
        wanted = torch.stack([picture(prompt) for prompt in prompts])
        return (x_BCHW * wanted).flatten(1).mean(1)


@dataclass
class Rig:
    """A sampler, and all that watches it."""

    sampler: StepSampler
    judge: Watched
    calls: Calls
    model: Toy
    tally: Tally

    def collect(
        self, prompts: Sequence[tuple[str, str]] = PROMPTS, round_: int = 0
    ) -> list[Encoded[EncodedStep]]:
        return self.sampler.collect(self.model, prompts, round_, self.tally)


def rig(
    *,
    n: int = 4,
    judge: Watched | None = None,
    gap: Gap | None = None,
    scale: float = 1.0,
    scheduler: Any = None,
    **options: Any,
) -> Rig:
    scheduler = scheduler or DDIMScheduler(**SD)
    guided, calls = guided_toy(Process.from_scheduler(scheduler), scale)
    judge = judge or Watched()
    sampler = StepSampler(
        guided=guided,
        steps_S2=inference_timesteps(scheduler, n),
        shape=SHAPE,
        judge=judge,
        gap=gap or Gap(0.0, 0.0),
        **options,
    )
    return Rig(sampler, judge, calls, Toy(), Tally())


def step_of(example: Encoded[EncodedStep]) -> int:
    return int(example.id.rsplit("/", 1)[1])


def tensors(found: Sequence[Encoded[EncodedStep]]) -> dict[str, list[Tensor]]:
    return {e.id: [x for item in e.items for x in (item.state.x_CHW, item.sample_CHW)] for e in found}


def same(one: Sequence[Encoded[EncodedStep]], other: Sequence[Encoded[EncodedStep]]) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(x, y) for k in a for x, y in zip(a[k], b[k], strict=True))


def trajectories(judge: Watched | None = None, **options: Any) -> tuple[TrajectorySampler, Watched, Calls]:
    judge = judge or Watched("clean")
    scheduler = options.pop("scheduler", DDIMScheduler(**SD))
    guided, calls = guided_toy(Process.from_scheduler(scheduler))
    steps = inference_timesteps(scheduler, 4)
    sampler = TrajectorySampler(guided=guided, steps_S2=steps, shape=SHAPE, judge=judge, **options)
    return sampler, judge, calls
