"""Golden vectors of image diffusion, and log-ratios made from predictions by the plain formulas of the papers.

Legend: E comparisons; further dimensions are those of a latent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

DATA = Path(__file__).parents[1] / "data"
CASES = [
    {**case, "id": f"{file}:{case['name']}"}
    for file in ("diffusion_baselines", "lpo", "gradspo")
    for case in json.loads((DATA / f"{file}.json").read_text())
]
EXACT = {"rtol": 1e-10, "atol": 1e-14}


def cases(*kinds: str) -> pytest.MarkDecorator:
    """Every vector of these kinds."""
    found = [c for c in CASES if c["inputs"]["kind"] in kinds]
    assert {c["inputs"]["kind"] for c in found} == set(kinds)
    return pytest.mark.parametrize("case", found, ids=lambda c: c["id"])


def exact(x: Any) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def leaf(x: Any) -> Tensor:
    return exact(x).requires_grad_()


def close(got: Tensor, expected: Any, **tolerance: float) -> None:
    torch.testing.assert_close(got.detach(), exact(expected), **{**EXACT, **tolerance})


def grads(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def mean(x_E: Tensor) -> Tensor:
    """(E,) means over everything but comparisons."""
    return x_E.flatten(1).mean(1)


def per_example(x_E: Tensor, like: Tensor) -> Tensor:
    """(E,) numbers, to be multiplied with (E, ...) latents."""
    return x_E.reshape(-1, *[1] * (like.dim() - 1))


def transition(x: Tensor, eps: Tensor, a: Tensor, a_prev: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a reverse DDIM step."""
    sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)).sqrt()
    a, a_prev, s = (per_example(v, x) for v in (a, a_prev, sigma))
    x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
    return a_prev.sqrt() * x0 + (1 - a_prev - s**2).clamp(min=0).sqrt() * eps, s


def step_log_ratio(y: Tensor, mu: Tensor, mu_ref: Tensor, sigma: Tensor, total: bool = False) -> Tensor:
    """(E,) log-ratios of one Gaussian step."""
    squares = ((y - mu_ref) ** 2 - (y - mu) ** 2) / (2 * sigma**2)
    return squares.flatten(1).sum(1) if total else mean(squares)


def spo(case: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
    """The policy's prediction and both sides' log-ratios under the transition likelihood."""
    inputs = case["inputs"]
    eps, x_t = leaf(inputs["eps_theta"]), exact(inputs["x_t"])
    schedule = (exact(inputs["alphas_cumprod_t"]), exact(inputs["alphas_cumprod_prev"]), inputs["eta"])
    mu, sigma = transition(x_t, eps, *schedule)
    mu_ref, _ = transition(x_t, exact(inputs["eps_ref"]), *schedule)
    candidates = (exact(inputs[f"x_prev_{side}"]) for side in ("best", "worst"))
    return eps, [step_log_ratio(y, mu, mu_ref, sigma) for y in candidates]


def guided_targets(inputs: dict[str, Any], anchor: Tensor) -> list[Tensor]:
    """What GradSPO pulls the winner's and the loser's branch to."""
    best, worst = exact(inputs["noise_best"]), exact(inputs["noise_worst"])
    if inputs["average_noise"]:
        best = (best - worst) / 2
        worst = -best
    k = inputs["grad_scale"] * torch.ones(len(best), dtype=torch.float64)
    if inputs["temporal_weight"] != "uniform":
        assert inputs["temporal_weight"] == "sqrt_one_minus_abar"
        k = k * (1 - exact(inputs["alphas_cumprod_t"])).sqrt()
    return [anchor - per_example(k, anchor) * noise for noise in (best, worst)]


def gradspo(case: dict[str, Any], anchor: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The policy's prediction and both sides' log-ratios under the guided likelihood."""
    inputs = case["inputs"]
    eps, eps_ref = leaf(inputs["eps_theta"]), exact(inputs["eps_ref"])
    targets = guided_targets(inputs, exact(inputs["eps_ema"]) if anchor is None else anchor)
    return eps, [mean((eps_ref - y) ** 2 - (eps - y) ** 2) for y in targets]
