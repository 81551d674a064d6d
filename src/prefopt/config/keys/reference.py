"""The reference: what log-ratios are relative to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prefopt.config.keys.base import Keys


class ReferenceKeys(Keys):
    """Keys of the reference; of every run."""

    reference: Literal["auto", "cached", "live", "adapter_off", "none"] = Field(
        "auto", description="auto: cached on disk; none for reference-free objectives"
    )
    reference_model: str | None = Field(
        None, description="another model as reference; default: the starting model"
    )
