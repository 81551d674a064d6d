"""Sampling while training, along reverse steps."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefopt.config.keys.base import DENOISING, Keys, Needs

SAMPLES = Needs(("samples",), "methods that sample while training", "which {method} does not")
STEPS = Needs(("steps",), "comparing steps", "and {method} compares whole trajectories")
GUIDED = Needs(("guided",), "guided targets (gradspo)", "which {method} has none of")


DRAWS = Needs(("samples", "semi_online"), "methods that sample while training", "which {method} does not")


class DrawingKeys(Keys):
    """Keys of methods that draw samples while training."""

    where: ClassVar[tuple[Needs, ...]] = (DENOISING, DRAWS)

    candidates: int = Field(
        4,
        ge=1,
        description="K: samples compared: at each reverse step, as trajectories, or for a row of data",
    )
    eta: float = Field(1.0, ge=0, le=1, description="noise of a reverse step, 1 as in DDPM")


class SamplingKeys(Keys):
    """Keys of methods that compare their own samples."""

    where: ClassVar[tuple[Needs, ...]] = (DENOISING, SAMPLES)

    prompts_per_step: int = Field(8, ge=1, description="prompts of one collection, which is one step")
    threshold: Annotated[float | list[float], STEPS] = Field(
        0.3, description="least gap, in (0, 1), between best and worst; [low, high]: along threshold_rule"
    )
    threshold_rule: Annotated[Literal["sigma", "variance", "linear", "quantile"], STEPS] = Field(
        "sigma", description="what [low, high] follows; quantile: keep the share 1 - threshold of all pairs"
    )
    continue_from: Annotated[Literal["random", "winner"], STEPS] = Field(
        "random", description="which candidate a trajectory goes on from"
    )
    first_compared_step: Annotated[int, STEPS] = Field(
        0, ge=0, description="earlier reverse steps are sampled, not compared"
    )
    last_compared_step: Annotated[int | None, STEPS] = Field(
        None, ge=0, description="later steps are not compared; None: all"
    )
    judge_timestep: Annotated[Literal["candidate", "current"], STEPS] = Field(
        "candidate", description="noise level told to the judge: the candidate's own, or the step's"
    )
    grad_scale: Annotated[float, GUIDED] = Field(
        0.5, ge=0, description="gradspo: g, length of the guidance step"
    )
    temporal_weight: Annotated[Literal["sqrt_one_minus_abar", "uniform", "spo"], GUIDED] = Field(
        "sqrt_one_minus_abar", description="gradspo: weight of a timestep"
    )
    average_noise: Annotated[bool, GUIDED] = Field(
        True, description="gradspo: half the difference of both noises as target"
    )
    anchor: Annotated[Literal["live", "cached"], GUIDED] = Field(
        "live", description="gradspo: prediction that targets start from, of the EMA now or when sampled"
    )
    sampler: Literal["online", "ema"] = Field("online", description="weights that candidates are drawn from")
    ema_decay: float = Field(0.9, ge=0, lt=1, description="of the EMA weights, once an update")
