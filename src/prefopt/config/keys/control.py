"""Control models: where the network that reads control images comes from."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from prefopt.config.keys.base import CONTROL, Keys, Needs


class ControlKeys(Keys):
    """Keys of control models."""

    where: ClassVar[tuple[Needs, ...]] = (CONTROL,)

    controlnet: str | None = Field(
        None,
        description="ControlNet beside a base pipeline: folder or hub id, or new: one that starts from the base's weights; "
        "None: the pipeline's own",
    )
