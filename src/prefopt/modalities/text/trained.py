"""A trained language model, ready for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.models.loading import load_model, load_tokenizer


def load(run: Path) -> tuple[Any, Any]:
    """Model and tokenizer that a run left in its folder `model`, on the CPU.

    Raises:
        OSError: there is none, or the model that its adapters belong to has gone.
    """
    folder = str(run / "model")
    model: Any = load_model(folder, trainable=False).model
    return model, load_tokenizer(folder)
