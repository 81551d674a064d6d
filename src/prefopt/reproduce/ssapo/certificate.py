"""S2 of `prefopt reproduce ssapo`: does training against the adversary lower the loss that the adversary reaches?

Linear gaps xi = D theta of labelled pairs, a fixed window; the follower answers anew before each step.

Shapes: S seeds, N pairs, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prefopt import objectives
from prefopt.objectives.base import Objective
from prefopt.reproduce.core import Part, Table, Ticker, everywhere, silent
from prefopt.reproduce.paired import minus
from prefopt.sources.gap_losses import exact_margin
from prefopt.sources.worst_case import WorstCase, follower

PAIRS, FEATURES = 120, 12
WINDOW = (-6.0, 6.0)
PENALTY = 0.02
RADII = (0.1, 0.5, 1.0)
STEPS, RATE = 500, 0.05
LEADERS: dict[str, Objective] = {
    "DPO": objectives.get("dpo", beta=1.0),
    "shift": objectives.get("ssapo", beta=1.0, leader="shift"),
    "dual": objectives.get("ssapo", beta=1.0, leader="dual"),
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """Per seed: follower's value at the radius + penalty, and the observed loss + penalty."""

    worst_S: list[float]
    center_S: list[float]


def labelled_features(seeds: range) -> Tensor:
    """(S, N, D) feature differences, signed by Bradley-Terry labels of a random direction; float64."""
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        direction_D = torch.randn(FEATURES, generator=generator, dtype=torch.float64)
        delta_ND = torch.randn(PAIRS, FEATURES, generator=generator, dtype=torch.float64)
        win_N = torch.rand(PAIRS, generator=generator) < torch.sigmoid(delta_ND @ direction_D)
        rows.append(delta_ND * torch.where(win_N, 1.0, -1.0)[:, None])
    return torch.stack(rows)


def gaps(delta_SND: Tensor, theta_SD: Tensor) -> Tensor:
    """(S, N) linear gaps."""
    return (delta_SND @ theta_SD[:, :, None])[..., 0]


def answer(xi_SN: Tensor, epsilon: float) -> WorstCase:
    """The follower for every seed at once: a group each."""
    return follower(
        xi_SN.detach().numpy().ravel(),
        exact_margin,
        *WINDOW,
        epsilon,
        group_size=xi_SN.shape[1],
        clip=True,
    )


def train(objective: Objective, delta_SND: Tensor, epsilon: float, steps: int = STEPS) -> Tensor:
    """(S, D) parameters after Adam on all pairs, learning rate falling linearly to 0; epsilon 0: no adversary."""
    theta_SD = torch.zeros(len(delta_SND), FEATURES, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.Adam([theta_SD], lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1 - step / steps)
    for _ in range(steps):
        xi_SN = gaps(delta_SND, theta_SD)
        columns: dict[str, Tensor] = {}
        if epsilon > 0:
            found = answer(xi_SN, epsilon)
            columns = {
                "robust_moved": torch.from_numpy(found.moved_N),
                "robust_shift": torch.from_numpy(found.shift_N),
                "robust_lambda": torch.from_numpy(found.lambda_N),
                "robust_low": torch.full((xi_SN.numel(),), found.low, dtype=torch.float64),
            }
        flat = xi_SN.flatten()
        loss_SN = objective(flat, torch.zeros_like(flat), state=None, **columns).view_as(xi_SN)
        loss = loss_SN.mean(-1).sum() + PENALTY * theta_SD.square().sum()
        (theta_SD.grad,) = torch.autograd.grad(loss, theta_SD)
        opt.step()
        schedule.step()
    return theta_SD.detach()


def certify(delta_SND: Tensor, theta_SD: Tensor, epsilon: float) -> Certificate:
    """What the adversary reaches against these parameters."""
    xi_SN = gaps(delta_SND, theta_SD)
    found = answer(xi_SN, epsilon)
    xi_SN = xi_SN.clamp(*WINDOW)
    stay_SN = exact_margin(xi_SN.numpy())
    moved_SN = found.moved_N.reshape(stay_SN.shape)
    at_low = float(exact_margin(np.array([found.low]))[0])
    penalty_S = PENALTY * theta_SD.square().sum(-1).numpy()
    worst_S = ((1 - moved_SN) * stay_SN + moved_SN * at_low).mean(-1) + penalty_S
    return Certificate(worst_S.tolist(), (stay_SN.mean(-1) + penalty_S).tolist())


def certificate(seeds: range, ticker: Ticker = silent, steps: int = STEPS) -> Part:
    """S2."""
    tick = ticker("ssapo S2: certificate", 1 + 2 * len(RADII))
    delta_SND = labelled_features(seeds)
    plain_SD = train(LEADERS["DPO"], delta_SND, 0.0, steps)
    tick()
    found: dict[str, dict[float, Certificate]] = {"DPO": {e: certify(delta_SND, plain_SD, e) for e in RADII}}
    for leader in ("shift", "dual"):
        found[leader] = {}
        for epsilon in RADII:
            theta_SD = train(LEADERS[leader], delta_SND, epsilon, steps)
            found[leader][epsilon] = certify(delta_SND, theta_SD, epsilon)
            tick()
    result = Part()
    result.claims += [
        everywhere(
            f"S2: training against the adversary ({leader}) lowers the worst loss, at every radius",
            {f"epsilon {e:g}": minus(found["DPO"][e].worst_S, found[leader][e].worst_S) for e in RADII},
            source="Thms. 2.4 and 2.5: SGPO's worst case is near the best possible",
            how=f"DPO's worst loss at the radius, penalty included, minus {leader}'s",
            unit="nats",
        )
        for leader in ("shift", "dual")
    ]
    result.tables.append(
        Table(
            "S2: worst loss at the radius, and observed loss, with penalty (nats)",
            ["epsilon", "leader", "worst", "observed", "seeds with a lower worst loss than DPO (%)"],
            [
                [
                    e,
                    leader,
                    sum(c.worst_S) / len(seeds),
                    sum(c.center_S) / len(seeds),
                    100
                    * sum(a < b for a, b in zip(c.worst_S, found["DPO"][e].worst_S, strict=True))
                    / len(seeds),
                ]
                for e in RADII
                for leader, c in ((name, by[e]) for name, by in found.items())
            ],
        )
    )
    result.settings["S2"] = {
        "seeds": len(seeds),
        "pairs": PAIRS,
        "features": FEATURES,
        "window": WINDOW,
        "l2": PENALTY,
        "optimizer": f"Adam {RATE}, falling to 0 over {steps} steps",
        "follower": "before each step",
    }
    return result
