"""Optimizers and learning-rate schedules, by the names of torch and transformers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from prefopt.config import TrainConfig
from prefopt.models.loading import trainable_parameters


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """torch's optimizer of that name; biases and norms are not decayed."""
    decayed = [p for p in trainable_parameters(model) if p.dim() > 1]
    plain = [p for p in trainable_parameters(model) if p.dim() <= 1]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, config.weight_decay), (plain, 0.0))
        if params
    ]
    match config.optim:
        case "adamw":
            betas = (config.adam_beta1, config.adam_beta2)
            return torch.optim.AdamW(
                groups, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon, fused=can_fuse(groups)
            )
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=config.learning_rate, eps=config.adam_epsilon)
        case "sgd":
            return torch.optim.SGD(groups, lr=config.learning_rate)


def can_fuse(groups: list[dict[str, Any]]) -> bool:
    """Whether torch has a kernel that updates these parameters in one pass over memory."""
    parameters = [p for group in groups for p in group["params"]]
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)


def make_scheduler(config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Learning-rate schedule of transformers, by its name."""
    from transformers import get_scheduler

    warmup = config.warmup_steps or math.ceil(config.warmup_ratio * steps)
    name = (
        "constant_with_warmup"
        if config.lr_scheduler_type == "constant" and warmup
        else config.lr_scheduler_type
    )
    return get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
