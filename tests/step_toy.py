"""A network for steps that is linear in its parameters and computed place by place, so that batches change no bit.

output = a x_t + (b + d t / 1000) c(prompt)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.likelihoods.process import Process
from prefopt.likelihoods.steps import GuidedNetwork

SHAPE = (2, 3, 2)
SD: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def double(scheduler: Any) -> Any:
    """The same scheduler with its table computed in float64, as the vectors have it."""
    start, end = SD["beta_start"] ** 0.5, SD["beta_end"] ** 0.5
    scheduler.alphas_cumprod = (1 - torch.linspace(start, end, 1000, dtype=torch.float64) ** 2).cumprod(0)
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0].clone()
    return scheduler


class Toy(nn.Module):
    """One number a channel for each term."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32, scale: float = 0.5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name in "abd":
            value = scale * torch.randn(SHAPE[0], 1, 1, generator=generator, dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(value.to(dtype)))

    def forward(self, x_BCHW: Tensor, t_B: Tensor, c_BCHW: Tensor) -> Tensor:
        time_B111 = t_B.to(self.a.dtype).reshape(-1, 1, 1, 1) / 1000
        output: Tensor = self.a * x_BCHW + (self.b + self.d * time_B111) * c_BCHW.to(self.a.dtype)
        return output


@dataclass
class Calls:
    """Calls the toy, and remembers how many rows each call had and what they were."""

    rows: list[int] = field(default_factory=list)
    times: list[list[float]] = field(default_factory=list)

    def __call__(self, model: nn.Module, x: Tensor, t: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        assert len(x) == len(t) == len(conditions["c"])
        self.rows.append(len(x))
        self.times.append(t.tolist())
        output: Tensor = model(x, t, conditions["c"])
        return output


def conditions(prompts: Sequence[str]) -> dict[str, Tensor]:
    """An own picture for every prompt, the empty one's too."""
    return {"c": torch.stack([picture(prompt) for prompt in prompts])}


def picture(prompt: str) -> Tensor:
    seed = int.from_bytes(prompt.encode().ljust(4)[-4:], "little")
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def guided_toy(process: Process, scale: float = 1.0) -> tuple[GuidedNetwork, Calls]:
    calls = Calls()
    return GuidedNetwork(process=process, network=calls, conditions=conditions, scale=scale), calls


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
