"""E1 of `prefopt reproduce bpo`: every Bregman loss ends at DPO's optimum; f-PO and f-DPO do not.

Shapes: K responses, E pairs of them.
"""

from __future__ import annotations

import torch

from prefopt import objectives
from prefopt.objectives.base import Objective
from prefopt.reproduce import tabular
from prefopt.reproduce.bpo.losses import LAMBDAS
from prefopt.reproduce.core import Part, Ticker, directional, silent, within


def bregman_members(beta: float) -> dict[str, Objective]:
    """The losses whose optimum must be DPO's. No clip: theorems are about the losses themselves."""
    free = {"beta": beta, "allow_unbounded": True}
    return {
        "LR (= DPO)": objectives.get("bpo", h="lr", beta=beta),
        "KLIEP": objectives.get("bpo", h="kliep", **free),
        "LSIF": objectives.get("bpo", h="lsif", **free),
        "BA(0.5)": objectives.get("bpo", h="ba", lambda_=0.5, **free),
        **{f"SBA({x:g})": objectives.get("bpo", h="sba", lambda_=x, **free) for x in LAMBDAS[:-1]},
    }


def other_divergences(beta: float) -> dict[str, Objective]:
    """Losses that move the optimum, by the paper's Table 1."""
    return {
        "f-PO Jeffrey": objectives.get("f_po", f="jeffrey", beta=beta, label_smoothing=0.0),
        "f-DPO JS": objectives.get("f_dpo", f="js", beta=beta),
    }


def distance_to_optimum(seed: int, objective: Objective, responses: int, beta: float) -> float:
    """max |pi - pi*| after minimising the exact population loss of one random Bradley-Terry task."""
    generator = torch.Generator().manual_seed(seed)
    reward_K, ref_K = torch.randn(2, responses, generator=generator, dtype=torch.float64)
    log_ref_K = ref_K.log_softmax(-1)
    first_E, second_E = tabular.pairs(responses)
    win_E = torch.sigmoid(reward_K[first_E] - reward_K[second_E])
    policy_K = tabular.minimise(
        objective, log_ref_K, torch.stack([win_E, 1 - win_E, torch.zeros_like(win_E)], dim=-1)
    )
    star_K = (log_ref_K + reward_K / beta).softmax(-1)
    return float((policy_K - star_K).abs().max())


def exact_optimality(seeds: range, ticker: Ticker = silent, responses: int = 5, beta: float = 0.5) -> Part:
    """E1: Theorems 2 and 3."""
    members, others = bregman_members(beta), other_divergences(beta)
    tick = ticker("bpo E1: exact optima", len(members) + len(others))
    distances: dict[str, list[float]] = {}
    for name, objective in (members | others).items():
        distances[name] = [distance_to_optimum(seed, objective, responses, beta) for seed in seeds]
        tick()
    result = Part()
    for name in members:
        result.claims.append(
            within(
                f"E1: the optimum of {name} is DPO's pi*",
                distances[name],
                1e-6,
                source="Theorems 2 and 3",
                how=f"largest |pi - pi*| over {responses} responses, exact population loss, float64",
            )
        )
    for name in others:
        result.claims.append(
            directional(
                f"E1: the optimum of {name} is another one",
                distances[name],
                source="Table 1",
                how="largest |pi - pi*| after the same minimisation",
            )
        )
    result.settings["E1"] = {"seeds": len(seeds), "responses": responses, "beta": beta, "optimizer": "L-BFGS"}
    return result
