"""Comparison oracles: weights that move by a vote of random moves (compo)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import STAGES, Keys, Needs

ORACLE = Needs(("oracle",), "comparison oracles", "which {method} does not use")
SPLIT = Needs(("split",), "the stage before the oracle", "and {method} has none")


class SplitKeys(Keys):
    """Keys of which pairs are taken for doubtful, and of what becomes of the others."""

    where: ClassVar[tuple[Needs, ...]] = (STAGES, ORACLE)

    split_margin: Annotated[float, SPLIT] = Field(
        3.0,
        ge=0,
        description="delta, nats: pairs whose log-probabilities under the reference differ by no more are noisy",
    )
    split_rule: Annotated[Literal["two_sided", "release"], SPLIT] = Field(
        "two_sided",
        description="noisy: differs by at most split_margin; release: the chosen one is likelier, by less",
    )
    noisy_pairs: int | None = Field(100, ge=1, description="first noisy pairs to use; None: all")
    first: Annotated[Literal["dpo", "simpo"], SPLIT] = Field(
        "dpo", description="method of the first stage, on clean pairs; simpo brings its own keys"
    )


class OracleKeys(Keys):
    """Keys of the votes."""

    where: ClassVar[tuple[Needs, ...]] = (STAGES, ORACLE)

    perturbations: int = Field(1600, ge=1, description="m: random moves tried for each pair")
    radius: float = Field(
        5e-4, gt=0, description="r: standard deviation of one entry's move (sphere: its length)"
    )
    radius_relative: float | None = Field(
        None, gt=0, description="r as a share of the weights' standard deviation, instead of radius"
    )
    perturbed: str = Field(
        "head",
        description="head: the output projection, fast; else a regular expression for names of parameters",
    )
    perturbation_sampler: Literal["gaussian", "sphere"] = Field(
        "gaussian", description="law of a move; sphere: uniform on the sphere, as printed in the paper"
    )
    fast_sampling: bool = Field(
        True, description="head only: draw moves in the span of the hidden states; the same law, other draws"
    )
    gate: float = Field(
        0.2, ge=0, lt=1, description="lambda: the share of moves that helped must be above it"
    )
    step_size: float = Field(0.035, gt=0, description="gamma: the step is gamma times that share long")
    keep_fraction: float | None = Field(
        0.01, gt=0, le=1, description="share of the direction's entries that are used, the largest"
    )
    lambda_g: float | None = Field(
        None,
        ge=0,
        description="instead: entries at least this large (the paper's; means nothing at other sizes)",
    )
    clip_sigma: float | None = Field(
        None, ge=0, description="instead: entries above so many standard deviations of a random direction"
    )
    accept_check: Literal["none", "trial", "actual"] = Field(
        "none",
        description="test the step before taking it: not (paper), at length 5 (authors' code), or as it is",
    )
