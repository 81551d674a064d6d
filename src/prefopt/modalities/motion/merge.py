"""A text-to-motion pipeline with a run's adapters merged.

Legend: B motions, F frames, D features, E width of a text's embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.modalities.merging import Merged, check_same, difference
from prefopt.modalities.models import folder_of
from prefopt.modalities.motion.models import denoise_motion, load_motion_model, write_trained
from prefopt.models.loading import resolve_dtype
from prefopt.models.networks import merge_lora
from prefopt.motion.lora import LORA_FILE, load_lora

COMPARED = "what the denoiser gives for noise at three timesteps"
TIMESTEPS = (1, 20, 40)


def merge(adapter: Path, folder: Path, dtype: str | None, run: Mapping[str, Any]) -> Merged:
    """Merge; see `prefopt.modalities.merging`."""
    if not (adapter / LORA_FILE).is_file():
        raise ValueError(f"{adapter} holds no adapters ({LORA_FILE}): there is nothing to merge")
    base = folder_of(str(run["model"]))
    loaded = load_motion_model(base, dtype="float32", trainable=False)
    load_lora(loaded.pipe, adapter)
    before = some_outputs(loaded.model)
    merge_lora(loaded.model)
    worst = check_same(before, some_outputs(loaded.model), COMPARED)
    loaded.model.to(resolve_dtype(dtype or "float32"))
    write_trained(folder, loaded)
    again = load_motion_model(str(folder), dtype="float32", trainable=False)
    return Merged(
        folder, base, dtype or "float32", COMPARED, worst, difference(before, some_outputs(again.model))
    )


@torch.no_grad()
def some_outputs(network: Any) -> Tensor:
    """(B, F, D) what a denoiser gives for fixed noise and texts."""
    config, draw, count = network.config, torch.Generator().manual_seed(0), len(TIMESTEPS)
    frames = min(int(config.max_frames), 16)
    x_BFD = torch.randn(count, frames, int(config.features), generator=draw)
    told = {
        "text": torch.randn(count, int(config.text_width), generator=draw),
        "length": torch.full((count,), frames),
    }
    return denoise_motion(network, x_BFD, torch.tensor(TIMESTEPS), told).float()
