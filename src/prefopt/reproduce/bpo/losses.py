"""The losses that `prefopt reproduce bpo` compares."""

from __future__ import annotations

from prefopt import objectives
from prefopt.objectives.base import Objective

LAMBDAS = (-0.5, 0.0, 0.5, 1.2, 2.0)
R_MIN = 0.01


def sba(lambda_: float, beta: float = 1.0, r_min: float | None = R_MIN) -> Objective:
    """SBA with R clipped from below, or not at all for None."""
    return objectives.get(
        "bpo", h="sba", lambda_=lambda_, beta=beta, r_min=r_min, allow_unbounded=r_min is None
    )


def ba(lambda_: float, beta: float = 1.0) -> Objective:
    """BA with the same clip."""
    return objectives.get("bpo", h="ba", lambda_=lambda_, beta=beta, r_min=R_MIN)


def clipped_dpo(beta: float = 1.0) -> Objective:
    """DPO with the clip that SBA needs: the ablation that tells a new loss from a cap on margins."""
    return objectives.get("bpo", h="lr", beta=beta, r_min=R_MIN)
