"""What kind of run on images a folder holds."""

from __future__ import annotations

from collections.abc import Mapping

from prefopt.modalities.image import LORA_FILE
from prefopt.report.load import Run


def is_judge(run: Run) -> bool:
    """True where what is trained scores images and draws none."""
    return bool(run.of("manifest", "model", "class") == "LatentRewardModel")


def looks_like_images(run: Run) -> bool:
    """True where a folder without a manifest looks like a run on images."""
    model = run.folder / "model"
    return isinstance(run.data.get("images"), Mapping) or any(
        (model / name).is_file() for name in ("model_index.json", LORA_FILE)
    )
