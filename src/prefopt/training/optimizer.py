"""Optimizers by the names of torch and transformers; those with states of eight bits are bitsandbytes'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from prefopt.config import ConfigError, TrainConfig
from prefopt.config.keys.optimization import adams_settings
from prefopt.models.loading import trainable_parameters

# name of the configuration -> class in bitsandbytes.optim, bits of its states, whether they are paged
BITSANDBYTES: Mapping[str, tuple[str, int, bool]] = {
    "adamw_8bit": ("AdamW", 8, False),
    "adamw_bnb_8bit": ("AdamW", 8, False),
    "paged_adamw_8bit": ("AdamW", 8, True),
    "paged_adamw_32bit": ("AdamW", 32, True),
    "ademamix": ("AdEMAMix", 32, False),
    "ademamix_8bit": ("AdEMAMix", 8, False),
    "paged_ademamix_8bit": ("AdEMAMix", 8, True),
    "paged_ademamix_32bit": ("AdEMAMix", 32, True),
    "lion_8bit": ("Lion", 8, False),
    "lion_32bit": ("Lion", 32, False),
    "paged_lion_8bit": ("Lion", 8, True),
    "paged_lion_32bit": ("Lion", 32, True),
    "rmsprop_bnb": ("RMSprop", 32, False),
    "rmsprop_bnb_8bit": ("RMSprop", 8, False),
    "rmsprop_bnb_32bit": ("RMSprop", 32, False),
}


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of that name on what is trainable; biases and norms are not decayed.

    Args:
        config: `optim`, its learning rate, betas, epsilon, decay and further `optim_args`.
        model: to train.

    Raises:
        ConfigError: bitsandbytes is not installed, or the optimizer takes no such argument.
    """
    decayed = [p for p in trainable_parameters(model) if p.dim() > 1]
    plain = [p for p in trainable_parameters(model) if p.dim() <= 1]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, config.weight_decay), (plain, 0.0))
        if params
    ]
    cls, given = optimizer_class(config)
    if config.optim in ("adamw", "adamw_torch_fused"):
        given["fused"] = can_fuse(groups)
    try:
        made: torch.optim.Optimizer = cls(groups, lr=config.learning_rate, **given | config.optim_args)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"optim={config.optim} could not be made with optim_args {config.optim_args}: {error}"
        ) from None
    return made


def optimizer_class(config: TrainConfig) -> tuple[Any, dict[str, Any]]:
    """The class of an optimizer, and what the configuration's own keys say of its arguments."""
    read = adams_settings(config.optim)
    given: dict[str, Any] = {}
    if "adam_beta1" in read:
        given["betas"] = (config.adam_beta1, config.adam_beta2)
    if "adam_epsilon" in read:
        given["eps"] = config.adam_epsilon
    match config.optim:
        case "adamw" | "adamw_torch" | "adamw_torch_fused":
            return torch.optim.AdamW, given
        case "rmsprop":
            return torch.optim.RMSprop, given
        case "adagrad":
            return torch.optim.Adagrad, given
        case "sgd":
            return torch.optim.SGD, given
        case "adafactor":
            from transformers.optimization import Adafactor

            # its own rates would stand beside learning_rate and schedule
            return Adafactor, {"scale_parameter": False, "relative_step": False}
    name, bits, paged = BITSANDBYTES[config.optim]
    given["optim_bits"] = bits
    if name != "RMSprop":
        given["is_paged"] = paged
    if name == "AdEMAMix":
        given["betas"] = (*given["betas"], 0.9999)
    return getattr(bitsandbytes_optimizers(config.optim), name), given


def bitsandbytes_optimizers(name: str) -> Any:
    """The module of bitsandbytes' optimizers.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from bitsandbytes import optim
    except ImportError:
        raise ConfigError(
            f"optim={name} is one of bitsandbytes', which is not installed: run `pip install prefopt[qlora]`, or take "
            "optim=adamw (or adafactor, whose states are small)"
        ) from None
    return optim


def can_fuse(groups: list[dict[str, Any]]) -> bool:
    """Whether torch has a kernel that updates these parameters in one pass over memory."""
    parameters = [p for group in groups for p in group["params"]]
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
