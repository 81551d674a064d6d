"""Several runs, one after another."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import STAGES, Keys, Needs


class StageKeys(Keys):
    """Keys of all methods of several runs."""

    where: ClassVar[tuple[Needs, ...]] = (STAGES,)

    stage: Literal["all", "gradient", "oracle"] = Field(
        "all",
        description="all: every stage of the method; gradient: one ordinary run with its loss on the given rows; "
        "oracle: compo's second stage alone",
    )
