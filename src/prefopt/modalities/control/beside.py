"""A ControlNet beside a base pipeline: one of its own files, or a fresh one that starts from the base network's weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from prefopt.modalities.image.models.denoiser import Family
from prefopt.modalities.image.models.pipelines import NETWORK
from prefopt.models.loading_report import load_whole
from prefopt.models.sources import check_source, config_values

NEW = "new"
"""What asks for a fresh ControlNet in place of a folder or hub id."""
CONTROL = "controlnet"
"""The trained component of a pipeline."""
HINT_CHANNELS = (16, 32, 96, 256)
"""Of diffusers' own scripts: the layers that bring a control image down to the latents' size."""
ALIKE = (
    "in_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "addition_embed_type",
)
"""Settings that a ControlNet and its base network must share."""


def put_beside(pipe: Any, family: Family, source: str, seed: int) -> Any:
    """The ControlNet pipeline of a base pipeline (or of one whose ControlNet is to be another); of one dtype with it.

    Args:
        pipe: loaded; its parts are used as they are.
        family: of the pipeline.
        source: of the ControlNet: folder (of it, or of a pipeline that has one), hub id, or "new".
        seed: of the layers of a fresh one that the base has no weights for.

    Raises:
        FileNotFoundError, ValueError: there is no ControlNet, or it belongs to another base network.
    """
    from diffusers import StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline

    network = getattr(pipe, NETWORK[family])
    factor = int(pipe.vae_scale_factor)
    if source == NEW:
        controlnet = from_base(network, factor, seed).to(network.dtype)
    else:
        controlnet = from_files(source, network.dtype)
        check_fits(source, controlnet, network, factor)
    controlnet = controlnet.to(network.device)
    kind = StableDiffusionXLControlNetPipeline if family == "sdxl" else StableDiffusionControlNetPipeline
    options: dict[str, Any] = {}
    if family == "sdxl":
        options["force_zeros_for_empty_prompt"] = pipe.config.get("force_zeros_for_empty_prompt", True)
        options["add_watermarker"] = False
    else:
        options["requires_safety_checker"] = False
    parts = {name: part for name, part in pipe.components.items() if name != CONTROL}
    joined = kind(**parts, controlnet=controlnet, **options)
    joined.set_progress_bar_config(disable=True)
    return joined


def from_base(network: Any, factor: int, seed: int) -> Any:
    """A ControlNet that copies the base network's encoder and changes nothing yet, as diffusers' script starts one.

    Args:
        network: U-Net.
        factor: pixels a latent, a power of two: so much must a control image shrink.
        seed: of the layers that read control images.
    """
    from diffusers import ControlNetModel

    halvings = round(math.log2(factor))
    channels = (*HINT_CHANNELS, *HINT_CHANNELS[-1:] * halvings)[: halvings + 1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(network, conditioning_embedding_out_channels=channels)


def from_files(source: str, dtype: torch.dtype) -> Any:
    """A ControlNet from its folder or hub id, or from the folder of a pipeline that has one.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is of another class.
    """
    from diffusers import ControlNetModel

    folder = Path(source).expanduser()
    if (folder / CONTROL / "config.json").is_file():
        folder = folder / CONTROL
    place = str(folder) if folder.is_dir() else source
    check_source(place)
    name = config_values(place).get("_class_name", "no diffusers model")
    if name != ControlNetModel.__name__:
        raise ValueError(
            f"controlnet={source} is {name}: needed a ControlNetModel, as its save_pretrained writes it. T2I-Adapters and the "
            "ControlNets of flow models (SD3, Flux) cannot be trained here"
        )
    return load_whole(ControlNetModel, place, torch_dtype=dtype)


def check_fits(source: str, controlnet: Any, network: Any, factor: int) -> None:
    """Raise ValueError for a ControlNet that was made for another base network."""
    for name in ALIKE:
        own, base = (_plain(module.config.get(name)) for module in (controlnet, network))
        if own != base:
            raise ValueError(
                f"controlnet={source} has {name} = {own} and the base network {base}: it was made for another base; give the "
                "pipeline that it was trained on as model"
            )
    shrinks = 2 ** (len(controlnet.config.conditioning_embedding_out_channels) - 1)
    if shrinks != factor:
        raise ValueError(
            f"controlnet={source} makes control images {shrinks} times smaller, and the latents of this base are {factor} "
            "times smaller than its images: it was made for another base"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
