"""Vision-language models: which of their parts are trained, and what contrasts with an image."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import VISION, Keys, Needs

CONTRASTS = Needs(
    ("symmpo", "mdpo", "mfpo", "svco", "chip", "povid", "opa_dpo"),
    "objectives that contrast images (symmpo, mdpo, svco, ...)",
    "which {method} does not do",
)
Part = Literal["language_model", "projector", "vision_tower"]


class VisionKeys(Keys):
    """Keys of vision-language models."""

    where: ClassVar[tuple[Needs, ...]] = (VISION,)

    freeze: list[Part] = Field(
        ["vision_tower"],
        description="parts that are not trained, of language_model, projector and vision_tower",
    )
    lora_parts: list[Part] = Field(
        ["language_model"],
        description="parts that get adapters under use_peft; all their linear layers, or those named",
    )
    contrast_image: Annotated[Literal["row", "crop", "black", "mask", "noise"], CONTRASTS] = Field(
        "row",
        description="what contrasts with a row's image: its column contrast_image, or what is made of it, the same in every epoch: "
        "a random crop, a black image, a masked one, one noised to step 500 of 1000",
    )
    cache_vision_features: bool = Field(
        False,
        description="keep the features of every image on disk, so that the vision tower runs once an image and not once a step; "
        "needs tower and projector frozen",
    )
