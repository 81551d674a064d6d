"""T2 of `prefopt reproduce ties`: the ideal policies of both tie models against their closed forms.

Shapes: K responses, E pairs of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prefopt import objectives
from prefopt.reproduce import tabular
from prefopt.reproduce.core import Part, within


def ideal_policies(seeds: range, responses: int = 5, beta: float = 0.5) -> Part:
    """T2: the minimiser of the exact three-way cross-entropy is the closed-form ideal policy, for both tie models."""
    result = Part()
    for name, nu, origin in (
        ("dpo_rk", 3.0, "closed form derived here: d* = log nu + logit P(win)"),
        ("dpo_d", 1.0, "Theorem 1: ratio* = reference ratio (2 nu P(win) / P(tie))^(2 / beta)"),
    ):
        errors = [ideal_policy_error(seed, name, nu, responses, beta) for seed in seeds]
        result.claims.append(
            within(
                f"T2: {name} trained on exact outcome shares reaches the ideal policy",
                errors,
                1e-6,
                source=origin,
                how=f"largest |pi - pi*| over {responses} responses, exact population loss, float64",
            )
        )
    result.settings["T2"] = {"seeds": len(seeds), "responses": responses, "beta": beta, "optimizer": "L-BFGS"}
    return result


def ideal_policy_error(seed: int, name: str, nu: float, responses: int, beta: float) -> float:
    """Largest difference between the trained and the closed-form policy of one random task."""
    generator = torch.Generator().manual_seed(seed)
    reward_K, ref_K = torch.randn(2, responses, generator=generator, dtype=torch.float64)
    log_ref_K = ref_K.log_softmax(-1)
    first_E, second_E = tabular.pairs(responses)
    shares_E3 = outcome_shares(name, nu, reward_K[first_E] - reward_K[second_E])
    win_E, _, tie_E = shares_E3.unbind(-1)
    # reward margins of the ideal policy, each from the gold probabilities alone
    d_E = math.log(nu) + win_E.logit() if name == "dpo_rk" else 2 * (2 * nu * win_E / tie_E).log()
    # d to the first response fixes the whole policy
    star_K = torch.cat([torch.zeros(1, dtype=torch.float64), -d_E[: responses - 1]]) / beta + log_ref_K
    policy_K = tabular.minimise(objectives.get(name, beta=beta, nu=nu), log_ref_K, shares_E3)
    return float((policy_K - star_K.softmax(-1)).abs().max())


def outcome_shares(name: str, nu: float, d_E: Tensor) -> Tensor:
    """(E, 3) gold probabilities (win, lose, tie) in strength form, written apart from the objectives' margin form."""
    strong_E, weak_E = d_E.exp(), torch.ones_like(d_E)
    if name == "dpo_rk":
        a_E, b_E = strong_E + nu * weak_E, weak_E + nu * strong_E
        return torch.stack(
            [strong_E / a_E, weak_E / b_E, (nu**2 - 1) * strong_E * weak_E / (a_E * b_E)], dim=-1
        )
    tie_E = 2 * nu * (strong_E * weak_E).sqrt()
    return torch.stack([strong_E, weak_E, tie_E], dim=-1) / (strong_E + weak_E + tie_E)[:, None]
