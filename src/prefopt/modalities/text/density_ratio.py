"""BCO's weights of undesirable samples: prompts as the starting model's hidden states, and a classifier of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefopt.comparisons import Encoded
from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.plan import EncodedText
from prefopt.modalities.base import Context
from prefopt.modalities.splits import PreparedData
from prefopt.modalities.text.prompt_embeddings import NoTrunk, embedded
from prefopt.sources.density_ratio import DensityRatios, density_ratios

COLUMN = "density_ratio"
CHANCE = 0.55
"""Held-out accuracy up to which the two kinds' prompts are told to be alike."""
DEPENDENT = ("prompt_sample_size", "min_density_ratio", "max_density_ratio")


def check_weights(config: TrainConfig) -> None:
    """Raise ConfigError for keys of weights that nobody asked for, or that contradict each other."""
    if not config.density_ratio_weights:
        given = [key for key in DEPENDENT if getattr(config, key) != TrainConfig.model_fields[key].default]
        if given:
            raise ConfigError(
                f"{', '.join(given)}: said of density-ratio weights, which are off: set density_ratio_weights=true, or "
                "leave it out"
            )
    elif config.min_density_ratio > config.max_density_ratio:
        raise ConfigError(
            f"min_density_ratio={config.min_density_ratio:g} is above max_density_ratio={config.max_density_ratio:g}"
        )


def weigh_prompts(context: Context, model: Any, pad_token_id: int, data: PreparedData) -> None:
    """Give every sample, trained on and held out, the column that BCO reads, and say what was found.

    Args:
        context: of the run.
        model: the policy before its first step, on its device.
        pad_token_id: for prompts of different lengths.
        data: whose examples are replaced.

    Raises:
        ConfigError: the rows bring weights of their own, or too few prompts; the model gives no hidden states.
    """
    config = context.config
    if any(COLUMN in e.comparisons[0].columns for e in (*data.train, *data.held_out)):
        raise ConfigError(
            f"the rows have a column {COLUMN}, which bco reads as the weight of undesirable ones: leave "
            f"density_ratio_weights out, or the column (ignore_columns=[{COLUMN}])"
        )
    prompts = sorted({prompt_of(e) for e in (*data.train, *data.held_out)})
    place = {prompt: k for k, prompt in enumerate(prompts)}
    count_2P = np.zeros((2, len(prompts)))
    for example in data.train:
        count_2P[:, place[prompt_of(example)]] += example.comparisons[0].outcome[:2]
    was_training = model.training
    model.eval()
    try:
        with context.accelerator.autocast():
            point_PD = embedded(model, prompts, config.per_device_eval_batch_size, pad_token_id)
        found = density_ratios(point_PD, count_2P[0], count_2P[1], config.prompt_sample_size, config.seed)
    except NoTrunk:
        raise ConfigError(
            f"density_ratio_weights needs hidden states, and {config.model} does not say what gives them: leave it out, or "
            f"give the rows a column {COLUMN}"
        ) from None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    finally:
        model.train(was_training)
    weight_P = found.ratio_P.clip(config.min_density_ratio, config.max_density_ratio)
    data.train, data.held_out = (
        [weighed(e, float(weight_P[place[prompt_of(e)]])) for e in part]
        for part in (data.train, data.held_out)
    )
    tell(context, found, weight_P[count_2P[1] > 0])


def prompt_of(example: Encoded[EncodedText]) -> tuple[int, ...]:
    """Token ids before the sample."""
    item = example.items[0]
    return tuple(item.ids[: item.start])


def weighed(example: Encoded[EncodedText], weight: float) -> Encoded[EncodedText]:
    """An example with its weight."""
    edges = tuple(replace(e, columns={**e.columns, COLUMN: weight}) for e in example.comparisons)
    return replace(example, comparisons=edges)


def tell(context: Context, found: DensityRatios, weight: Sequence[float] | np.ndarray) -> None:
    """Put the classifier's accuracy and the range of weights into the manifest, and say them."""
    low, high = float(np.min(weight)), float(np.max(weight))
    at_bounds = np.isin(weight, (context.config.min_density_ratio, context.config.max_density_ratio)).mean()
    told = (
        f"prompts of desirable and undesirable samples are told apart with accuracy {found.accuracy:.2f} (0.5 is chance; "
        f"{found.sampled} prompts, each judged by a classifier that has not seen it); weights of undesirable samples from "
        f"{low:.3g} to {high:.3g}, mean {float(np.mean(weight)):.3g}, {at_bounds:.0%} of them at a bound"
    )
    if found.accuracy < CHANCE:
        told += ". They seem to be of one kind, so that the weights say little"
    context.record.manifest(
        density_ratio={
            "accuracy": found.accuracy,
            "prompts": found.sampled,
            "least": low,
            "greatest": high,
            "mean": float(np.mean(weight)),
            "at_bounds": float(at_bounds),
        }
    )
    context.record.check("density-ratio weights", "note", told)
    context.console.say(told)


__all__ = ["check_weights", "weigh_prompts"]
