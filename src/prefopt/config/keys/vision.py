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


class VideoKeys(Keys):
    """Keys of videos."""

    where: ClassVar[tuple[Needs, ...]] = (VISION,)

    video_frames: int = Field(
        8,
        ge=1,
        description="frames of each clip of a video, spread evenly (a whole file is one clip); frames that rows name stand",
    )
    video_fps: float | None = Field(
        None, gt=0, description="frames a second of each clip, in place of video_frames"
    )
    video_max_frames: int = Field(64, ge=1, description="most frames of a clip where video_fps decides")
    reference_context: Literal["row", "anchor", "evidence", "full"] = Field(
        "row",
        description="what the reference sees of a video: all of it, the clip that holds the answer (column anchor), the clips that "
        "it rests on (column evidence), or what the row's column reference_context says",
    )
    redraw_videos: bool = Field(
        True,
        description="put videos around an anchor together anew each epoch: other distractors of the column pool, another order, "
        "another slot; false: as rows have them",
    )
