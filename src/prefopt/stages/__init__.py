"""Methods of several runs, one after another, each an ordinary run with its own folder, report and checkpoints.

What lies between two runs (answers, scores, pairs) is data on disk, so the loop knows nothing of stages, a stage can be
looked at and repeated alone, and an interrupted method goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prefopt.config import ConfigError, TrainConfig, check_keys

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
    from prefopt import methods
    from prefopt.modalities.fit import kind_for
    from prefopt.modalities.models import at_its_revision
    from prefopt.stages.answers import answers_of
    from prefopt.training.run import run

    if reward is not None and config.reward is not None:
        raise ConfigError(f"reward is given as a function and by its name ({config.reward}): leave one out")
    config = at_its_revision(config)
    method = methods.find(config.method)
    if method is None or not method.stages or config.stage == "gradient":
        return run(config, hyper, reward)
    if method.stages == "twice" and config.stage2_data is None:
        return run(config, hyper, reward)
    modality = kind_for(config)
    check_keys(config, modality, given=hyper)
    if method.stages == "twice":
        from prefopt.stages.twice import train_twice

        return train_twice(config, hyper, reward)
    answers = answers_of(modality, config.model, method.name)
    if method.stages == "oracle":
        from prefopt.stages.compo import ONE_PAIR, train_compo

        if config.stage == "oracle":
            alone = ONE_PAIR | {"max_examples": config.max_examples or config.noisy_pairs}
            return run(config.model_copy(update=alone), hyper, reward)
        return train_compo(config, hyper, method, reward, answers)
    from prefopt.stages.rounds import train_in_rounds

    return train_in_rounds(config, hyper, method, reward, answers)
