"""Losers that are sampled while training, for winners that come from data."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import DENOISING, Keys, Needs

SEMI_ONLINE = Needs(("semi_online",), "semi-online pairs (sopo)", "which {method} does not make")


class SemiOnlineKeys(Keys):
    """Keys of methods that sample a loser for a winner of the data."""

    where: ClassVar[tuple[Needs, ...]] = (DENOISING, SEMI_ONLINE)

    pairs: Literal["semi_online", "online", "offline", "offline_data", "naive"] = Field(
        "semi_online",
        description="semi_online: data against the policy's worst sample; online: its best against its worst; offline: the same of "
        "the starting model's; offline_data: data against its worst; naive: offline and online together",
    )
    tau_quantile: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of losers that are kept where tau is not given: calibrates it at the start",
    )
    similarity: Literal["cosine_01", "cosine", "none"] = Field(
        "cosine_01", description="S of winner and samples, by the judge's embeddings; none: 0"
    )
    reuse_candidates: int = Field(1, ge=1, description="updates on one round's samples, which is one step")
    candidate_steps: int | None = Field(
        None, ge=1, description="reverse steps of a candidate; None: num_inference_steps"
    )
    candidate_guidance_scale: float = Field(1.0, ge=1, description="guidance of candidates; 1: off")
    candidates_at_once: int | None = Field(
        None, ge=1, description="candidates of one forward pass; None: all"
    )
