"""Scalar functions written so that neither value nor gradient overflows or cancels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) = -log sigma(-x).

    `torch.nn.functional.softplus` switches to x beyond 20, which is 1e-10 off in float64; this one is not.
    """
    return -logsigmoid(-x)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, by the branch that keeps its digits (switch at -log 2, Maechler 2012)."""
    near = x > -math.log(2)
    # the second branch is infinite near 0, and an infinite gradient survives torch.where as NaN
    return torch.where(near, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(torch.where(near, -1.0, x))))


def phi(p: float, z: Tensor) -> Tensor:
    """(e^{pz} - 1) / p, and its limit z at p = 0."""
    return torch.expm1(p * z) / p if p != 0 else z


def x_over_expm1(x: Tensor) -> Tensor:
    """x / (e^x - 1), and its limit 1 at x = 0."""
    near = x.abs() < 0.1
    small, away = torch.where(near, x, 0.0), torch.where(near, 1.0, x)
    # near 0 the gradient of the quotient is a difference of two numbers of size 1/x; the next term is below 1e-17
    s = small * small
    series = 1 - small / 2 + s / 12 * (1 - s / 60 * (1 - s / 42 * (1 - s / 40)))
    size = away.abs()  # exponentials of -|x| cannot overflow
    quotient = size / -torch.expm1(-size) * torch.exp(-torch.relu(away))
    return torch.where(near, series, quotient)


def log_expm1(x: float) -> float:
    """log(e^x - 1) of a plain number x >= 0; -inf at 0."""
    if x == 0:
        return -math.inf
    return x + math.log1p(-math.exp(-x)) if x > 1 else math.log(math.expm1(x))
