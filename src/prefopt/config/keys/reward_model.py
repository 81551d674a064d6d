"""Latent reward models, the judges that `lrm` trains."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import IMAGE, Keys, Needs

REWARD = Needs(("reward",), "training reward models (lrm)", "which {method} does not")


class RewardModelKeys(Keys):
    """Keys of training latent reward models."""

    where: ClassVar[tuple[Needs, ...]] = (IMAGE, REWARD)

    feature_scale: float = Field(
        7.5, ge=1, description="gs: visual feature enhancement of the judge; 1: off, at half the cost"
    )
    text_projection: str | None = Field(
        None, description="CLIP checkpoint whose text projection the judge's W_t starts from"
    )
    shared_noise: bool = Field(
        False, description="the same noise for both images of a pair instead of independent noise"
    )
    consistency: Literal[1, 2, 3] | None = Field(
        None, description="keep pairs that other scores agree with: MPCF strategy (columns *_gap); None: all"
    )
