"""Several runs, one after another."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import STAGES, Keys, Needs

TWICE = Needs(
    ("twice",),
    "methods that train on one data set and then on another (longvpo)",
    "which {method} does not do",
)


class StageKeys(Keys):
    """Keys of all methods of several runs."""

    where: ClassVar[tuple[Needs, ...]] = (STAGES,)

    stage: Literal["all", "gradient", "oracle"] = Field(
        "all",
        description="all: every stage of the method; gradient: one ordinary run with its loss on the given rows; "
        "oracle: compo's second stage alone",
    )
    stage2_data: Annotated[str | None, TWICE] = Field(
        None,
        description="rows of the second stage, which begins where the first ends; null: one run on data",
    )
