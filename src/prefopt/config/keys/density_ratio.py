"""Weights of undesirable samples by how likely their prompts are among desirable ones (BCO)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from prefopt.config.keys.base import TEXT, Keys, Needs

BCO = Needs(("bco",), "bco", "and {method} weighs no prompts")


class DensityRatioKeys(Keys):
    """Keys of BCO's weights."""

    where: ClassVar[tuple[Needs, ...]] = (TEXT, BCO)

    density_ratio_weights: bool = Field(
        False,
        description="weigh undesirable samples by p(prompt | desirable) / p(prompt | undesirable), which a classifier of the "
        "starting model's hidden states tells; for thumbs up and down from different prompts",
    )
    prompt_sample_size: int = Field(1024, ge=2, description="most prompts of each kind that it is fitted on")
    min_density_ratio: float = Field(0.5, gt=0, description="least weight")
    max_density_ratio: float = Field(10.0, gt=0, description="greatest weight")
