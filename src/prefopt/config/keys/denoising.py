"""Diffusion models: their noise, their error, their reverse steps."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import DENOISING, Keys, Needs

USUAL = Needs(("usual_scores",), "denoising errors", "which {method} does not train on")
NOISED = Needs(
    ("usual_scores", "reward"),
    "denoising errors and latent reward models",
    "and {method} scores reverse steps",
)


class DenoisingKeys(Keys):
    """Keys of models that denoise, whatever they draw."""

    where: ClassVar[tuple[Needs, ...]] = (DENOISING,)

    prompt_dropout: Annotated[float, USUAL] = Field(
        0.0, ge=0, lt=1, description="share of examples trained with the empty prompt, both sides alike"
    )
    noise_epochs: Annotated[int | None, NOISED] = Field(
        None, ge=1, description="noise and timesteps repeat after so many epochs; None: never"
    )
    timestep_density: Annotated[Literal["uniform", "logit_normal"], USUAL] = Field(
        "uniform", description="how timesteps are drawn for the denoising error"
    )
    error_weight: Annotated[Literal["constant", "snr", "min_snr"], USUAL] = Field(
        "constant", description="weight of the denoising error by timestep"
    )
    error_scale: Annotated[Literal["mean", "steps", "sum"], USUAL] = Field(
        "mean",
        description="of the denoising error: mean; steps: times the train timesteps; sum: and times the elements",
    )
    guidance_scale: float = Field(
        5.0, ge=1, description="classifier-free guidance in samples and in step methods; 1: off"
    )
    num_inference_steps: int = Field(20, ge=2, description="reverse steps of samples and of step methods")
