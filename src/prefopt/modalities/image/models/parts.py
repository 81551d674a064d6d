"""The parts of a text-to-image pipeline that a latent reward model is made of."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.modalities.image.models.denoiser import Family
from prefopt.modalities.image.models.pipelines import FAMILIES, NETWORK, load_pipeline
from prefopt.models.loading import resolve_dtype
from prefopt.models.loading_report import load_whole


@dataclass
class PipelineParts:
    """What of a pipeline a judge needs; network and encoders are the judge's own.

    Attributes:
        family: sd, sdxl or sd3.
        network: U-Net or transformer.
        text_encoders, tokenizers: one (sd), two (sdxl) or three (sd3, the last may be None).
        vae, scheduler: for the identity of the latent space and of the timesteps.
        text_projection_EE: of sd's text encoder where it has one; the encoder is then its trunk.
    """

    family: Family
    network: Any
    text_encoders: list[Any]
    tokenizers: list[Any]
    vae: Any
    scheduler: Any
    text_projection_EE: Tensor | None = None


def load_parts(source: Any, dtype: str = "float32") -> PipelineParts:
    """Parts of a pipeline folder, hub id, diffusers pipeline or `LoadedPipeline`; of the last two, copies.

    Raises:
        FileNotFoundError: no pipeline there.
        ValueError: no text-to-image model of a known family, or a part is missing.
    """
    if isinstance(source, str | Path):
        pipe = load_pipeline(str(source), dtype=dtype, trainable=False).pipe
    else:
        pipe = getattr(source, "pipe", source)
    name = type(pipe).__name__
    if name not in FAMILIES:
        raise ValueError(f"a judge cannot be made of a {name}; supported are {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    kind = resolve_dtype(dtype)

    def part(name: str, needed: bool = True) -> Any:
        found = getattr(pipe, name, None)
        if found is None and needed:
            raise ValueError(f"the pipeline has no {name}, which a judge needs: load it whole")
        if name == "vae" or not isinstance(found, torch.nn.Module):
            return found
        if not isinstance(source, str | Path):
            found = copy.deepcopy(found)
        found.requires_grad_(True)
        return found.to(kind) if isinstance(kind, torch.dtype) and found.dtype != kind else found

    suffixes = {"sd": [""], "sdxl": ["", "_2"], "sd3": ["", "_2", "_3"]}[family]
    encoders = [part(f"text_encoder{suffix}", suffix != "_3") for suffix in suffixes]
    projection = None
    if family == "sd" and hasattr(encoders[0], "text_projection"):
        projection = encoders[0].text_projection.weight.detach().clone()
        encoders[0] = encoders[0].text_model
    return PipelineParts(
        family=family,
        network=part(NETWORK[family]),
        text_encoders=encoders,
        tokenizers=[part(f"tokenizer{suffix}", suffix != "_3") for suffix in suffixes],
        vae=part("vae"),
        scheduler=part("scheduler"),
        text_projection_EE=projection,
    )


def load_text_projection(source: str | Path) -> Tensor:
    """The text projection of a CLIP checkpoint, (embedding width, text width)."""
    from transformers import CLIPTextModelWithProjection

    model = load_whole(CLIPTextModelWithProjection, source, part=True, dtype=torch.float32)
    weight: Tensor = model.text_projection.weight.detach().clone()
    return weight
