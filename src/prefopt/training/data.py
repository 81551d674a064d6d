"""From a configuration to encoded training and held-out examples."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prefopt.comparisons import Encoded, Example
from prefopt.config import ConfigError, TrainConfig
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.objectives.base import Objective
from prefopt.sources.encoding import encode_examples
from prefopt.sources.hints import method_hints
from prefopt.sources.report import Dropped
from prefopt.sources.rows import Comparisons, load_comparisons
from prefopt.sources.ties import apply_ties_policy
from prefopt.sources.unpaired import unpair

WORLD_PREFIX = "world:"
WORLD_PROMPTS = {"train": 400, "test": 100}

Verifier = Callable[[str, str], float]


@dataclass
class PreparedData:
    """What a run trains and is judged on.

    Attributes:
        train, held_out: encoded examples.
        prompts: conditions for sampling, from the held-out rows, each prompt once.
        verify: exact reward of (prompt text, completion), where the data comes from a world.
        report: data report as JSON values.
        dropped: rows that could not be used.
        fingerprint: digest of all encoded examples in order.
    """

    train: list[Encoded[EncodedText]]
    held_out: list[Encoded[EncodedText]]
    prompts: list[dict[str, Any]]
    verify: Verifier | None
    report: dict[str, Any]
    dropped: list[Dropped]
    fingerprint: str


def world_of(source: str) -> Any:
    """The world that a `world:NAME` source names, None for anything else."""
    if not source.startswith(WORLD_PREFIX):
        return None
    from prefopt.worlds import get_world

    return get_world(source.removeprefix(WORLD_PREFIX))


def load(source: str, config: TrainConfig, split: str) -> Comparisons:
    """Comparisons of a file, folder, hub id or world."""
    world = world_of(source)
    if world is None:
        comparisons = load_comparisons(
            source, split=split, config_name=config.data_config, columns=config.columns
        )
    else:
        rows = world.comparisons(
            WORLD_PROMPTS["test" if split == "test" else "train"],
            split="test" if split == "test" else "train",
            label_noise=config.label_noise if split != "test" else 0.0,
            seed=config.seed,
        )
        comparisons = load_comparisons(rows, columns=config.columns)
        comparisons = replace(comparisons, report=replace(comparisons.report, source=source))
    if config.max_examples is not None:
        comparisons = replace(comparisons, examples=comparisons.examples[: config.max_examples])
    return comparisons


def suit(comparisons: Comparisons, objective: Objective, config: TrainConfig) -> Comparisons:
    """Turn pairs into what the objective takes: single samples, or pairs without ties."""
    singles = comparisons.examples and comparisons.examples[0].comparisons[0].second is None
    if objective.unpaired:
        return comparisons if singles else unpair(comparisons, config.ties)
    if singles:
        raise ConfigError(
            f"{config.method} compares pairs, but {config.data} holds single labelled samples: use kto or bco, "
            "or give rows with chosen and rejected"
        )
    if objective.has_tie_term and config.ties is None:
        return comparisons
    return apply_ties_policy(comparisons, config.ties)


def prompt_key(example: Example) -> str:
    """A string that is equal for equal conditions."""
    return json.dumps(dict(example.items[0].condition), sort_keys=True, default=str)


def hold_out(comparisons: Comparisons, size: float, seed: int) -> tuple[Comparisons, Comparisons]:
    """Split whole prompts off: a prompt never has rows on both sides.

    Args:
        comparisons: all rows.
        size: a share of the rows below 1, or a number of rows.
        seed: of the choice.
    """
    n = round(size * len(comparisons)) if size < 1 else int(size)
    if n == 0:
        return comparisons, replace(comparisons, examples=[])
    groups: dict[str, list[Example]] = {}
    for example in comparisons.examples:
        groups.setdefault(prompt_key(example), []).append(example)
    keys = list(groups)
    held: set[str] = set()
    count = 0
    for k in np.random.default_rng([seed, 7]).permutation(len(keys)):
        if count >= n or len(held) + 1 == len(keys):  # at least one prompt stays for training
            break
        held.add(keys[k])
        count += len(groups[keys[k]])
    train = [e for e in comparisons.examples if prompt_key(e) not in held]
    return replace(comparisons, examples=train), replace(
        comparisons, examples=[e for e in comparisons.examples if prompt_key(e) in held]
    )


def prepare(config: TrainConfig, objective: Objective, likelihood: TokenLikelihood) -> PreparedData:
    """Read, split, encode.

    Raises:
        ConfigError, ValueError, OSError: see the sources; always before any model runs.
    """
    everything = load(config.data, config, config.split)
    hints = method_hints(everything.report, config.method, objective.has_tie_term, objective.unpaired)
    if config.eval_data is not None:
        train, held_out = (
            everything,
            load(config.eval_data, config, "test" if world_of(config.eval_data) else "train"),
        )
    elif world_of(config.data) is not None:
        train, held_out = everything, load(config.data, config, "test")
    else:
        train, held_out = hold_out(everything, config.eval_size, config.seed)
    prompts = list(
        {prompt_key(e): dict(e.items[0].condition) for e in held_out.examples or train.examples}.values()
    )
    encoded = encode_examples(suit(train, objective, config), likelihood.encode)
    encoded_held: list[Encoded[EncodedText]] = []
    dropped = list(encoded.dropped)
    if held_out.examples:
        other = encode_examples(suit(held_out, objective, config), likelihood.encode)
        encoded_held = other.examples
        known = {(d.row, d.reason) for d in dropped}
        dropped += [d for d in other.dropped if (d.row, d.reason) not in known]
    report = encoded.report.to_dict()
    report["hints"] = [{"level": h.level, "text": h.text} for h in hints] + list(report["hints"])
    ties = any(edge.outcome.tie > 0 for e in encoded.examples for edge in e.comparisons)
    objective.check_data(ties)
    train_examples, held_examples = encoded.examples, encoded_held
    if "rho_mismatched" in objective.needs:
        train_examples = with_mismatched(train_examples, likelihood.max_length)
        held_examples = with_mismatched(held_examples, likelihood.max_length)
    world = world_of(config.data)
    return PreparedData(
        train=train_examples,
        held_out=held_examples,
        prompts=prompts,
        verify=None if world is None else world.verify,
        report=report,
        dropped=dropped,
        fingerprint=digest([*train_examples, *held_examples]),
    )


def with_mismatched(
    examples: Sequence[Encoded[EncodedText]], max_length: int | None
) -> list[Encoded[EncodedText]]:
    """Give each example its prompt followed by the next row's completion (KTO's estimate of the KL term)."""
    out = []
    for i, example in enumerate(examples):
        own, other = example.items[0], examples[(i + 1) % len(examples)].items[0]
        ids = own.ids[: own.start] + other.ids[other.start :]
        ids = array("i", ids[:max_length]) if max_length is not None else ids
        out.append(replace(example, aside=(EncodedText(ids, own.start),)))
    return out


def digest(examples: Sequence[Encoded[EncodedText]]) -> str:
    """Digest of ids, tokens and edges, in order."""
    h = hashlib.blake2b(digest_size=16)
    for example in examples:
        h.update(example.id.encode())
        for item in (*example.items, *example.aside):
            h.update(item.start.to_bytes(4, "little") + item.ids.tobytes())
        h.update(repr(example.comparisons).encode())
    return h.hexdigest()
