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
    sync_reference: bool = Field(
        False,
        description="move the reference towards the policy now and then (TR-DPO); it is then live, never cached",
    )
    reference_mixup_alpha: float = Field(
        0.6,
        gt=0,
        le=1,
        description="share of the policy each time: reference <- alpha policy + (1 - alpha) reference",
    )
    reference_sync_steps: int = Field(
        512, ge=1, description="steps from one move of the reference to the next"
    )
