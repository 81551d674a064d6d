"""The picture world's model: a tiny Stable Diffusion pretrained from nothing on a CPU.

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

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.worlds.diffusion import (
    CAPTION_DROPOUT,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    quiet,
    tokens_of,
)
from prefopt.worlds.picture.parts import MAX_TOKENS, TEXT_WIDTH, WORDS, build_codec, build_unet
from prefopt.worlds.picture.task import Pictures
from prefopt.worlds.pretraining import adamw, descend, few_threads, progress_bar, seeded

DECODER_BATCH_SIZE = 24
"""Twice as many steps with half the batch decode far better in the same time."""
DECODER_LEARNING_RATE = 6e-3


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

    with seeded(seed), few_threads():
        codec = build_codec(pictures.images_BCHW)
        latents_BKHW = _train_decoder(codec, pictures.images_BCHW, codec_steps, progress)
        tokenizer = build_tokenizer(WORDS, MAX_TOKENS)
        text_encoder, unet, scheduler = (
            build_text_encoder(tokenizer, TEXT_WIDTH),
            build_unet(width),
            build_scheduler(),
        )
        tokens_BS = tokens_of(tokenizer, pictures.captions)
        empty_S = tokens_of(tokenizer, [""])[0]
        parameters = [*unet.parameters(), *text_encoder.parameters()]
        optimizer, schedule = adamw(parameters, learning_rate, steps)
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
                descend(loss, parameters, optimizer, schedule)
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
        with quiet():
            pipeline.save_pretrained(folder)


def _train_decoder(codec: Any, images_BCHW: Tensor, steps: int, progress: bool) -> Tensor:
    """Train the codec's decoder; returns the pictures' (B, K, 4, 4) latents, scaled for the U-Net."""
    targets_BCHW = 2 * images_BCHW - 1
    with torch.no_grad():
        latents = [codec.encode(chunk).latent_dist.mean for chunk in targets_BCHW.split(1000)]
    latents_BKHW = torch.cat(latents)
    parameters = [*codec.decoder.parameters(), *codec.post_quant_conv.parameters()]
    optimizer, schedule = adamw(parameters, DECODER_LEARNING_RATE, steps)
    codec.train()
    with progress_bar("training the picture world's decoder", steps, progress) as advance:
        for _ in range(steps):
            chosen = torch.randint(len(targets_BCHW), (DECODER_BATCH_SIZE,))
            loss = (codec.decode(latents_BKHW[chosen]).sample - targets_BCHW[chosen]).square().mean()
            descend(loss, parameters, optimizer, schedule)
            advance(f"loss {loss.item():.4f}")
    return latents_BKHW * codec.config.scaling_factor


# -- use -----------------------------------------------------------------------------------------------------


def load(folder: Path) -> Any:
    """The `StableDiffusionPipeline` of a folder, float32."""
    from diffusers import StableDiffusionPipeline

    with quiet():
        return StableDiffusionPipeline.from_pretrained(folder)
