"""A trained ControlNet pipeline, ready for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.config import read_yaml
from prefopt.modalities.control.models import load_control
from prefopt.modalities.image import LORA_FILE
from prefopt.modalities.models import folder_of


def load(run: Path) -> Any:
    """The pipeline that a run left in its folder `model` (adapters in the one that it started from), on the CPU.

    Raises:
        OSError: there is none, or the pipeline that its adapters belong to has gone.
    """
    folder = run / "model"
    if not (folder / LORA_FILE).is_file():
        return load_control(str(folder), trainable=False).pipe
    config = read_yaml(run / "config.yaml")
    pipe = load_control(
        folder_of(str(config["model"])), controlnet=config.get("controlnet"), trainable=False
    ).pipe
    pipe.controlnet.load_lora_adapter(folder, weight_name=LORA_FILE, prefix=None)
    pipe.controlnet.requires_grad_(False)
    return pipe
