"""What a migrated configuration says of its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = (
    "method", "beta", "lambda", "gamma", "a", "loss_weights", "average", "label_smoothing", "margin", "desirable_weight",
    "undesirable_weight",
)  # fmt: skip


def of_loss(config: Mapping[str, Any]) -> dict[str, Any]:
    """Its keys that belong to the loss."""
    return {key: config[key] for key in KEYS if key in config}
