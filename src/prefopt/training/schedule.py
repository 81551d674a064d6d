"""Learning rates along a run: transformers' schedules, functions of the step or followers of an evaluated metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from prefopt.config import ConfigError, TrainConfig

FOLLOWERS = frozenset({"reduce_lr_on_plateau", "greedy"})
"""Schedules that move at evaluations."""


class LearningRate:
    """The schedule of one run.

    Args:
        schedule: as transformers makes it.
        follows: whether it moves at evaluations and not with every step.
    """

    def __init__(self, schedule: Any, follows: bool) -> None:
        self.schedule, self.follows = schedule, follows

    def step(self) -> None:
        """One step was taken."""
        if not self.follows:
            self.schedule.step()

    def judged(self, value: float) -> None:
        """The metric that it follows has this value now."""
        if self.follows:
            self.schedule.step(value)

    def latest(self) -> float:
        """The rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def move_to(self, step: int) -> None:
        """Take the rate that the schedule has after a step, whatever it was; a follower goes on from where it is."""
        if self.follows:
            return
        schedule = self.schedule
        rates = [base * rate(step) for base, rate in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
        for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        schedule._last_lr = rates  # torch's own place of what get_last_lr() tells

    def state(self) -> dict[str, Any]:
        """Plain numbers; functions of the step are rebuilt from the configuration, never stored."""
        return {k: v for k, v in self.schedule.state_dict().items() if k != "lr_lambdas"}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        functions = getattr(self.schedule, "lr_lambdas", None)
        kept = {} if functions is None else {"lr_lambdas": [None] * len(functions)}
        self.schedule.load_state_dict({**state, **kept})


def make_learning_rate(
    config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int, greater_is_better: bool
) -> LearningRate:
    """The schedule of a configuration.

    Args:
        config: its `lr_scheduler_type`, `lr_scheduler_kwargs` and warm-up.
        optimizer: whose rate moves.
        steps: optimizer steps of the run.
        greater_is_better: of the metric that a follower follows.

    Raises:
        ConfigError: the schedule takes no such argument, needs one that is not given, or has no warm-up.
    """
    from transformers import get_scheduler

    name, given = config.lr_scheduler_type, dict(config.lr_scheduler_kwargs)
    warmup = warmup_steps(config, steps)
    if name == "constant" and warmup:
        name = "constant_with_warmup"
    if name in FOLLOWERS:
        if warmup:
            raise ConfigError(f"{name} has no warm-up: leave out warmup_steps and warmup_ratio")
        given.setdefault("mode", "max" if greater_is_better else "min")
    if name in ("constant", "constant_with_warmup") and given:
        raise ConfigError(f"{name} takes no lr_scheduler_kwargs; given {given}")
    if name == "warmup_stable_decay" and "num_decay_steps" not in given:
        raise ConfigError(
            "warmup_stable_decay needs the steps of its end: lr_scheduler_kwargs='{num_decay_steps: 100}'"
        )
    try:
        made = get_scheduler(
            name,
            optimizer,
            num_warmup_steps=warmup,
            num_training_steps=steps,
            scheduler_specific_kwargs=given,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"lr_scheduler_type={name} with lr_scheduler_kwargs {given}: {error}") from None
    return LearningRate(made, name in FOLLOWERS)


def warmup_steps(config: TrainConfig, steps: int) -> int:
    """Steps of warm-up, of a number or a share of the run.

    Raises:
        ConfigError: both are given.
    """
    if config.warmup_steps and config.warmup_ratio:
        raise ConfigError("warmup_steps and warmup_ratio are both given: leave one out")
    share = config.warmup_ratio or (config.warmup_steps if config.warmup_steps < 1 else 0)
    return math.ceil(share * steps) if share else int(config.warmup_steps)
