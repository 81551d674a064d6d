"""The motion world's model: a tiny text-to-motion diffusion model, pretrained from nothing on a CPU.

Every part is the real class (`MotionDenoiser`, `MotionStats`, `CLIPTextModel`, `CLIPTokenizer`, `DDPMScheduler`), saved as a
`MotionPipeline` folder, so that it takes the same path as a user's checkpoint:

    >>> from prefopt.motion.pipeline import MotionPipeline                    # doctest: +SKIP
    >>> pipeline = MotionPipeline.from_pretrained(world.model_dir())          # doctest: +SKIP
    >>> pipeline(["someone jumps twice"], [32], guidance_scale=1).features[0] # doctest: +SKIP

Legend of shape suffixes: B motions, F = 32 frames, D = 36 features, S tokens, E width of a text's embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.motion.denoiser import MotionDenoiser
from prefopt.motion.pipeline import MotionPipeline
from prefopt.motion.stats import MotionStats
from prefopt.motion.stick import STICK
from prefopt.worlds.diffusion import (
    CAPTION_DROPOUT,
    build_text_encoder,
    build_tokenizer,
    quiet,
    tokens_of,
)
from prefopt.worlds.motion.kinematics import FRAMES, Motions
from prefopt.worlds.motion.task import WORDS
from prefopt.worlds.pretraining import adamw, descend, few_threads, progress_bar, seeded

TIMESTEPS = 20
HEADS = 4
MAX_TOKENS = 16
"""The longest caption has 14 words, and start and end."""
SMALLEST_STD = 1e-3
"""Of a feature that is the same in all motions, so that its z-scores are finite."""


# -- pretraining ---------------------------------------------------------------------------------------------


def pretrain(
    folder: Path,
    *,
    motions: Motions,
    seed: int,
    width: int,
    layers: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    progress: bool = True,
) -> None:
    """Train denoiser and text encoder from nothing on captioned motions; save a pipeline to `folder` (safetensors).

    The denoiser predicts clean z-scores with the mean squared error; one caption in ten is left out (for classifier-free guidance).
    Depends on nothing but the arguments: the global random state is neither read nor changed.

    Args:
        folder: an existing folder.
        motions: what to learn from.
        seed: of weights, batches and noise.
        width: of denoiser and text encoder.
        layers: of the denoiser.
        steps: optimizer steps.
        batch_size: motions a step.
        learning_rate: peak.
        progress: show a bar if standard error is a terminal.
    """
    with seeded(seed), few_threads():
        pipeline = build(motions.features_BFD, width, layers)
        denoiser, text_encoder, scheduler = pipeline.denoiser, pipeline.text_encoder, pipeline.scheduler
        with torch.no_grad():
            clean_BFD = pipeline.stats.normalize(motions.features_BFD)
        tokens_BS = tokens_of(pipeline.tokenizer, motions.captions)
        parameters = [*denoiser.parameters(), *text_encoder.parameters()]
        optimizer, schedule = adamw(parameters, learning_rate, steps)
        denoiser.train()
        text_encoder.train()
        with progress_bar("pretraining the motion world's model", steps, progress) as advance:
            for _ in range(steps):
                chosen = torch.randint(len(clean_BFD), (batch_size,))
                dropped_B = torch.rand(batch_size) < CAPTION_DROPOUT
                text_BE = text_encoder(tokens_BS[chosen]).pooler_output
                text_BE = text_BE.masked_fill(dropped_B[:, None], 0.0)  # as the pipeline leaves one out
                x_BFD = clean_BFD[chosen]
                t_B = torch.randint(TIMESTEPS, (batch_size,))
                noisy_BFD = scheduler.add_noise(x_BFD, torch.randn_like(x_BFD), t_B)
                loss = (denoiser(noisy_BFD, t_B, text_BE) - x_BFD).square().mean()
                descend(loss, parameters, optimizer, schedule)
                advance(f"loss {loss.item():.3f}")
        denoiser.eval()
        text_encoder.eval()
        with quiet():
            pipeline.save_pretrained(folder)


def build(features_BFD: Tensor, width: int, layers: int) -> MotionPipeline:
    """The pipeline, untrained, with the statistics of these motions."""
    from diffusers import DDPMScheduler

    tokenizer = build_tokenizer(WORDS, MAX_TOKENS)
    denoiser = MotionDenoiser(
        features=STICK.width,
        max_frames=FRAMES,
        width=width,
        layers=layers,
        heads=HEADS,
        feedforward=2 * width,
        dropout=0.0,
        text_width=width,
        norm_first=True,
    )
    scheduler = DDPMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        variance_type="fixed_small",
        clip_sample=False,
    )
    return MotionPipeline(
        denoiser=denoiser,
        scheduler=scheduler,
        stats=stats_of(features_BFD, "the motion world's model"),
        text_encoder=build_text_encoder(tokenizer, width),
        tokenizer=tokenizer,
        max_text_tokens=MAX_TOKENS,
        unit_length=1,
    )


def stats_of(features_BFD: Tensor, name: str) -> MotionStats:
    """Mean and deviation of each feature over all frames of motions."""
    frames = features_BFD.double().flatten(0, 1)
    std_D = frames.std(0).clamp(min=SMALLEST_STD)
    return MotionStats.of(STICK.name, frames.mean(0).float(), std_D.float(), fps=STICK.fps, name=name)


# -- use -----------------------------------------------------------------------------------------------------


def load(folder: Path) -> MotionPipeline:
    """The `MotionPipeline` of a folder, float32."""
    with quiet():
        pipeline: MotionPipeline = MotionPipeline.from_pretrained(folder)
    return pipeline


def sample(
    pipeline: Any,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    num_inference_steps: int = TIMESTEPS,
    guidance_scale: float = 1.0,
    batch_size: int = 256,
) -> Tensor:
    """(B, 32, 36) features of motions that a model made, in physical units, one a prompt.

    Args:
        pipeline: a `MotionPipeline`; its bar is left as found.
        prompts: captions.
        seed: motion k starts from noise of (`seed`, k).
        num_inference_steps: reverse steps.
        guidance_scale: of classifier-free guidance; 1 is none.
        batch_size: motions at a time.
    """
    from prefopt.worlds.base import seed_of

    bar = getattr(pipeline, "_progress_bar_config", {})
    pipeline.set_progress_bar_config(disable=True)
    try:
        made = pipeline(
            list(prompts),
            [FRAMES] * len(prompts),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            seeds=[seed_of(f"motion {seed} {k}") for k in range(len(prompts))],
            batch_size=batch_size,
        )
    finally:
        pipeline.set_progress_bar_config(**bar)
    return torch.stack(made.features)
