"""What scores the samples that a run draws along the way."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from prefopt.config.keys.base import Keys, Needs

SCORED = Needs(("image", "motion", "answers"), "image, motion and text models")


class ScorerKeys(Keys):
    """Keys of scorers of samples."""

    where: ClassVar[tuple[Needs, ...]] = (SCORED,)

    reward: str | None = Field(
        None,
        description="scorer of samples: world:picture, pickscore:DIR, clip:DIR, hps:DIR, lrm:DIR, ...; of motions retrieval:DIR, ...; of texts reward:DIR, "
        "FILE.py:FUNCTION, or a weighted sum of these",
    )
