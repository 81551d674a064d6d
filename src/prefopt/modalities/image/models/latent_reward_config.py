"""What a latent reward model is, besides its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prefopt.modalities.image.models.denoiser import Family
from prefopt.modalities.image.models.latent_space import LatentSpace, NoiseSchedule


@dataclass(frozen=True)
class JudgeConfig:
    """What a latent reward model is, besides its weights.

    Attributes:
        family: sd, sdxl or sd3.
        latent_space: whose latents it reads.
        noise_schedule: what its timesteps mean.
        timestep_range: smallest and largest timestep it was trained on, inclusive; anything else is refused.
        gs: strength of the visual feature enhancement.
        embed_dim: width of the space in which image and text meet.
        feature_block: sd3: how many blocks are run.
        base_model: the pipeline it started from.
    """

    family: Family
    latent_space: LatentSpace
    noise_schedule: NoiseSchedule
    timestep_range: tuple[float, float]
    gs: float = 7.5
    embed_dim: int = 768
    feature_block: int | None = None
    base_model: str | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JudgeConfig:
        """From what `asdict` gave, after JSON."""
        low, high = values["timestep_range"]
        schedule = values["noise_schedule"]
        return cls(
            **{
                **values,
                "timestep_range": (low, high),
                "latent_space": LatentSpace.from_dict(values["latent_space"]),
                "noise_schedule": replace(
                    NoiseSchedule(**schedule), alphas_cumprod=tuple(schedule["alphas_cumprod"])
                ),
            }
        )
