"""Who judges what the policy samples."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from prefopt.config.keys.base import Keys, Needs

JUDGED = Needs(
    ("samples", "judged", "semi_online"),
    "methods that ask a judge (such as online_dpo, lpo or sopo)",
    "which {method} does not",
)


class JudgeKeys(Keys):
    """Keys of judges."""

    where: ClassVar[tuple[Needs, ...]] = (JUDGED,)

    judge: str | None = Field(
        None,
        description="scores candidates: lrm:DIR (latents), or a scorer of images or motions as for `reward`; of texts reward:DIR, "
        "FILE.py:FUNCTION, world:text, a sum 0.7*reward:DIR+0.3*FILE.py:FUNCTION, or openai:MODEL@URL",
    )
