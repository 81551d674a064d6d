"""Methods of several runs, one after another, each an ordinary run with its own folder, report and checkpoints.

What lies between two runs (answers, scores, pairs) is data on disk, so the loop knows nothing of stages, a stage can be
looked at and repeated alone, and an interrupted method goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prefopt.config import (
    IMAGE_RUN_FIELDS,
    ORACLE_FIELDS,
    ROUND_FIELDS,
    SPLIT_FIELDS,
    STAGED_FIELDS,
    ConfigError,
    TrainConfig,
    refuse_keys,
)

if TYPE_CHECKING:
    from prefopt.training.run import RunOutcome


def train(
    config: TrainConfig, hyper: Mapping[str, Any], reward: Callable[[Any, Any], float] | None = None
) -> RunOutcome:
    """Train by a method, whether of one run or of several.

    Args:
        config: resolved configuration.
        hyper: the objective's hyper-parameters.
        reward: see `prefopt.training.run.run`; also the judge of methods that need one and are given none.

    Raises:
        ConfigError, ValueError, OSError: bad input, before any expensive work.
        prefopt.training.loop.StopRun: training cannot go on; what is finished stays.
    """
    from prefopt import methods, modalities
    from prefopt.training.run import run

    method = methods.find(config.method)
    if method is None or not method.stages:
        refuse_keys(config, STAGED_FIELDS, f"for methods of several runs, and {config.method} is one run")
        return run(config, hyper, reward)
    if config.stage == "gradient":
        given = (
            f"for methods of several runs, and stage=gradient is a single run with the loss of {method.name}"
        )
        refuse_keys(config, STAGED_FIELDS - {"stage"}, given)
        return run(config, hyper, reward)
    kept = set() if method.stages == "oracle" else {"judge"}  # who labels is checked with the rounds
    refuse_keys(config, IMAGE_RUN_FIELDS - kept, f"for image models, and {method.name} trains text models")
    if "text" not in modalities.of_model(config.model).traits:
        raise ConfigError(f"{method.name} trains text models, and {config.model} is not one")
    if method.stages == "oracle":
        from prefopt.stages.compo import ONE_PAIR, train_compo

        refuse_keys(config, ROUND_FIELDS, f"for rounds, which {method.name} has none of")
        if config.stage == "oracle":
            unused = SPLIT_FIELDS - {"noisy_pairs"}
            refuse_keys(config, unused, "for the stage before, and stage=oracle is the second one alone")
            alone = ONE_PAIR | {"max_examples": config.max_examples or config.noisy_pairs}
            return run(config.model_copy(update=alone), hyper, reward)
        return train_compo(config, hyper, method, reward)
    refuse_keys(config, ORACLE_FIELDS, f"for comparison oracles, which {method.name} does not use")
    if config.stage == "oracle":
        raise ConfigError(f"stage=oracle belongs to compo; {method.name} has no such stage")
    from prefopt.stages.rounds import train_in_rounds

    return train_in_rounds(config, hyper, method, reward)


__all__ = ["train"]
