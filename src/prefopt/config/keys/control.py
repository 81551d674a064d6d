"""Control models: where the network that reads control images comes from, and what reads conditions from images."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import CONTROL, Keys, Needs

PAIRS = Needs(("usual_scores",), "denoising errors", "which {method} does not train on")
CONDITIONS = Needs(("condition_po",), "condition_po", "and {method} has no draws of its own")
REWARD = Needs(
    ("condition_po", "controlnet_pp"),
    "the reward of consistency (controlnet_pp, condition_po)",
    "which {method} has none of",
)


class ControlKeys(Keys):
    """Keys of control models."""

    where: ClassVar[tuple[Needs, ...]] = (CONTROL,)

    detector: str | None = Field(
        None,
        description="what reads conditions from images, to measure samples and for what needs it: canny, segmentation:DIR, "
        "depth:DIR, pose:DETECTOR:DIR, world:NAME, FILE.py:NAME; None: a world's own",
    )
    losing_condition: Annotated[Literal["data", "online"], PAIRS] = Field(
        "data",
        description="data: as in the rows; online: what the detector sees in samples of the present model, drawn for every step",
    )
    condition_dropout: Annotated[float, CONDITIONS] = Field(
        0.0, ge=0, lt=1, description="share of the diffusion term's own draws that see a black control image"
    )
    consistency_timestep: Annotated[int, REWARD] = Field(
        200,
        ge=0,
        description="last timestep at which the reward of consistency looks at the one-step estimate",
    )
    controlnet: str | None = Field(
        None,
        description="ControlNet beside a base pipeline: folder or hub id, or new: one that starts from the base's weights; "
        "None: the pipeline's own",
    )
