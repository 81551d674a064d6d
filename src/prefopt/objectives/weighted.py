"""Objectives that are a weighted sum of named terms, some of which read further branches.

Symbols and shapes: see `base.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State, require
from prefopt.objectives.sides import Sides
from prefopt.objectives.stable import softplus

Terms = Mapping[str, tuple[float, Callable[[Sides], Tensor]]]
"""Weight and function of every term, by name."""


@dataclass(frozen=True, kw_only=True)
class Weighted(Objective):
    """Base: a sum of terms. A term of weight 0 is not computed, so what it alone would read may be absent.

    Attributes:
        beta: scale from log-ratio to reward, > 0.
    """

    label: ClassVar[str]
    """What the names of its metrics begin with."""
    beta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive; given {self.beta}")
        for f in fields(self):
            if f.name.endswith("_weight"):
                value = getattr(self, f.name)
                require(value >= 0, f"{f.name} must not be negative; given {value}")
        require(
            any(weight > 0 for weight, _ in self.terms.values()),
            f"all terms of {self.label} have weight 0, so nothing would be learned: give at least one a positive weight",
        )

    @property
    def terms(self) -> Terms:
        """All terms, those of weight 0 included."""
        raise NotImplementedError

    def preferred(self, m: Tensor) -> Tensor:
        """(E,) -log sigma(beta m): the loss of preferring one thing to another by m nats."""
        return softplus(-self.beta * m)

    def win_loss(self, sides: Sides, state: State) -> Tensor:
        """(E,) losses."""
        total_E = torch.zeros_like(sides.rho_w)
        for weight, term in self.terms.values():
            if weight > 0:
                total_E = total_E + weight * term(sides)
        return total_E

    def diagnostics(self, sides: Sides, state: State) -> dict[str, Tensor]:
        """Every term before its weight, and the rewards of the branches."""
        found = {
            f"{self.label}/{name}": term(sides).detach()
            for name, (weight, term) in self.terms.items()
            if weight > 0
        }
        for name, branch in self.branches.items():
            if branch.reference:
                found[f"{self.label}/reward_{name}"] = self.reward_scale * sides.rho(name).detach()
        return found


__all__ = ["Terms", "Weighted"]
