"""Prompts and images as tensors of a loaded pipeline, and samples from it.

Text goes through the pipeline's own `encode_prompt` and samples through its own call, so that both agree with plain
diffusers. The VAE works in float32, autocast or not.

Legend: B batch, C H W of images or latents.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.models.pipelines import LoadedPipeline, borrowed

EMBEDDINGS = ("prompt_embeds", "pooled_prompt_embeds")


@torch.no_grad()
def encode_prompts(loaded: LoadedPipeline, prompts: Sequence[str], batch_size: int = 32) -> Conditions:
    """Conditions of prompts, on the CPU, as generation makes them. The empty text is a text like any other here.

    Args:
        loaded: the pipeline.
        prompts: texts; what exceeds the encoders' length is cut, with one warning.
        batch_size: texts at a time; results do not depend on it.
    """
    if isinstance(prompts, str) or not prompts:
        raise ValueError(f"prompts must be a list of one or more texts; given {prompts!r}")
    limit = loaded.pipe.tokenizer.model_max_length
    lengths = [len(ids) for ids in loaded.pipe.tokenizer(list(prompts), verbose=False).input_ids]
    if long := sum(length > limit for length in lengths):
        warnings.warn(
            f"{long} of {len(prompts)} prompts have more than {limit} tokens: CLIP reads their start only",
            stacklevel=2,
        )
    with borrowed(loaded, "text_encoders"):
        parts = [
            _encode(loaded, list(prompts[start : start + batch_size]), unconditional=False)
            for start in range(0, len(prompts), batch_size)
        ]
    return Conditions.cat(parts)


@torch.no_grad()
def encode_unconditional(loaded: LoadedPipeline) -> Conditions:
    """The one row that stands for "no prompt" in guidance, by the pipeline's own rule (SDXL: usually zeros)."""
    with borrowed(loaded, "text_encoders"):
        return _encode(loaded, [""], unconditional=True)


def _encode(loaded: LoadedPipeline, prompts: list[str], unconditional: bool) -> Conditions:
    same: dict[str, Any] = {"sd": {}, "sdxl": {"prompt_2": None}, "sd3": {"prompt_2": None, "prompt_3": None}}
    with torch.autocast(loaded.device.type, enabled=False), _quiet():
        out = loaded.pipe.encode_prompt(
            prompt=prompts,
            device=loaded.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=unconditional,
            **same[loaded.family],
        )
    # embeddings, unconditional ones, and both again pooled
    mine = out[1::2] if unconditional else out[0::2]
    return Conditions(dict(zip(EMBEDDINGS, mine, strict=False))).to("cpu")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of diffusers, which repeat all texts of a batch when one of them is cut."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


# -- images --------------------------------------------------------------------------------------------------


