"""f-divergences of a two-point model q = (sigma(v), sigma(-v)): f-PO's losses and BPO's f-PO ratio.

Everything is computed from v through log-probabilities. d = sigma(-v) is the loser's share.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefopt.objectives.stable import softplus

Generator = Literal["forward_kl", "reverse_kl", "jeffrey", "js", "alpha", "hellinger"]


def divergence(f: Generator, v: Tensor, e: float, alpha: float = 0.5) -> Tensor:
    """(E,) sum_i p_i f(q_i / p_i) with the smoothed label p = (1-e, e), 0 < e < 1/2.

    f: forward_kl -log t; reverse_kl t log t; jeffrey (t-1) log t; js [t log t - (1+t) log((1+t)/2)] / 2;
    alpha (t^{1-a} - (1-a) t - a) / (a (a-1)); hellinger (sqrt t - 1)^2.
    """
    total = torch.zeros_like(v)
    for z, p in ((v, 1 - e), (-v, e)):
        log_q, log_p = logsigmoid(z), math.log(p)
        q, log_t = log_q.exp(), log_q - log_p
        match f:
            case "forward_kl":
                term = -p * log_t
            case "reverse_kl":
                term = q * log_t
            case "jeffrey":
                term = (q - p) * log_t
            case "js":
                term = 0.5 * (q * log_t - (p + q) * (torch.log(p + q) - log_p - math.log(2)))
            case "alpha":  # the terms linear in t sum to a constant
                term = (torch.exp(alpha * log_p + (1 - alpha) * log_q) - (1 - alpha) * q - alpha * p) / (
                    alpha * (alpha - 1)
                )
            case "hellinger":
                term = (torch.exp(log_q / 2) - math.sqrt(p)) ** 2
        total = total + term
    return total


def generator(f: Generator, v: Tensor, alpha: float = 0.5) -> Tensor:
    """(E,) f(sigma(v)): the winner's term alone, the limit of a hard label as BPO's comparison table has it."""
    if f == "reverse_kl":
        return torch.sigmoid(v) * logsigmoid(v)
    if f == "forward_kl":
        return softplus(-v)
    if f == "jeffrey":
        return torch.sigmoid(-v) * softplus(-v)
    return torch.exp(log_generator(f, v, alpha))


def log_generator(f: Generator, v: Tensor, alpha: float = 0.5) -> Tensor:
    """(E,) log f(sigma(v)) for the f that are positive on (0, 1).

    All but forward_kl vanish like d^2 as d -> 0; they are written as d^2 times a factor that stays away from 0.
    """
    log_softplus = _log_softplus(-v)
    log_d, d = logsigmoid(-v), torch.sigmoid(-v)
    match f:
        case "forward_kl":
            return log_softplus
        case "jeffrey":
            return log_d + log_softplus
        case "hellinger":
            return 2 * (log_d - torch.log1p(torch.exp(logsigmoid(v) / 2)))
        case "js":
            coefficients = [(1 - 2.0 ** (1 - k)) / (2 * k * (k - 1)) for k in range(2, 18)]
            log_1md = logsigmoid(v)
            direct = 0.5 * ((1 - d) * log_1md - (2 - d) * torch.log1p(-d / 2))
        case "alpha":
            a, binomial, coefficients = alpha, 1 - alpha, []
            for k in range(2, 18):  # (1 - d)^{1-a} by the binomial series
                binomial *= (1 - a - (k - 1)) / k
                coefficients.append(binomial * (-1) ** k / (a * (a - 1)))
            direct = (torch.exp((1 - a) * logsigmoid(v)) - (1 - a) * (1 - d) - a) / (a * (a - 1))
        case _:
            raise ValueError(f"f = {f!r} is negative on (0, 1), so its logarithm does not exist")
    small = d < 0.2
    d_small = torch.where(small, d, 0.0)
    series = torch.zeros_like(d)
    for coefficient in reversed(coefficients):
        series = series * d_small + coefficient
    return torch.where(small, 2 * log_d + torch.log(series), torch.log(torch.where(small, 1.0, direct)))


def _log_softplus(x: Tensor) -> Tensor:
    """(E,) log log(1 + e^x); about x where e^x underflows."""
    low = x < -30
    return torch.where(low, x, torch.log(softplus(torch.where(low, 0.0, x))))


__all__ = ["Generator", "divergence", "generator", "log_generator"]
