"""A text-to-image pipeline with a run's adapters merged, for plain diffusers.

Legend: B batch, C H W of the latents, S tokens, D width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.modalities.image import LORA_FILE
from prefopt.modalities.image.models.denoiser import Conditions, Family, denoise
from prefopt.modalities.image.models.pipelines import NETWORK, load_pipeline, stored_dtype
from prefopt.modalities.image.models.saving import write_trained
from prefopt.modalities.merging import Merged, check_same, difference
from prefopt.modalities.models import folder_of
from prefopt.models.loading import resolve_dtype
from prefopt.models.networks import merge_lora

COMPARED = "what the network gives for noise at three timesteps"
TIMESTEPS = (10.0, 400.0, 900.0)


def merge(adapter: Path, folder: Path, dtype: str | None, run: Mapping[str, Any]) -> Merged:
    """Merge; see `prefopt.modalities.merging`."""
    check_lora(adapter)
    base = folder_of(str(run["model"]))
    loaded = load_pipeline(base, dtype="float32", trainable=False)
    family, name = loaded.family, NETWORK[loaded.family]
    kind: Any = resolve_dtype(dtype) if dtype else stored_dtype(loaded.folder / name)
    loaded.pipe.load_lora_weights(adapter)
    before = some_outputs(family, loaded.denoiser)
    merge_lora(loaded.denoiser)
    worst = check_same(before, some_outputs(family, loaded.denoiser), COMPARED)
    loaded.denoiser.to(kind)
    write_trained(folder, loaded)
    again = load_pipeline(str(folder), dtype="float32", trainable=False)
    stored = difference(before, some_outputs(family, again.denoiser))
    return Merged(folder, base, str(kind).removeprefix("torch."), COMPARED, worst, stored)


def check_lora(adapter: Path, file: str = LORA_FILE) -> None:
    """Raise ValueError unless a run left adapters."""
    if not (adapter / file).is_file():
        raise ValueError(f"{adapter} holds no adapters ({file}): there is nothing to merge")


@torch.no_grad()
def some_outputs(family: Family, network: Any) -> Tensor:
    """(B, C, H, W) what a network gives for fixed noise and conditions."""
    x_BCHW, told = some_inputs(family, network.config)
    return denoise(family, network, x_BCHW, torch.tensor(TIMESTEPS), Conditions(told)).float()


def some_inputs(family: Family, config: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Noise (B, C, H, W) and conditions by name, of the shapes that a network's configuration asks for."""
    draw, count = torch.Generator().manual_seed(0), len(TIMESTEPS)
    side = min(int(config.sample_size), 16)
    x_BCHW = torch.randn(count, config.in_channels, side, side, generator=draw)
    width = config.joint_attention_dim if family == "sd3" else config.cross_attention_dim
    told = {"prompt_embeds": torch.randn(count, 8, width, generator=draw)}
    if family == "sd3":
        told["pooled_prompt_embeds"] = torch.randn(count, config.pooled_projection_dim, generator=draw)
    if family == "sdxl":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        told["pooled_prompt_embeds"] = torch.randn(count, pooled, generator=draw)
        told["time_ids"] = torch.full((count, 6), 8.0 * side)
    return x_BCHW, told
