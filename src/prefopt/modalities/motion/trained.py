"""A trained text-to-motion pipeline, ready for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.config import read_yaml
from prefopt.modalities.models import folder_of
from prefopt.modalities.motion.models import INDEX, load_motion_model
from prefopt.motion.lora import LORA_FILE, load_lora


def load(run: Path) -> Any:
    """The pipeline that a run left in its folder `model` (adapters on the one that it started from), on the CPU.

    Raises:
        OSError: there is none, or the pipeline that its adapters belong to has gone.
    """
    folder = run / "model"
    if (folder / LORA_FILE).is_file() and not (folder / INDEX).is_file():
        source = folder_of(str(read_yaml(run / "config.yaml")["model"]))
        pipe = load_motion_model(source, trainable=False).pipe
        load_lora(pipe, folder)
        return pipe
    return load_motion_model(str(folder), trainable=False).pipe
