"""What kind of run on images a folder holds."""

from __future__ import annotations

from collections.abc import Mapping

from prefopt.modalities.image import LORA_FILE
from prefopt.report.load import Run
from prefopt.report.loading import read_json


def is_judge(run: Run) -> bool:
    """True where what is trained scores images and draws none."""
    return bool(run.of("manifest", "model", "class") == "LatentRewardModel")


def looks_like_images(run: Run) -> bool:
    """True where a folder without a manifest looks like a run on images."""
    model = run.folder / "model"
    drawn_by = read_json(model / "model_index.json").get("_class_name", "")
    draws = (model / "model_index.json").is_file() and drawn_by != "MotionPipeline"
    return isinstance(run.data.get("images"), Mapping) or draws or (model / LORA_FILE).is_file()
