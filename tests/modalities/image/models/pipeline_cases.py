"""What the tests of pipelines share: kinds of tiny pipelines, prompts, and what plain diffusers makes of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.models.latent_reward import LatentRewardModel
from prefopt.modalities.image.models.pipelines import LoadedPipeline
from prefopt.modalities.image.models.tensors import encode_prompts
from tiny_pipelines import tiny_sd, tiny_sd3, tiny_sdxl

Folders = Callable[[str], Path]
PROMPTS = ["a red circle, top left", "", "two blue squares " * 20]
KINDS: dict[str, Callable[[Path], Path]] = {
    "sd": tiny_sd,
    "sd_v": lambda folder: tiny_sd(folder, prediction_type="v_prediction", scheduler="pndm"),
    "sdxl": tiny_sdxl,
    "sdxl_encoded_empty": lambda folder: tiny_sdxl(
        folder, scheduler="ddim", force_zeros_for_empty_prompt=False
    ),
    "sd3": tiny_sd3,
    "sd3_t5": lambda folder: tiny_sd3(folder, t5=True),
}
ONE_EACH = ["sd", "sdxl", "sd3"]
SIZES = [(64, 48, 0, 8, 32, 32)]


def plain(folder: Path) -> Any:
    """The pipeline by diffusers alone."""
    from diffusers import DiffusionPipeline

    index = json.loads((folder / "model_index.json").read_text())
    absent = {k: None for k, v in index.items() if v == [None, None]}
    pipe = DiffusionPipeline.from_pretrained(folder, use_safetensors=True, **absent)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sampled(pipe: Any, prompts: list[str], seeds: list[int], **options: Any) -> Tensor:
    """Images of the plain pipeline's call."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    images = pipe(prompts, generator=generators, num_inference_steps=3, output_type="pt", **options).images
    return images.float()


def noisy(loaded: LoadedPipeline, rows: int, seed: int = 0) -> Tensor:
    channels = loaded.denoiser.config.in_channels  # type: ignore[union-attr]
    return torch.randn(rows, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


def shake(loaded: LoadedPipeline, names: str = "") -> None:
    """Move every trainable weight, as training would."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in loaded.denoiser.named_parameters():
        if parameter.requires_grad and names in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


def conditions_of(loaded: LoadedPipeline, prompts: list[str]) -> Conditions:
    conditions = encode_prompts(loaded, prompts)
    return conditions.with_sizes(SIZES) if loaded.family == "sdxl" else conditions


def latents(judge: LatentRewardModel, n: int, seed: int = 0) -> Tensor:
    """Noise in the space of a judge."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, judge.config.latent_space.channels, 8, 8, generator=generator)
