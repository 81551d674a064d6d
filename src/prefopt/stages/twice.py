"""One loss on one data set and then on another: the second stage begins where the first ends, which is its reference."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.config import ConfigError, TrainConfig
from prefopt.sources.files import load_rows
from prefopt.stages.folder import ONE_RUN, Reward, StagedFolder, write_rows
from prefopt.training.run import RunOutcome, build_objective
from prefopt.worlds import world_of, world_prompts


def train_twice(config: TrainConfig, hyper: Mapping[str, Any], reward: Reward | None) -> RunOutcome:
    """Train on `data`, then on `stage2_data`.

    Args:
        config: of the method; both stages have all of it but data, model and reference.
        hyper: of the objective.
        reward: of (condition, answer), reported on samples.

    Raises:
        ConfigError, ValueError, OSError: bad input, before any expensive work; StopRun: a run cannot go on.
    """
    build_objective(config, hyper)
    second = str(config.stage2_data)
    world = world_of(second)
    judge = reward or (None if world is None or config.reward is not None else world.verify)
    count = len(load_rows(second, config.split, config.data_config)) if world is None else None
    check_world(second)
    with StagedFolder(config, hyper) as folder:
        config = folder.config
        folder.open()
        told = "The first stage is trained on data, the second, which begins where it ends, on stage2_data."
        folder.begin(told, examples_of(config))
        as_given = {name: getattr(config, name) for name in ONE_RUN}
        model = folder.run("1", reward, hyper, {}, **as_given)
        later = {**as_given, **second_data(config, folder.stage("2"))}
        # its start is its reference, whatever the first one's was
        start = {"model": str(model), "reference_model": None}
        found = {} if count is None else {"pairs": count}
        return folder.finish(folder.run("2", judge, hyper, found, **later, **start))


def examples_of(config: TrainConfig) -> int:
    """Rows of the first stage's data."""
    if world_of(config.data) is not None:
        return world_prompts(config.data, config.split)
    return len(load_rows(config.data, config.split, config.data_config))


def check_world(source: str) -> None:
    """Refuse a world that has no second stage."""
    world = world_of(source)
    if world is not None and "stage" not in inspect.signature(world.comparisons).parameters:
        raise ConfigError(f"stage2_data: {source} has rows of one stage only; give a file, or another world")


def second_data(config: TrainConfig, place: Path) -> dict[str, Any]:
    """Where the second stage's rows are; a world's are written down first, and those to judge by beside them."""
    source = str(config.stage2_data)
    world = world_of(source)
    if world is None:
        return {"data": source, "eval_data": None}
    for split, name in (("train", "rows.jsonl"), ("test", "held_out.jsonl")):
        if not (place / name).exists():
            noise = config.label_noise if split == "train" else 0.0
            count = world_prompts(source, split)
            rows = world.comparisons(count, split=split, label_noise=noise, seed=config.seed, stage=2)
            write_rows(place / name, rows)
    return {
        "data": str(place / "rows.jsonl"), "eval_data": str(place / "held_out.jsonl"), "label_noise": 0.0, "split": "train",
    }  # fmt: skip
