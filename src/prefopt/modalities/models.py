"""Which model a configuration means, its dtype, and the adapters that it asks for: the same for every modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.config import ConfigError, TrainConfig
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


def weight_dtype(config: TrainConfig) -> str:
    """bf16 weights round away updates at usual learning rates: full fine-tuning keeps float32."""
    return config.dtype if config.dtype != "auto" or config.use_peft else "float32"


def folder_of(source: str) -> str:
    """A model's source, a world replaced by the folder of its model."""
    world = world_of(source)
    return str(world.model_dir()) if world is not None else source


def model_folder(source: str, accelerator: Any) -> str:
    """The same for the processes of a run, of which the first makes the world's model; folders are spelled out."""
    world = world_of(source)
    if world is None:
        return str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source
    with accelerator.main_process_first():
        return str(world.model_dir(progress=accelerator.is_main_process))


def check_denoiser_settings(config: TrainConfig) -> None:
    """Raise ConfigError for settings that no denoiser is trained with, before anything is read."""
    if config.dtype == "float16" and not config.use_peft:
        raise ConfigError(
            "dtype=float16 is not possible when all weights are trained: small gradients and Adam's epsilon round to 0, "
            "and the network diverges. Leave dtype out (float32, whatever the files hold), or set use_peft=true"
        )
    if config.gradient_checkpointing == "auto":
        raise ConfigError("gradient_checkpointing=auto is for text models: set true or false")