@torch.no_grad()
def encode_images(loaded: LoadedPipeline, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the VAE's posterior, (B, C, H, W) float32 each, scaled as the network takes them.

    Args:
        loaded: the pipeline.
        pixels_BCHW: in [-1, 1], sides divisible by the VAE's factor.

    Raises:
        ValueError: another shape.
    """
    factor = loaded.pipe.vae_scale_factor
    if pixels_BCHW.dim() != 4 or pixels_BCHW.shape[1] != 3 or any(s % factor for s in pixels_BCHW.shape[2:]):
        raise ValueError(
            f"images must be (B, 3, H, W) with H and W divisible by {factor}; given {tuple(pixels_BCHW.shape)}"
        )
    with borrowed(loaded, "vae"), torch.autocast(loaded.device.type, enabled=False):
        shift, scale = latent_scale(loaded)
        posterior = loaded.vae.encode(pixels_BCHW.to(loaded.device, torch.float32)).latent_dist
        return (posterior.mean - shift) * scale, posterior.std * scale


@torch.no_grad()
def decode_latents(loaded: LoadedPipeline, latents_BCHW: Tensor) -> Tensor:
    """Images in [0, 1], (B, 3, H, W) float32, of latents as the network takes them."""
    with borrowed(loaded, "vae"), torch.autocast(loaded.device.type, enabled=False):
        shift, scale = latent_scale(loaded)
        z_BCHW = latents_BCHW.to(loaded.device, torch.float32) / scale + shift
        pixels_BCHW = loaded.vae.decode(z_BCHW, return_dict=False)[0]
    return (pixels_BCHW / 2 + 0.5).clamp(0, 1)


def latent_scale(loaded: LoadedPipeline) -> tuple[Tensor, Tensor]:
    """Shift and scale, (1, C or 1, 1, 1) each: the network sees (z - shift) * scale, z what the VAE encodes.

    By the family's pipeline: only SD3's reads the VAE's `shift_factor`, only SDXL's a mean and deviation a channel.
    """
    config = loaded.vae.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if loaded.family == "sdxl" and mean is not None and std is not None:
        shift, scale = torch.tensor(mean), config.scaling_factor / torch.tensor(std)
    else:
        shift = torch.tensor([float(config.shift_factor or 0) if loaded.family == "sd3" else 0.0])
        scale = torch.tensor([float(config.scaling_factor)])
    return shift.view(1, -1, 1, 1).to(loaded.device), scale.view(1, -1, 1, 1).to(loaded.device)


@torch.no_grad()
def generate_images(
    loaded: LoadedPipeline,
    conditions: Sequence[str] | Conditions,
    seeds: Sequence[int],
    *,
    num_inference_steps: int = 20,
    guidance_scale: float = 7.5,
    eta: float = 0.0,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 8,
    scheduler: Any = None,
    unconditional: Conditions | None = None,
) -> Tensor:
    """Sample as the plain pipeline does, one seed a prompt: (B, 3, H, W) in [0, 1], float32, on the CPU.

    An image depends on its prompt and seed, not on the batch that it is made in, up to rounding.

    Args:
        loaded: the pipeline.
        conditions: prompts, or their conditions.
        seeds: of each image's start (and noise, where eta > 0), drawn on the CPU.
        num_inference_steps: of the scheduler.
        guidance_scale: w of classifier-free guidance; none up to 1.
        eta: noise of DDIM's steps, 0 to 1.
        height: in pixels; None for what the network was made for.
        width: likewise.
        batch_size: images at a time.
        scheduler: another one than the pipeline's.
        unconditional: what `encode_unconditional` gave; needed with given conditions only to spare the text encoders.

    Raises:
        ValueError: another number of seeds than prompts; eta with a scheduler that has none.
    """
    scheduler = loaded.scheduler if scheduler is None else scheduler
    if len(seeds) != len(conditions):
        raise ValueError(f"{len(conditions)} prompts need as many seeds; given {len(seeds)}")
    if eta and not type(scheduler).__name__.startswith("DDIM"):
        raise ValueError(
            f"eta={eta:g} is a setting of DDIM, and the scheduler is a {type(scheduler).__name__}: pass "
            "scheduler=DDIMScheduler.from_config(...), or eta=0"
        )
    if not isinstance(conditions, Conditions):
        with borrowed(loaded, "text_encoders"):
            conditions, unconditional = encode_prompts(loaded, conditions), encode_unconditional(loaded)
    elif unconditional is None and guidance_scale > 1:
        unconditional = encode_unconditional(loaded)
    images = []
    with borrowed(loaded, "vae"):
        for start in range(0, len(seeds), batch_size):
            some = slice(start, start + batch_size)
            latents_BCHW = _sample(
                loaded,
                conditions[some],
                unconditional,
                [torch.Generator().manual_seed(seed) for seed in seeds[some]],
                scheduler,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                height=height,
                width=width,
                **({} if loaded.family == "sd3" else {"eta": eta}),
            )
            images.append(decode_latents(loaded, latents_BCHW).cpu())
    return torch.cat(images)


def _sample(
    loaded: LoadedPipeline,
    conditions: Conditions,
    unconditional: Conditions | None,
    generators: list[torch.Generator],
    scheduler: Any,
    **options: Any,
) -> Tensor:
    """The pipeline's own loop on embeddings, with its own scheduler's state left alone."""
    names = [name for name in EMBEDDINGS if name in conditions.tensors]
    embeds = conditions.to(loaded.device, loaded._dtype).tensors
    given = {name: embeds[name] for name in names}
    if "control" in embeds:
        given["image"] = embeds["control"]
    if unconditional is not None and options["guidance_scale"] > 1:
        empty = unconditional.to(loaded.device, loaded._dtype)[[0] * len(conditions)].tensors
        given |= {f"negative_{name}": empty[name] for name in names}
    pipe, own = loaded.pipe, loaded.scheduler
    pipe.scheduler = type(scheduler).from_config(scheduler.config)
    try:
        latents: Tensor = pipe(generator=generators, output_type="latent", **given, **options).images
        return latents
    finally:
        pipe.scheduler = own
