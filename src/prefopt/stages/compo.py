"""ComPO's two stages: the gradient of a loss on clear pairs, then a comparison oracle on the doubtful ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from prefopt.comparisons import Encoded
from prefopt.config import TrainConfig, resolve
from prefopt.config.keys.oracle import OracleKeys
from prefopt.evaluation.answers import sequence_logps
from prefopt.files import GO_ON, write_whole
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.methods import Method
from prefopt.modalities.splits import read
from prefopt.modalities.text.encoding import encode_examples
from prefopt.modalities.text.oracle import check_oracle, moved_parameters
from prefopt.modalities.text.rows import load_comparisons
from prefopt.models.loading import load_tokenizer
from prefopt.models.positions import likelihood_for
from prefopt.objectives.registry import hyperparameter_names
from prefopt.oracles.comparison import is_noisy
from prefopt.sources.report import Dropped, write_dropped
from prefopt.stages.folder import Reward, StagedFolder, write_rows
from prefopt.stages.labels import check_start, folder_of, loaded, source_folder
from prefopt.stages.material import row_of, verifier
from prefopt.stages.page import shown, write_page
from prefopt.training.run import RunOutcome, build_objective

ONE_PAIR: dict[str, Any] = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "optim": "sgd",
}
"""Keys of every oracle's run: one pair an iteration, and an optimizer that keeps nothing, since it never steps."""


def train_compo(
    config: TrainConfig, hyper: Mapping[str, Any], method: Method, reward: Reward | None
) -> RunOutcome:
    """Split, train on the clean pairs, then ask about the noisy ones; a stage without pairs is left out.

    Raises:
        ConfigError, ValueError, OSError: bad input, before any expensive work.
        StopRun: a run cannot go on.
    """
    check_oracle(config)
    first_keys, first_hyper = first_stage(config, hyper)
    oracle_hyper = taken_by(method.name, hyper)
    verify = reward or verifier(config)
    with StagedFolder(config, hyper) as folder:
        config = folder.config
        split = folder.path / "stages" / "data" / "split.json"
        pairs = None if folder.resuming and split.exists() else read_pairs(config, oracle_hyper)
        folder.open()
        data = folder.stage("data")
        if pairs is not None:
            write_whole(split, json.dumps(split_pairs(config, pairs, data), indent=1), advice=GO_ON)
        found = json.loads(split.read_text("utf-8"))
        held_out = {
            "eval_data": str(data / "held_out.jsonl") if (data / "held_out.jsonl").exists() else None,
            "eval_size": 0,
        }
        summary: list[dict[str, Any]] = []
        outcome: RunOutcome | None = None
        model = config.model
        if found["clean"]:
            outcome = folder.run(
                "clean",
                verify,
                first_hyper,
                data=str(data / "clean.jsonl"),
                label_noise=0.0,
                **held_out,
                **first_keys,
            )
            model = str(outcome.output_dir / "model")
            summary.append({"stage": "clean", "pairs": found["clean"], **shown(outcome.metrics)})
        if found["noisy"]:
            outcome = folder.run(
                "noisy", verify, oracle_hyper, **oracle_keys(config, model, data / "noisy.jsonl"), **held_out
            )
            summary.append({"stage": "noisy", "pairs": found["noisy"], **shown(outcome.metrics)})
        assert outcome is not None, "reading refuses empty data"
        folder.take_model(outcome.output_dir / "model")
        told = (
            f"{found['clean']:,} clear pairs; {found['noisy_found']:,} doubtful ones (log-probabilities under the reference "
            f"within {found['split_margin']:g} nats), of which {found['noisy']:,} were asked about."
        )
        if found["dropped"]:
            told += f" {found['dropped']:,} rows were left out; stages/data/dropped.jsonl says why."
        write_page(folder.path, config, method, summary, told)
        # says that all is there
        told_all = json.dumps({"split": found, "stages": summary}, indent=1)
        write_whole(folder.path / "stages.json", told_all, advice=GO_ON)
        return RunOutcome(folder.path, outcome.metrics, outcome.history)


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


@dataclass(frozen=True)
class Pairs:
    """Usable pairs, as rows and encoded, before the split."""

    rows: list[dict[str, Any]]
    encoded: list[Encoded[EncodedText]]
    held_out: list[dict[str, Any]]
    dropped: list[Dropped]
    likelihood: TokenLikelihood
    source: str


def read_pairs(config: TrainConfig, hyper: Mapping[str, Any]) -> Pairs:
    """Read and tokenize; nothing is written, no weights are loaded.

    Raises:
        ConfigError, ValueError, OSError: no usable pair.
    """
    parts = read(config, build_objective(config, hyper), load_comparisons)
    check_start(config, load_tokenizer(folder_of(config.model)))
    source = source_folder(config)
    likelihood = likelihood_for(source, config.max_length)
    train = encode_examples(parts.train, likelihood)
    examples = {e.id: e for e in parts.train.examples}
    return Pairs(
        rows=[row_of(examples[e.id]) for e in train.examples],
        encoded=train.examples,
        held_out=[row_of(e) for e in parts.held_out.examples],
        dropped=train.dropped,
        likelihood=likelihood,
        source=source,
    )


def split_pairs(config: TrainConfig, pairs: Pairs, folder: Path) -> dict[str, Any]:
    """Score every pair under the starting model and write clean, noisy and held-out rows, each with its margin.

    Returns:
        Counts, and lengths of both parts: a fixed `split_margin` mostly finds short pairs, and pairs of equal length.

    Raises:
        ConfigError: nothing is named as `perturbed` says.
    """
    network = loaded(config, pairs.source)
    moved_parameters(
        network, config.perturbed
    )  # a name that nothing has is found now, not after the first stage
    pairs.likelihood.adapt(network)
    logp_N2 = torch.tensor(
        sequence_logps(network, pairs.likelihood, [item for e in pairs.encoded for item in ends(e)]),
        dtype=torch.float64,
    ).view(-1, 2)
    del network
    margin_N = logp_N2[:, 0] - logp_N2[:, 1]
    noisy_N = is_noisy(margin_N, config.split_margin, config.split_rule).tolist()
    rows = [row | {"ref_margin": margin} for row, margin in zip(pairs.rows, margin_N.tolist(), strict=True)]
    lengths = [sum(item.length for item in ends(e)) / 2 for e in pairs.encoded]
    clean = [k for k, noisy in enumerate(noisy_N) if not noisy]
    noisy = [k for k, flag in enumerate(noisy_N) if flag]
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


def ends(example: Any) -> tuple[Any, Any]:
    """(chosen, rejected) of an encoded pair."""
    edge = example.comparisons[0]
    return example.items[edge.first], example.items[edge.second]


def mean_of(values: list[float], chosen: list[int]) -> float | None:
    """Mean of some values; None of none."""
    return sum(values[k] for k in chosen) / len(chosen) if chosen else None
