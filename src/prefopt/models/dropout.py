"""Dropout off: policy and reference must agree at the start, and steps must repeat."""

from __future__ import annotations

from typing import Any

from torch import nn

NAMES = ("dropout", "pdrop", "layerdrop")
"""Parts of the names under which models and configurations keep a probability."""


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0, of modules, of floats that a forward pass reads, and in the configuration.

    The configuration that is saved is the checkpoint's all the same, see `saving`.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and value and any(part in name for part in NAMES):
                setattr(module, name, 0.0)
    _clear(getattr(model, "config", None))


def _clear(config: Any) -> None:
    """Also of the configurations inside."""
    for name, value in list(vars(config).items()) if hasattr(config, "__dict__") else []:
        if isinstance(value, float) and value and any(part in name for part in NAMES):
            setattr(config, name, 0.0)
        elif name in (getattr(config, "sub_configs", None) or {}):
            _clear(value)
