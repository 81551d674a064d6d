"""Modalities: for each, how a run loads its data and model, draws samples and saves; the rest of a run is shared."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

from prefopt.modalities.base import Context, Sampler, Setup
from prefopt.training.data import WORLD_PREFIX

__all__ = ["Context", "Sampler", "Setup", "modality_of", "set_up"]


@cache
def modality_of(model: str) -> str:
    """The modality of a model: its world's, or by what its folder or hub repository holds."""
    if model.startswith(WORLD_PREFIX):
        return "image" if model.removeprefix(WORLD_PREFIX) == "picture" else "text"
    folder = Path(model).expanduser()
    if (folder / "config.json").exists() or (folder / "adapter_config.json").exists():
        return "text"
    from prefopt.models.pipelines import is_pipeline

    return "image" if is_pipeline(model) else "text"


def set_up(context: Context) -> Setup:
    """Everything of a run that depends on its modality."""
    module: Any = importlib.import_module(f"prefopt.modalities.{modality_of(context.config.model)}")
    result: Setup = module.set_up(context)
    return result
