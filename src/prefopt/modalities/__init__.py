"""Modalities: for each, how a run loads its data and model, draws samples and saves; the rest of a run is shared."""

from __future__ import annotations

import importlib
from typing import Any

from prefopt.modalities.base import Context, Sampler, Setup

__all__ = ["Context", "Sampler", "Setup", "modality_of", "set_up"]


def modality_of(model: str) -> str:
    """The modality of a model: its world's, or by what its folder holds."""
    return "text"


def set_up(context: Context) -> Setup:
    """Everything of a run that depends on its modality."""
    module: Any = importlib.import_module(f"prefopt.modalities.{modality_of(context.config.model)}")
    result: Setup = module.set_up(context)
    return result
