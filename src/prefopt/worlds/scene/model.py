"""The scene world's models: a tiny Stable Diffusion and ControlNets for it, pretrained from nothing on a CPU.

Three stages, each saved as a pipeline's folder by `save_pretrained`, so that it takes the same path as a user's checkpoint:

    pretrain        a `StableDiffusionPipeline` that knows styles
    add_control     a `StableDiffusionControlNetPipeline`: a ControlNet by the diffusion loss under true conditions
    tune            the same after some more steps with the consistency reward of ControlNet++ (Li et al., 2024,
                    arXiv 2404.07987): what a detector sees in the estimate of x_0 at little noise is compared with the
                    condition

    >>> from diffusers import StableDiffusionControlNetPipeline                            # doctest: +SKIP
    >>> pipeline = StableDiffusionControlNetPipeline.from_pretrained(world.model_dir())    # doctest: +SKIP
    >>> pipeline("a dim rough picture", image=condition, guidance_scale=1).images[0]       # doctest: +SKIP

Legend of shape suffixes: B pictures, C = 3 channels, H = W = 16 rows and columns, S tokens, U different captions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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
from prefopt.worlds.pretraining import adamw, descend, few_threads, progress_bar, seeded
from prefopt.worlds.scene.detector import SceneDetector
from prefopt.worlds.scene.parts import (
    MAX_TOKENS,
    TEXT_WIDTH,
    WORDS,
    build_codec,
    build_controlnet,
    build_unet,
    to_pixels,
)
from prefopt.worlds.scene.task import Scenes

CONSISTENCY_LAST_TIMESTEP = 200
"""Above it the estimate of x_0 is too blurred for a detector."""
CONSISTENCY_WEIGHT = 0.5


class Noised(NamedTuple):
    """A batch on its way through the network: which pictures, their noise, and what was made of them."""

    chosen_B: Tensor
    noise_BCHW: Tensor
    noisy_BCHW: Tensor
    times_B: Tensor
    states_BSD: Tensor


class Course(NamedTuple):
    """Optimizer steps, pictures a step, and the peak of the learning rate."""

    steps: int
    batch_size: int
    learning_rate: float


def pretrain(folder: Path, scenes: Scenes, *, seed: int, width: int, course: Course, progress: bool) -> None:
    """Train U-Net and text encoder from nothing on captioned pictures; save a `StableDiffusionPipeline` (safetensors).

    Noise prediction with the mean squared error, one caption in ten left empty. Depends on nothing but the arguments: the
    global random state is neither read nor changed.

    Args:
        folder: an existing folder.
        scenes: what to learn from.
        seed: of weights, batches and noise.
        width: channels of the U-Net's first level.
        course: of the training.
        progress: show a bar if standard error is a terminal.
    """
    from diffusers import StableDiffusionPipeline

    with seeded(seed), few_threads():
        tokenizer = build_tokenizer(WORDS, MAX_TOKENS)
        text_encoder, unet = build_text_encoder(tokenizer, TEXT_WIDTH), build_unet(width)
        pipeline = StableDiffusionPipeline(
            vae=build_codec(),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

        def loss(batch: Noised) -> Tensor:
            error = unet(batch.noisy_BCHW, batch.times_B, batch.states_BSD).sample - batch.noise_BCHW
            return error.square().mean()

        label = "pretraining the scene world's model"
        _train(pipeline, (unet, text_encoder), loss, scenes, course, label, progress)
        with quiet():
            pipeline.save_pretrained(folder)


def add_control(
    folder: Path,
    base: Path,
    scenes: Scenes,
    detector: SceneDetector,
    *,
    seed: int,
    course: Course,
    progress: bool,
) -> None:
    """Train a ControlNet of the base model under true conditions; save a `StableDiffusionControlNetPipeline`.

    Args:
        folder: an existing folder.
        base: folder that `pretrain` filled.
        scenes: what to learn from.
        detector: gives the conditions.
        seed: of the hint's weights, of batches and noise.
        course: of the training.
        progress: show a bar if standard error is a terminal.
    """
    from diffusers import StableDiffusionControlNetPipeline, StableDiffusionPipeline

    with seeded(seed), few_threads():
        with quiet():
            plain = StableDiffusionPipeline.from_pretrained(base)
        pipeline = StableDiffusionControlNetPipeline(
            **plain.components,
            controlnet=build_controlnet(plain.unet),
            requires_safety_checker=False,
        )
        controls_BCHW = detector.draw(detector.labels(scenes.classes_BHW))

        def loss(batch: Noised) -> Tensor:
            error = _predict(pipeline, batch, controls_BCHW) - batch.noise_BCHW
            return error.square().mean()

        label = f"training the scene world's ControlNet ({detector.kind})"
        _train(pipeline, (pipeline.controlnet,), loss, scenes, course, label, progress)
        with quiet():
            pipeline.save_pretrained(folder)


def tune(
    folder: Path,
    start: Path,
    scenes: Scenes,
    detector: SceneDetector,
    *,
    seed: int,
    course: Course,
    progress: bool,
) -> None:
    """Train a ControlNet on with the consistency reward beside the diffusion loss; save the pipeline.

    The reward counts at timesteps of at most `CONSISTENCY_LAST_TIMESTEP`, with a weight of `CONSISTENCY_WEIGHT`.

    Args:
        folder: an existing folder.
        start: folder that `add_control` filled.
        scenes: what to learn from.
        detector: gives the conditions, and the loss of what it sees.
        seed: of batches and noise.
        course: of the training.
        progress: show a bar if standard error is a terminal.
    """
    with seeded(seed), few_threads():
        pipeline = load(start)
        labels_BHW = detector.labels(scenes.classes_BHW)
        controls_BCHW = detector.draw(labels_BHW)
        kept_T = pipeline.scheduler.alphas_cumprod

        def loss(batch: Noised) -> Tensor:
            predicted_BCHW = _predict(pipeline, batch, controls_BCHW)
            error = (predicted_BCHW - batch.noise_BCHW).square().mean()
            early = batch.times_B <= CONSISTENCY_LAST_TIMESTEP
            kept = kept_T[batch.times_B[early]][:, None, None, None]
            clean = (batch.noisy_BCHW[early] - (1 - kept).sqrt() * predicted_BCHW[early]) / kept.sqrt()
            seen = detector.loss(to_pixels(clean).clamp(0, 1), labels_BHW[batch.chosen_B[early]])
            return error + CONSISTENCY_WEIGHT * seen.sum() / early.sum().clamp(min=1)

        label = f"consistency tuning of the scene world's ControlNet ({detector.kind})"
        _train(pipeline, (pipeline.controlnet,), loss, scenes, course, label, progress)
        with quiet():
            pipeline.save_pretrained(folder)


def load(folder: Path) -> Any:
    """The `StableDiffusionControlNetPipeline` of a folder, float32."""
    from diffusers import StableDiffusionControlNetPipeline

    with quiet():
        return StableDiffusionControlNetPipeline.from_pretrained(folder)


def _predict(pipeline: Any, batch: Noised, controls_BCHW: Tensor) -> Tensor:
    """The predicted noise under conditions."""
    down, mid = pipeline.controlnet(
        batch.noisy_BCHW, batch.times_B, encoder_hidden_states=batch.states_BSD,
        controlnet_cond=controls_BCHW[batch.chosen_B], return_dict=False,
    )  # fmt: skip
    predicted: Tensor = pipeline.unet(
        batch.noisy_BCHW, batch.times_B, batch.states_BSD,
        down_block_additional_residuals=down, mid_block_additional_residual=mid,
    ).sample  # fmt: skip
    return predicted


def _train(
    pipeline: Any,
    trained: tuple[torch.nn.Module, ...],
    loss_of: Callable[[Noised], Tensor],
    scenes: Scenes,
    course: Course,
    label: str,
    progress: bool,
) -> None:
    """Train some of a pipeline's networks on noised pictures; all others get no gradient. Leaves all in evaluation mode."""
    for network in (
        pipeline.vae,
        pipeline.text_encoder,
        pipeline.unet,
        getattr(pipeline, "controlnet", None),
    ):
        if network is not None:
            network.requires_grad_(network in trained).train(network in trained)
    scheduler, text_encoder = pipeline.scheduler, pipeline.text_encoder
    # few captions are different: each is encoded once a step
    captions = ["", *dict.fromkeys(scenes.captions)]
    tokens_US = tokens_of(pipeline.tokenizer, captions)
    caption_B = torch.tensor([captions.index(caption) for caption in scenes.captions])
    with torch.no_grad():
        pictures_BCHW = 2 * scenes.images_BCHW - 1
        chunks = [pipeline.vae.encode(chunk).latent_dist.mean for chunk in pictures_BCHW.split(1024)]
        latents_BCHW = pipeline.vae.config.scaling_factor * torch.cat(chunks)
        states_USD = text_encoder(tokens_US)[0]
    parameters = [parameter for network in trained for parameter in network.parameters()]
    optimizer, schedule = adamw(parameters, course.learning_rate, course.steps)
    with progress_bar(label, course.steps, progress) as advance:
        for _ in range(course.steps):
            chosen_B = torch.randint(len(latents_BCHW), (course.batch_size,))
            dropped_B = torch.rand(course.batch_size) < CAPTION_DROPOUT
            noise_BCHW = torch.randn_like(latents_BCHW[chosen_B])
            times_B = torch.randint(scheduler.config.num_train_timesteps, (course.batch_size,))
            noisy_BCHW = scheduler.add_noise(latents_BCHW[chosen_B], noise_BCHW, times_B)
            if text_encoder in trained:
                states_USD = text_encoder(tokens_US)[0]
            states_BSD = states_USD[caption_B[chosen_B].masked_fill(dropped_B, 0)]
            loss = loss_of(Noised(chosen_B, noise_BCHW, noisy_BCHW, times_B, states_BSD))
            descend(loss, parameters, optimizer, schedule)
            advance(f"loss {loss.item():.3f}")
    for network in trained:
        network.eval()
