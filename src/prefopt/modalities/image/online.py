"""Image methods that compare their own samples: SPO, LPO, GradSPO, D3PO."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from prefopt import methods
from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.process import Process
from prefopt.likelihoods.steps import (
    GuidedNetwork,
    GuidedTarget,
    StepPlan,
    TransitionLikelihood,
    predicted_noise,
)
from prefopt.likelihoods.transition import inference_timesteps, stochastic
from prefopt.modalities.base import Context, Setup
from prefopt.modalities.image.judges import find_judge, judge_spec
from prefopt.modalities.image.models.denoiser import denoise
from prefopt.modalities.image.models.pipelines import check_pipeline_source
from prefopt.modalities.image.offline import finish, load_policy, make_store
from prefopt.modalities.image.rows import load_prompts
from prefopt.modalities.models import model_folder
from prefopt.modalities.splits import PreparedData, columns_as, one_eval_source, same_source
from prefopt.models.ema import EMA
from prefopt.references import Reference
from prefopt.sources.feeds import Feed
from prefopt.sources.files import evaluation_split
from prefopt.sources.online import Gap, StepSampler, TrajectorySampler
from prefopt.sources.online_feed import OnlineFeed
from prefopt.sources.schedule import Schedule
from prefopt.worlds import world_of, world_prompts


def set_up(context: Context) -> Setup:
    """Prompts first, then the pipeline, the judge and the sampler.

    Raises:
        ConfigError, ValueError, OSError: see `image.setup.set_up`; a schedule whose steps have no density.
    """
    config, accelerator = context.config, context.accelerator
    method = methods.find(config.method)
    assert method is not None  # `image.setup.set_up` found it
    if config.reference == "cached":
        raise ConfigError(
            f"reference=cached is of no use to {config.method}: its states are new in every round. Leave reference out"
        )
    judge_spec(config)
    if config.candidates < 2:
        raise ConfigError(f"candidates={config.candidates}: {config.method} compares two samples or more")
    source = model_folder(config.model, accelerator)
    check_pipeline_source(source)
    prompts, held_out, data = read_prompts(config)
    context.announce(data, None, n=(len(prompts), 0))

    loaded = load_policy(context, source)
    store = make_store(context, loaded)
    store.add_prompts(list(dict.fromkeys(text for _, text in prompts)))
    process = Process.from_scheduler(loaded.scheduler)
    steps_S2 = inference_timesteps(stochastic(loaded.scheduler), config.num_inference_steps)
    if method.likelihood == "guided":
        check_noise_is_predicted(process, steps_S2, config.first_compared_step)
    guided = GuidedNetwork(
        process=process,
        network=partial(denoise, loaded.family),
        conditions=store.conditions,
        scale=config.guidance_scale,
    )
    judge = find_judge(context, loaded)
    ema = EMA(loaded.model, config.ema_decay) if config.sampler == "ema" else None
    likelihood: TransitionLikelihood
    if method.likelihood == "guided":
        likelihood = GuidedTarget(
            guided=guided,
            eta=config.eta,
            grad_scale=config.grad_scale,
            temporal_weight=config.temporal_weight,
            anchor=None if config.anchor == "cached" else live_anchor(guided, ema, loaded.model),
        )
    else:
        likelihood = TransitionLikelihood(guided=guided, eta=config.eta)
    collector: StepSampler | TrajectorySampler
    if method.samples == "trajectories":
        collector = TrajectorySampler(
            guided=guided,
            steps_S2=steps_S2,
            shape=store.shape,
            judge=judge,
            eta=config.eta,
            candidates=config.candidates,
            seed=config.seed,
        )
    else:
        directions: Literal["half_difference", "noise"] = (
            "half_difference" if config.average_noise else "noise"
        )
        collector = StepSampler(
            guided=guided,
            steps_S2=steps_S2,
            shape=store.shape,
            judge=judge,
            gap=threshold_of(config),
            eta=config.eta,
            candidates=config.candidates,
            first=config.first_compared_step,
            last=config.last_compared_step,
            continue_from=config.continue_from,
            judge_timestep=config.judge_timestep,
            seed=config.seed,
            keep_anchor=method.likelihood == "guided" and config.anchor == "cached",
            store_noise=directions if method.likelihood == "guided" else "sample",
        )

    def feed(reference: Reference) -> Feed:
        return OnlineFeed(
            collector=collector,
            model=loaded.model,
            prompts=prompts,
            schedule=Schedule(
                n_examples=len(prompts),
                per_device=config.prompts_per_step,
                accumulation=1,
                processes=accelerator.num_processes,
                epochs=config.num_train_epochs,
                max_steps=config.max_steps,
                seed=config.seed,
            ),
            update_size=config.per_device_train_batch_size
            * config.gradient_accumulation_steps
            * accelerator.num_processes,
            accelerator=accelerator,
            ema=ema,
            sample_from_ema=config.sampler == "ema",
            warn=context.console.say,
        )

    return finish(context, loaded, store, likelihood, data, held_out, feed=feed)


def check_noise_is_predicted(process: Process, steps_S2: Tensor, first: int) -> None:
    """Raise ConfigError where a compared step begins at pure noise: there the predicted noise is x_t itself."""
    if first < len(steps_S2) and float(process.alpha(steps_S2[first : first + 1, 0])) == 0:
        raise ConfigError(
            f"reverse step {first} of this model begins at pure noise, where the predicted noise is the latent itself "
            f"and a guided target teaches nothing: set first_compared_step={first + 1} or above"
        )


def live_anchor(guided: GuidedNetwork, ema: EMA | None, model: nn.Module) -> Any:
    """Predictions of the averaged weights as they are now; of the present weights where none are averaged."""

    def predict(_: nn.Module, plan: StepPlan) -> Tensor:
        if ema is None:
            return predicted_noise(guided, model, plan)
        with ema.swapped_in():
            return predicted_noise(guided, model, plan)

    return predict


def threshold_of(config: TrainConfig) -> Gap:
    """One threshold, or two ends of a range."""
    given = config.threshold if isinstance(config.threshold, list) else [config.threshold] * 2
    if len(given) != 2:
        raise ConfigError(f"threshold is one number or [low, high]; given {config.threshold}")
    return Gap(given[0], given[1], config.threshold_rule)


def read_prompts(config: TrainConfig) -> tuple[list[tuple[str, str]], list[str], PreparedData]:
    """Prompts to train on as (id, text), prompts for samples, and an account of both."""
    world = world_of(config.data)
    why: str | None = None
    if world is not None:
        texts = world.prompts(world_prompts(config.data, "train"), split="train")
        prompts = [(f"{config.data}/{n}", text) for n, text in enumerate(texts)]
        held_out, dropped = world.prompts(config.sample_prompts, split="test"), []
    else:
        found = load_prompts(
            config.data, split=config.split, config_name=config.data_config, columns_as=columns_as(config)
        )
        prompts, dropped = [(p.id, p.prompt) for p in found], found.dropped
        judged = one_eval_source(config)
        if judged is not None:
            held_out = judged_prompts(config, judged)
            if set(held_out) <= {text for _, text in prompts}:
                why = "nothing is held out: every prompt of eval_data is also trained on"
        else:
            why = "nothing is held out (no eval_data): samples are drawn on training prompts"
            held_out = list(dict.fromkeys(text for _, text in prompts))
    if config.max_examples is not None:
        prompts = prompts[: config.max_examples]
    report = {
        "source": config.data,
        "rows": len(prompts) + len(dropped),
        "examples": len(prompts),
        "comparisons": {"prompts": len(prompts)},
        "dropped": dict(Counter(d.reason for d in dropped)),
        "truncated": {},
        "hints": [],
    }
    data = PreparedData([], [], [], report, list(dropped), digest_prompts(prompts), why)
    return prompts, held_out, data


def judged_prompts(config: TrainConfig, source: str) -> list[str]:
    """Prompts of `eval_data`."""
    if (world := world_of(source)) is not None:
        return list(world.prompts(config.sample_prompts, split="test"))
    trained = config.split if same_source(source, config.data) else None
    split = config.eval_split or evaluation_split(source, config.data_config, trained)
    found = load_prompts(
        source, split=split, config_name=config.data_config, columns_as=columns_as(config, judged=True)
    )
    return [p.prompt for p in found]


def digest_prompts(prompts: list[tuple[str, str]]) -> str:
    """Digest of ids and texts, in order."""
    h = hashlib.blake2b(digest_size=16)
    for i, text in prompts:
        h.update(f"{i}\0{text}\0".encode())
    return h.hexdigest()
