"""ComPO's two stages: the gradient of a loss on clear pairs, then a comparison oracle on the doubtful ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from prefopt.config import TrainConfig, resolve
from prefopt.config.keys.oracle import OracleKeys
from prefopt.files import GO_ON, write_whole
from prefopt.methods import Method
from prefopt.objectives.registry import hyperparameter_names
from prefopt.oracles.comparison import is_noisy
from prefopt.sources.report import write_dropped
from prefopt.stages.answers import Answers, Pairs
from prefopt.stages.folder import Reward, StagedFolder, write_rows
from prefopt.stages.judging import known_reward
from prefopt.training.run import RunOutcome, build_objective

ONE_PAIR: dict[str, Any] = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "optim": "sgd",
}
"""Keys of every oracle's run: one pair an iteration, and an optimizer that keeps nothing, since it never steps."""


def train_compo(
    config: TrainConfig, hyper: Mapping[str, Any], method: Method, reward: Reward | None, answers: Answers
) -> RunOutcome:
    """Split, train on the clean pairs, then ask about the noisy ones; a stage without pairs is left out.

    Args:
        config: of the method.
        hyper: of both stages' objectives.
        method: to find out which of them the oracle's takes.
        reward: of (prompt, answer), reported on samples.
        answers: what the model's modality offers.

    Raises:
        ConfigError, ValueError, OSError: bad input, before any expensive work.
        StopRun: a run cannot go on.
    """
    answers.check_oracle(config)
    first_keys, first_hyper = first_stage(config, hyper)
    oracle_hyper = taken_by(method.name, hyper)
    verify = known_reward(config, reward)
    with StagedFolder(config, hyper) as folder:
        config = folder.config
        split = folder.path / "stages" / "data" / "split.json"
        pairs = None
        if not (folder.resuming and split.exists()):
            pairs = answers.read_pairs(config, build_objective(config, oracle_hyper))
        folder.open()
        data = folder.stage("data")
        if pairs is not None:
            write_whole(split, json.dumps(split_pairs(config, pairs, data), indent=1), advice=GO_ON)
        found = json.loads(split.read_text("utf-8"))
        folder.begin(told_of(found), found["clean"] + found["noisy"])
        held_out = {
            "eval_data": str(data / "held_out.jsonl") if (data / "held_out.jsonl").exists() else None,
            "eval_size": 0,
        }
        model: Path | None = None
        if found["clean"]:
            keys = {"data": str(data / "clean.jsonl"), "label_noise": 0.0, **held_out, **first_keys}
            model = folder.run("clean", verify, first_hyper, {"pairs": found["clean"]}, **keys)
        if found["noisy"]:
            start = config.model if model is None else str(model)
            keys = {**oracle_keys(config, start, data / "noisy.jsonl"), **held_out}
            model = folder.run("noisy", verify, oracle_hyper, {"pairs": found["noisy"]}, **keys)
        assert model is not None, "reading refuses empty data"
        return folder.finish(model)


def told_of(found: Mapping[str, Any]) -> str:
    """The split in a sentence or two."""
    told = (
        f"{found['clean']:,} clear pairs; {found['noisy_found']:,} doubtful ones (log-probabilities under the reference "
        f"within {found['split_margin']:g} nats), of which {found['noisy']:,} were asked about."
    )
    if found["dropped"]:
        told += f" {found['dropped']:,} rows were left out; stages/data/dropped.jsonl says why."
    return told


def first_stage(config: TrainConfig, hyper: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and hyper-parameters of the first stage, checked now.

    Raises:
        ConfigError: hyper-parameters that its loss does not take.
    """
    given = {"method": config.first, "model": config.model, "data": config.data}
    _, own = resolve({**given, **taken_by(config.first, hyper)})
    return {"method": config.first}, own


def taken_by(name: str, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Those hyper-parameters that an objective takes."""
    names = set(hyperparameter_names(name))
    return {k: v for k, v in hyper.items() if k in names}


def oracle_keys(config: TrainConfig, model: str, data: Path) -> dict[str, Any]:
    """What the second stage changes: one pair an iteration, one pass, no optimizer."""
    return {
        **{name: getattr(config, name) for name in OracleKeys.model_fields}, **ONE_PAIR,
        "stage": "oracle", "model": model, "data": str(data), "label_noise": 0.0,
        # the start for both stages, so that their accuracies and KL can be compared
        "reference_model": config.reference_model or config.model,
        "per_device_train_batch_tokens": None, "num_train_epochs": 1.0, "max_steps": None, "gradient_checkpointing": False,
    }  # fmt: skip


def split_pairs(config: TrainConfig, pairs: Pairs, folder: Path) -> dict[str, Any]:
    """Score every pair under the starting model and write clean, noisy and held-out rows, each with its margin.

    Returns:
        Counts, and lengths of both parts: a fixed `split_margin` mostly finds short pairs, and pairs of equal length.

    Raises:
        ConfigError: nothing is named as `perturbed` says.
    """
    margins = pairs.margins()
    flags = is_noisy(
        torch.tensor(margins, dtype=torch.float64), config.split_margin, config.split_rule
    ).tolist()
    rows = [row | {"ref_margin": margin} for row, margin in zip(pairs.rows, margins, strict=True)]
    lengths = pairs.lengths
    clean = [k for k, noisy in enumerate(flags) if not noisy]
    noisy = [k for k, flag in enumerate(flags) if flag]
    used = noisy[: config.noisy_pairs]
    write_rows(folder / "clean.jsonl", (rows[k] for k in clean))
    write_rows(folder / "noisy.jsonl", (rows[k] for k in used))
    write_dropped(pairs.dropped, folder / "dropped.jsonl", GO_ON)
    if pairs.held_out:
        write_rows(folder / "held_out.jsonl", pairs.held_out)
    return {
        "split_margin": config.split_margin,
        "rule": config.split_rule,
        "clean": len(clean),
        "noisy": len(used),
        "noisy_found": len(noisy),
        "dropped": len(pairs.dropped),
        "clean_mean_tokens": mean_of(lengths, clean),
        "noisy_mean_tokens": mean_of(lengths, noisy),
    }


def mean_of(values: list[float], chosen: list[int]) -> float | None:
    """Mean of some values; None of none."""
    return sum(values[k] for k in chosen) / len(chosen) if chosen else None
