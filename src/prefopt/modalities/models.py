"""Which model a configuration means, and the adapters that it asks for: the same for every modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.config import TrainConfig
from prefopt.models.loading import LoraSettings
from prefopt.worlds import world_of


def lora_settings(config: TrainConfig) -> LoraSettings | None:
    """Adapters as configured."""
    if not config.use_peft:
        return None
    return LoraSettings(
        r=config.lora_r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
    )


def model_folder(source: str, accelerator: Any) -> str:
    """A model source with worlds replaced by the folder of their pretrained model."""
    world = world_of(source)
    if world is None:
        return str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    with accelerator.main_process_first():
        return str(world.model_dir(progress=accelerator.is_main_process))
