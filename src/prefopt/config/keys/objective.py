"""The objective; its own hyper-parameters are free keys beside the schema's."""

from __future__ import annotations

from pydantic import Field

from prefopt.config.keys.base import Keys


class ObjectiveKeys(Keys):
    """Keys of sums of objectives."""

    loss_weights: list[float] | None = Field(None, description="weights of the terms of a summed method")
