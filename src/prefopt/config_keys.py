"""Configuration keys that mean something to some runs only; giving one elsewhere is an error.

Each class is a part of the one flat schema, `config.TrainConfig`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class ImageKeys(BaseModel):
    """Keys of image models; an error in a run on text."""

    resolution: int | None = Field(
        None, ge=8, description="side of images in pixels; None: what the model was made for"
    )
    crop: Literal["center", "none"] = Field(
        "center", description="center: shorter side resized, centre cut; none: stretched to the square"
    )
    prompt_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of examples trained with the empty prompt, both sides alike"
    )
    noise_epochs: int | None = Field(
        None, ge=1, description="noise and timesteps repeat after so many epochs; None: never"
    )
    timestep_density: Literal["uniform", "logit_normal"] = Field(
        "uniform", description="how timesteps are drawn for the denoising error"
    )
    error_weight: Literal["constant", "snr", "min_snr"] = Field(
        "constant", description="weight of the denoising error by timestep"
    )
    guidance_scale: float = Field(
        5.0, ge=1, description="classifier-free guidance in samples and in step methods; 1: off"
    )
    num_inference_steps: int = Field(20, ge=2, description="reverse steps of samples and of step methods")
    reward: str | None = Field(
        None, description="scorer of samples: world:picture, pickscore:DIR, clip:DIR, hps:DIR, lrm:DIR, ..."
    )


class RewardKeys(BaseModel):
    """Keys of training latent reward models (lrm); an error elsewhere."""

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


class OnlineKeys(BaseModel):
    """Keys of methods that make their own images while training; an error elsewhere."""

    judge: str | None = Field(
        None,
        description="scores candidates: lrm:DIR (latents), or a scorer of images as for `reward`; for online_dpo world:text or "
        "openai:MODEL@URL",
    )
    prompts_per_step: int = Field(8, ge=1, description="prompts of one collection, which is one step")
    candidates: int = Field(4, ge=2, description="K: samples compared at each reverse step (or trajectories)")
    threshold: float | list[float] = Field(
        0.3, description="least gap, in (0, 1), between best and worst; [low, high]: along threshold_rule"
    )
    threshold_rule: Literal["sigma", "variance", "linear", "quantile"] = Field(
        "sigma", description="what [low, high] follows; quantile: keep the share 1 - threshold of all pairs"
    )
    continue_from: Literal["random", "winner"] = Field(
        "random", description="which candidate a trajectory goes on from"
    )
    first_compared_step: int = Field(0, ge=0, description="earlier reverse steps are sampled, not compared")
    last_compared_step: int | None = Field(None, ge=0, description="later steps are not compared; None: all")
    judge_timestep: Literal["candidate", "current"] = Field(
        "candidate", description="noise level told to the judge: the candidate's own, or the step's"
    )
    eta: float = Field(1.0, ge=0, le=1, description="noise of a reverse step, 1 as in DDPM")
    grad_scale: float = Field(0.5, ge=0, description="gradspo: g, length of the guidance step")
    temporal_weight: Literal["sqrt_one_minus_abar", "uniform", "spo"] = Field(
        "sqrt_one_minus_abar", description="gradspo: weight of a timestep"
    )
    average_noise: bool = Field(True, description="gradspo: half the difference of both noises as target")
    anchor: Literal["live", "cached"] = Field(
        "live", description="gradspo: prediction that targets start from, of the EMA now or when sampled"
    )
    sampler: Literal["online", "ema"] = Field("online", description="weights that candidates are drawn from")
    ema_decay: float = Field(0.9, ge=0, lt=1, description="of the EMA weights, once an update")


class StageKeys(BaseModel):
    """Keys of methods that train in several runs, one after another; an error elsewhere."""

    stage: Literal["all", "gradient", "oracle"] = Field(
        "all",
        description="all: every stage of the method; gradient: one ordinary run with its loss on the given rows; "
        "oracle: compo's second stage alone",
    )


class RoundKeys(BaseModel):
    """Keys of methods that train in rounds on answers they sample themselves; an error elsewhere."""

    rounds: int = Field(3, ge=0, description="rounds after the first training on labelled pairs")
    seed_pairs: int = Field(
        2000, ge=1, description="rows of `data` whose labels are used; the others give prompts alone"
    )
    seed_selection: Literal["first", "random", "farthest"] = Field(
        "first",
        description="which rows those are; farthest: prompts far from each other, by the starting model's hidden states",
    )
    seed_epochs: float = Field(1.0, gt=0, description="passes over the labelled pairs before the first round")
    prompts: str | None = Field(
        None, description="prompts without labels, instead of those of the other rows of `data`"
    )
    prompts_per_round: int | None = Field(
        None, ge=1, description="new prompts of a round; None: all, shared out evenly"
    )
    responses: int = Field(
        2, ge=2, description="answers sampled a prompt; the best and the worst make a pair"
    )
    response_tokens: int = Field(300, ge=1, description="most new tokens of an answer")
    response_temperature: float = Field(0.7, gt=0, description="of sampling answers")
    response_top_p: float = Field(1.0, gt=0, le=1, description="nucleus that answers are sampled from")
    generation_server: str | None = Field(
        None,
        description="address of an OpenAI-compatible server that samples answers; it is asked for the round's model by "
        "its folder (`transformers serve`, started without a model, loads it). None: sample here",
    )
    accumulate: bool = Field(False, description="train each round on the pairs of all rounds so far")
    train_reference: Literal["start", "previous"] = Field(
        "start", description="reference of training: the starting model, or the one that begins the round"
    )
    epsilon: float = Field(
        0.01, ge=0, description="ssapo: radius of the ball, in the leader's units; 0: no adversary"
    )
    group_size: int | None = Field(
        None, ge=1, description="ssapo: pairs that share a budget; None: all of a round"
    )
    doubted_share: float = Field(
        0.1, ge=0, le=1, description="spa: share of a round's pairs, the least sure, that is smoothed"
    )


class SplitKeys(BaseModel):
    """Keys of which pairs compo takes for doubtful, and of what becomes of the others."""

    split_margin: float = Field(
        3.0,
        ge=0,
        description="delta, nats: pairs whose log-probabilities under the reference differ by no more are noisy",
    )
    split_rule: Literal["two_sided", "release"] = Field(
        "two_sided",
        description="noisy: differs by at most split_margin; release: the chosen one is likelier, by less",
    )
    noisy_pairs: int | None = Field(100, ge=1, description="first noisy pairs to use; None: all")
    first: Literal["dpo", "simpo"] = Field(
        "dpo", description="method of the first stage, on clean pairs; simpo brings its own keys"
    )


class OracleKeys(SplitKeys):
    """Keys of comparison oracles (compo); an error elsewhere."""

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
