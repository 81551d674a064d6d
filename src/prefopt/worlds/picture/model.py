"""The picture world's model: a tiny Stable Diffusion pretrained from nothing on a CPU, and sampling from it.

Every part is the real class (`UNet2DConditionModel`, `AutoencoderKL`, `CLIPTextModel`, `CLIPTokenizer`,
`DDIMScheduler` with Stable Diffusion's settings), saved as a `StableDiffusionPipeline` folder, so that it takes the
same path as a user's checkpoint:

    >>> from diffusers import StableDiffusionPipeline                          # doctest: +SKIP
    >>> pipeline = StableDiffusionPipeline.from_pretrained(world.model_dir())  # doctest: +SKIP
    >>> pipeline("a small red circle, top left", guidance_scale=2).images[0]   # doctest: +SKIP

The autoencoder's encoder is not trained but built: it computes exactly the principal components of 4 x 4 patches.
Only its decoder is trained, which takes seconds instead of minutes.

Legend of shape suffixes: B pictures, C channels, H rows, W columns, K = 12 latent channels, P = 48 numbers of a patch,
S tokens.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.worlds.base import seed_of
from prefopt.worlds.picture.parts import (
    MAX_TOKENS,
    build_codec,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
)
from prefopt.worlds.picture.task import Pictures
from prefopt.worlds.pretraining import no_bars, progress_bar, seeded

CAPTION_DROPOUT = 0.1
DECODER_BATCH_SIZE = 24
"""Twice as many steps with half the batch decode far better in the same time."""
DECODER_LEARNING_RATE = 6e-3

MAX_THREADS = 4
"""More only wait for each other on tensors this small."""


@contextlib.contextmanager
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, MAX_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars of transformers and diffusers for what takes a moment."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with no_bars(diffusers_logging), no_bars(transformers_logging):
        yield


# -- pretraining ---------------------------------------------------------------------------------------------


def pretrain(
    folder: Path,
    *,
    pictures: Pictures,
    seed: int,
    width: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    codec_steps: int,
    progress: bool = True,
) -> None:
    """Train codec, text encoder and U-Net from nothing on captioned pictures; save a pipeline to `folder` (safetensors).

    Noise prediction with the mean squared error, one caption in ten left empty (for classifier-free guidance), U-Net and
    text encoder jointly. Depends on nothing but the arguments: the global random state is neither read nor changed.

    Args:
        folder: an existing folder.
        pictures: what to learn from.
        seed: of weights, batches and noise.
        width: channels of the U-Net's first level.
        steps: optimizer steps of U-Net and text encoder.
        batch_size: pictures a step.
        learning_rate: peak.
        codec_steps: optimizer steps of the decoder.
        progress: show a bar if standard error is a terminal.
    """
    from diffusers import StableDiffusionPipeline

    with seeded(seed), _few_threads():
        codec = build_codec(pictures.images_BCHW)
        latents_BKHW = _train_decoder(codec, pictures.images_BCHW, codec_steps, progress)
        tokenizer = build_tokenizer()
        text_encoder, unet, scheduler = (
            build_text_encoder(tokenizer),
            build_unet(width),
            build_scheduler(),
        )
        tokens_BS = _tokens(tokenizer, pictures.captions)
        empty_S = _tokens(tokenizer, [""])[0]
        parameters = [*unet.parameters(), *text_encoder.parameters()]
        optimizer, schedule = _optimizer(parameters, learning_rate, steps)
        unet.train()
        text_encoder.train()
        with progress_bar("pretraining the picture world's model", steps, progress) as advance:
            for _ in range(steps):
                chosen = torch.randint(len(latents_BKHW), (batch_size,))
                dropped_B = torch.rand(batch_size) < CAPTION_DROPOUT
                states = text_encoder(tokens_BS[chosen].where(~dropped_B[:, None], empty_S))[0]
                noise = torch.randn_like(latents_BKHW[chosen])
                # The later of two uniform times: uniform ones are too seldom noisy enough to learn the place from.
                times_B = torch.randint(scheduler.config.num_train_timesteps, (2, batch_size)).amax(0)
                noisy = scheduler.add_noise(latents_BKHW[chosen], noise, times_B)
                loss = (unet(noisy, times_B, states).sample - noise).square().mean()
                _step(loss, parameters, optimizer, schedule)
                advance(f"loss {loss.item():.3f}")
        pipeline = StableDiffusionPipeline(
            vae=codec.eval(),
            text_encoder=text_encoder.eval(),
            tokenizer=tokenizer,
            unet=unet.eval(),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        with _quiet():
            pipeline.save_pretrained(folder)


def _train_decoder(codec: Any, images_BCHW: Tensor, steps: int, progress: bool) -> Tensor:
    """Train the codec's decoder; returns the pictures' (B, K, 4, 4) latents, scaled for the U-Net."""
    targets_BCHW = 2 * images_BCHW - 1
    with torch.no_grad():
        latents = [codec.encode(chunk).latent_dist.mean for chunk in targets_BCHW.split(1000)]
    latents_BKHW = torch.cat(latents)
    parameters = [*codec.decoder.parameters(), *codec.post_quant_conv.parameters()]
    optimizer, schedule = _optimizer(parameters, DECODER_LEARNING_RATE, steps)
    codec.train()
    with progress_bar("training the picture world's decoder", steps, progress) as advance:
        for _ in range(steps):
            chosen = torch.randint(len(targets_BCHW), (DECODER_BATCH_SIZE,))
            loss = (codec.decode(latents_BKHW[chosen]).sample - targets_BCHW[chosen]).square().mean()
            _step(loss, parameters, optimizer, schedule)
            advance(f"loss {loss.item():.4f}")
    return latents_BKHW * codec.config.scaling_factor


def _optimizer(parameters: list[Any], learning_rate: float, steps: int) -> tuple[Any, Any]:
    """AdamW with a linear warm-up over 5 % of the steps and then a cosine to zero."""
    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    warmup = max(1, steps // 20)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def _step(loss: Tensor, parameters: list[Any], optimizer: Any, schedule: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()


def _tokens(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """(B, S) token ids, padded to the full length as the pipeline pads them."""
    ids: Tensor = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )["input_ids"]
    return ids


# -- use -----------------------------------------------------------------------------------------------------


def load(folder: Path) -> Any:
    """The `StableDiffusionPipeline` of a folder, float32."""
    from diffusers import StableDiffusionPipeline

    with _quiet():
        return StableDiffusionPipeline.from_pretrained(folder)


def sample_images(
    pipeline: Any,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    num_inference_steps: int = 20,
    eta: float = 1.0,
    guidance_scale: float = 2.0,
    batch_size: int = 256,
    progress: bool = False,
) -> Tensor:
    """(B, 3, 16, 16) pictures in [0, 1], on the CPU, one a prompt.

    Picture k depends on (`seed`, k, its prompt) alone, up to rounding: not on the others or the batch size.

    Args:
        pipeline: a `StableDiffusionPipeline`; its modes (train, eval) and bar are left as found.
        prompts: captions.
        seed: of the noise, of the start and of each step.
        num_inference_steps: of the pipeline's scheduler.
        eta: of DDIM, in [0, 1].
        guidance_scale: of classifier-free guidance; 1 is none.
        batch_size: pictures made at once.
        progress: show a bar if standard error is a terminal.
    """
    modules = [module for module in pipeline.components.values() if isinstance(module, torch.nn.Module)]
    modes = [module.training for module in modules]
    bar = getattr(pipeline, "_progress_bar_config", {})
    starts = range(0, len(prompts), batch_size)
    images: list[Tensor] = []
    for module in modules:
        module.eval()
    pipeline.set_progress_bar_config(disable=True)
    try:
        with progress_bar("drawing pictures", len(starts), progress) as advance:
            for start in starts:
                batch = list(prompts[start : start + batch_size])
                made = pipeline(
                    batch,
                    num_inference_steps=num_inference_steps,
                    eta=eta,
                    guidance_scale=guidance_scale,
                    generator=[
                        torch.Generator().manual_seed(seed_of(f"{seed} {start + k}"))
                        for k in range(len(batch))
                    ],
                    output_type="pt",
                ).images
                images.append(made.float().cpu())
                advance("")
    finally:
        pipeline.set_progress_bar_config(**bar)
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
    return torch.cat(images)
