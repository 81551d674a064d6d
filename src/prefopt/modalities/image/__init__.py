"""Images: text-to-image pipelines of diffusers, denoising errors and reverse steps, generated samples."""

from __future__ import annotations

import json
from pathlib import Path

from prefopt.modalities.base import Modality

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls a file of adapters."""


def claims(model: str) -> bool:
    """Whether a folder or hub id holds a pipeline of diffusers."""
    from prefopt.modalities.image.models.pipelines import is_pipeline

    return is_pipeline(model) and not of_this_package(model)


def of_this_package(model: str) -> bool:
    """Whether a folder is a pipeline with parts of this package, which other modalities train."""
    try:
        index = json.loads((Path(model).expanduser() / "model_index.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    parts = index.values() if isinstance(index, dict) else ()
    return any(isinstance(part, list) and str(part[:1]).startswith("['prefopt.") for part in parts)


MODALITY = Modality(
    name="image",
    noun="image",
    traits=frozenset({"image", "text_to_image", "denoising", "adapters", "candidates"}),
    model="the folder of a diffusers pipeline (with model_index.json)",
    claims=claims,
    package=__name__,
)
