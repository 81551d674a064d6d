"""What the commands that draw with a control model have in common: options, and the model that they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from prefopt.modalities.control.drawing import Artist
    from prefopt.modalities.control.models import LoadedControl

Command = TypeVar("Command", bound=Callable[..., Any])

DETECTORS = "What reads conditions from images: canny, segmentation:DIR, depth:DIR, pose:DETECTOR:DIR, world:NAME, FILE.py:NAME."


def of_drawing(command: Command) -> Command:
    """Add the options of how images are drawn, which `artist` reads, and `--batch_size`."""
    options = (
        click.option(
            "--num_inference_steps", "--num-inference-steps", type=click.IntRange(min=1), default=20, show_default=True,
            help="Reverse steps of a sample.",
        ),
        click.option(
            "--guidance_scale", "--guidance-scale", type=click.FloatRange(min=1), default=7.5, show_default=True
        ),
        click.option("--resolution", type=click.IntRange(min=8), help="[default: what the model was made for]"),
        click.option(
            "--crop", type=click.Choice(["center", "none"]), default="center", show_default=True, help="As in training."
        ),
        click.option(
            "--seed", type=click.IntRange(0, 2**32 - 2), default=0, show_default=True, help="Of the samples."
        ),
        click.option(
            "--batch_size", "--batch-size", type=click.IntRange(min=1), default=8, show_default=True,
            help="Samples at a time.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def check(model: str, controlnet: str | None) -> None:
    """Find out, from its index alone, whether a model can be drawn with.

    Raises:
        FileNotFoundError, ValueError: it cannot.
    """
    from prefopt.modalities.control.models import families
    from prefopt.modalities.image.models.pipelines import check_pipeline_source
    from prefopt.modalities.models import folder_of

    check_pipeline_source(folder_of(model), families(controlnet))


def load(model: str, controlnet: str | None, seed: int) -> LoadedControl:
    """A model or world for drawing, on its device.

    Args:
        model: pipeline, by folder, hub id or world.
        controlnet: beside a base pipeline.
        seed: of a new ControlNet.
    """
    from prefopt.modalities.control.models import load_control
    from prefopt.modalities.models import folder_of

    loaded = load_control(folder_of(model), controlnet=controlnet, seed=seed, trainable=False)
    loaded.to(device())
    return loaded


def artist(loaded: LoadedControl, given: Mapping[str, Any]) -> Artist:
    """Who draws with a model, as the options say.

    Raises:
        ValueError: a resolution or guidance that cannot be.
    """
    from prefopt.modalities.control.drawing import Artist, Drawing

    how = Drawing(
        resolution=given["resolution"] or loaded.image_size,
        crop=given["crop"],
        num_inference_steps=given["num_inference_steps"],
        guidance_scale=given["guidance_scale"],
        seed=given["seed"],
    )
    return Artist(loaded, how)


def device() -> str:
    """Where models work here."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
