"""A trained pipeline or judge, ready for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefopt.config import read_yaml
from prefopt.modalities.image import LORA_FILE
from prefopt.modalities.image.models.latent_reward_files import is_judge
from prefopt.modalities.image.models.pipelines import load_pipeline
from prefopt.modalities.models import folder_of


def load(run: Path) -> Any:
    """The pipeline that a run left in its folder `model` (adapters in the one that it started from), or the judge; on the CPU.

    Raises:
        OSError: there is none, or the pipeline that its adapters belong to has gone.
    """
    folder = run / "model"
    if (folder / LORA_FILE).is_file() and not (folder / "model_index.json").is_file():
        source = folder_of(str(read_yaml(run / "config.yaml")["model"]))
        loaded = load_pipeline(source, trainable=False)
        loaded.pipe.load_lora_weights(folder)
        loaded.denoiser.requires_grad_(False)
        return loaded.pipe
    if is_judge(folder):
        from prefopt.modalities.image.models.latent_reward import LatentRewardModel

        return LatentRewardModel.from_pretrained(folder)
    return load_pipeline(str(folder), trainable=False).pipe
