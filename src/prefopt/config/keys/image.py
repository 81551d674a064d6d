"""Images: how they reach the model."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import IMAGE, Keys, Needs


class ImageKeys(Keys):
    """Keys of image models."""

    where: ClassVar[tuple[Needs, ...]] = (IMAGE,)

    resolution: int | None = Field(
        None, ge=8, description="side of images in pixels; None: what the model was made for"
    )
    crop: Literal["center", "none"] = Field(
        "center", description="center: shorter side resized, centre cut; none: stretched to the square"
    )
