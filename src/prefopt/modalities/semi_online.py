"""The semi-online course as the configuration has it, for every modality whose samples are latents (images, motions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from prefopt.comparisons import Encoded
from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.denoising import DenoisingLikelihood
from prefopt.likelihoods.transition import inference_timesteps
from prefopt.modalities.base import Context
from prefopt.modalities.splits import PreparedData
from prefopt.objectives.base import Objective
from prefopt.references import Reference
from prefopt.sources.drawer import Drawer
from prefopt.sources.feeds import Feed
from prefopt.sources.schedule import Schedule
from prefopt.sources.semi_online import CALIBRATION, CandidateJudge, Collector
from prefopt.sources.semi_online_feed import SemiOnlineFeed


def check_course(config: TrainConfig, objective: Objective) -> None:
    """Raise ConfigError for settings that contradict each other, before anything is read."""
    if config.reference == "cached":
        raise ConfigError(
            f"reference=cached is of no use to {config.method}: its losers are new in every round. Leave reference out"
        )
    variant = getattr(objective, "variant", None)
    if config.pairs in ("online", "offline", "naive") and variant != "dsopo":
        raise ConfigError(
            f"pairs={config.pairs} compares samples with each other, which nothing weighs or vetoes: add variant=dsopo"
        )


def semi_online_feed(
    context: Context,
    model: nn.Module,
    likelihood: DenoisingLikelihood,
    scheduler: Any,
    judge: CandidateJudge,
    data: PreparedData,
    reference: Reference,
) -> Feed:
    """The feed of a run, its tau calibrated by samples of the starting model.

    Args:
        context: of the run.
        model: the policy, unwrapped, still with its first weights.
        likelihood: of the run.
        scheduler: of the pipeline.
        judge: of candidates.
        data: whose first ends win.
        reference: lends the starting model.

    Raises:
        ConfigError: a tau that no reward can reach.
        ValueError: the judge does not recognise the data.
    """
    config, accelerator = context.config, context.accelerator
    steps = config.num_inference_steps if config.candidate_steps is None else config.candidate_steps
    steps = min(steps, likelihood.process.n_train_timesteps)
    drawer = Drawer(
        likelihood=likelihood,
        steps_S2=inference_timesteps(scheduler, steps),
        eta=config.eta,
        guidance_scale=config.candidate_guidance_scale,
        at_once=config.candidates_at_once,
    )
    tau = getattr(context.objective, "tau", None)
    collector = Collector(
        drawer=drawer,
        judge=judge,
        pairs=config.pairs,
        candidates=config.candidates,
        similarity=config.similarity,
        tau=tau,
    )
    model.eval()
    with accelerator.autocast():
        made, found = collector.calibrate(
            model,
            some_of(data.train, likelihood, config.seed),
            config.tau_quantile if tau is None else None,
        )
    model.train()
    told = told_calibration(collector, found)
    context.record.check("calibration", "note", told)
    context.record.json("calibration", {**found, "tau": collector.tau, "candidates": config.candidates})
    context.console.say(f"calibration: {told}")
    schedule = Schedule.of(config, len(data.train), accelerator.num_processes)
    return SemiOnlineFeed(
        collector=collector,
        model=model,
        start=reference.model,
        examples=data.train,
        schedule=schedule,
        reuse=config.reuse_candidates,
        accelerator=accelerator,
        opening_examples=made,
    )


def some_of(
    examples: Sequence[Encoded[Any]], likelihood: DenoisingLikelihood, seed: int
) -> list[Encoded[Any]]:
    """Examples of the calibration, as the first epoch shows them; the same for the same data and seed."""
    order = np.random.default_rng([seed, 17]).permutation(len(examples))[:CALIBRATION]
    return [likelihood.shown(examples[i], 0) for i in order]


def told_calibration(collector: Collector, found: dict[str, Any]) -> str:
    """What the calibration found, in a sentence."""
    low, *_, high = found["worst_rewards"]
    parts = [
        f"the worst of {collector.candidates} samples of the starting model scores {low:.3f} to {high:.3f} "
        f"(10 to 90 % of {found['examples']} examples)"
    ]
    if "share" in found:
        parts.append(
            f"tau = {found['tau']:.4f}, so that {found['share']:.0%} of the losers are kept at first"
        )
    elif collector.tau is not None:
        parts.append(f"tau = {collector.tau:g} as given")
    if "recognition" in found:
        parts.append(
            f"the judge tells matched from shuffled data with AUC {found['recognition']:.3f}, matched data score "
            f"{found['matched_reward']:.3f}"
        )
    return "; ".join(parts)
