"""A trained vision-language model, ready for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.modalities.vision_language.processor import load_processor
from prefopt.models.loading import load_model
from prefopt.models.sources import PICTURED


def load(run: Path) -> tuple[Any, Any]:
    """Model and processor that a run left in its folder `model`, on the CPU.

    Raises:
        OSError: there is none, or the model that its adapters belong to has gone.
    """
    folder = str(run / "model")
    model: Any = load_model(folder, trainable=False, loader=PICTURED).model
    return model, load_processor(folder)
