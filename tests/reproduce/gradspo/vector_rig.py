"""A short vector world's size, and the model that knows its noise."""

from __future__ import annotations

import torch
from torch import nn

from prefopt.reproduce.gradspo.world import (
    MEAN,
    SHAPE,
    STD,
    Size,
)

SHORT = Size(pretrain_steps=250, states=24, rounds=2, prompts=16, test_samples=64)


class Exact(nn.Module):
    """The noise expected under the mixture, which is linear in x_t, plus a constant."""

    def __init__(self, process, shift=0.0):
        super().__init__()
        self.process = process
        self.shift = nn.Parameter(torch.tensor(shift), requires_grad=False)

    def forward(self, x, t_B, prompt_B):
        mean = torch.zeros(len(x), *SHAPE)
        for b, k in enumerate(prompt_B.tolist()):
            mean[b, 2 * k : 2 * k + 2] = MEAN
        alpha, sigma = (
            c.float().view(-1, 1, 1, 1) for c in (self.process.alpha(t_B), self.process.sigma(t_B))
        )
        return sigma * (x - alpha * mean) / ((alpha * STD) ** 2 + sigma**2) + self.shift
