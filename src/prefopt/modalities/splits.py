"""From a configuration to training and held-out comparisons, for every modality."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from prefopt import methods
from prefopt.comparisons import WIN, Encoded, Example
from prefopt.config import ConfigError, TrainConfig
from prefopt.objectives.base import Objective
from prefopt.sources.collecting import Comparisons
from prefopt.sources.columns import ColumnsAs
from prefopt.sources.files import evaluation_split
from prefopt.sources.hints import method_hints, recount
from prefopt.sources.overlap import overlap_hints, rows_in_common
from prefopt.sources.report import Dropped, Hint
from prefopt.sources.ties import apply_ties_policy
from prefopt.sources.unpaired import unpair
from prefopt.worlds import world_of, world_prompts


@dataclass(frozen=True)
class Split:
    """Comparisons to train on and to judge by, in the form that the objective takes, not yet encoded."""

    train: Comparisons
    held_out: Comparisons
    prompts: list[dict[str, Any]]
    """Conditions for sampling, from the held-out rows where there are any, each once."""
    hints: list[Hint]
    not_held_out: str | None = None
    """Why nothing is held out; None where something is."""


@dataclass
class PreparedData:
    """What a run trains and is judged on.

    Attributes:
        train, held_out: encoded examples.
        prompts: conditions for sampling, from the held-out rows, each prompt once.
        report: data report as JSON values.
        dropped: rows that could not be used.
        fingerprint: digest of all encoded examples in order.
        not_held_out: why `prompts`, and what evaluations look at, are training rows; None where they are held out.
    """

    train: list[Encoded[Any]]
    held_out: list[Encoded[Any]]
    prompts: list[dict[str, Any]]
    report: dict[str, Any]
    dropped: list[Dropped] = field(default_factory=list)
    fingerprint: str = ""
    not_held_out: str | None = None


def read(config: TrainConfig, objective: Objective, load: Callable[..., Comparisons]) -> Split:
    """Read rows, set some aside, and give both parts the form that the objective takes.

    Args:
        config: names the sources.
        objective: decides on pairs or single samples, and on ties.
        load: the modality's reader of rows: `load(source, split=..., config_name=..., columns=...)`.

    Raises:
        ConfigError, ValueError, OSError: see the sources; always before any model runs.
    """
    everything = load_source(config.data, config, config.split, load)
    hints: list[Hint] = []
    shared = 0
    if config.eval_data is not None:
        train, held_out = everything, load_judged(config, load)
        shared = rows_in_common(train.examples, held_out.examples)
        if shared < len(held_out):
            hints += overlap_hints(train.examples, held_out.examples, shared)
    elif world_of(config.data) is not None:
        train, held_out = everything, load_source(config.data, config, "test", load)
    else:
        train, held_out = hold_out(everything, config.eval_size, config.seed)
    why = None if held_out.examples else nothing_held_out(config, everything)
    if held_out.examples and shared == len(held_out):
        why = "nothing is held out: every row of eval_data is also trained on"
    prompts = {prompt_key(e): dict(e.items[0].condition) for e in held_out.examples or train.examples}
    learned = good_enough(suit(train, objective, config), train, config)
    judged = suit(held_out, objective, config, keep_ties=True) if held_out.examples else held_out
    if held_out.examples and not judged.examples:
        why = "no held-out row is labelled as good: what evaluations measure is measured on training rows"
    decided = objective.has_tie_term or config.ties is not None
    hints += method_hints(
        everything.report,
        config.method,
        objective.has_tie_term,
        objective.unpaired,
        winners_suffice(objective, config),
    )
    return Split(
        train=learned,
        held_out=judged,
        prompts=list(prompts.values()),
        hints=[hint for hint in hints if not (decided and "no tie term" in hint.text)],
        not_held_out=why,
    )


def nothing_held_out(config: TrainConfig, everything: Comparisons) -> str:
    """Why a run is judged by rows that it trains on, in a sentence."""
    rows = len(everything)
    if config.eval_size == 0:
        why = "eval_size=0"
    elif config.eval_size < 1 and round(config.eval_size * rows) == 0:
        why = f"eval_size={config.eval_size:g} of {rows} rows is less than one"
    else:
        why = f"all {rows} rows answer one prompt, and a prompt is never on both sides"
    return f"nothing is held out ({why}): what evaluations measure is measured on training rows"


def load_judged(config: TrainConfig, load: Callable[..., Comparisons]) -> Comparisons:
    """The comparisons that `eval_data` names; those of named sets one behind the other, with the set's name before their ids.

    Raises:
        ConfigError: a name that could not stand in that of a metric.
    """
    if not isinstance(config.eval_data, Mapping):
        return load_judged_source(str(config.eval_data), config, load)
    parts = {}
    for name, source in config.eval_data.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ConfigError(
                f"eval_data: {name!r} names a set in the names of metrics: use letters, digits, and _ . -"
            )
        parts[name] = load_judged_source(source, config, load)
    if not parts:
        raise ConfigError("eval_data is an empty mapping: give sets by name, {easy: FILE}, or leave it out")
    renamed = {name: [replace(e, id=f"{name}/{e.id}") for e in part.examples] for name, part in parts.items()}
    return replace(
        next(iter(parts.values())),
        examples=[e for examples in renamed.values() for e in examples],
        dropped=[d for part in parts.values() for d in part.dropped],
        origins={f"{name}/{id}": o for name, part in parts.items() for id, o in part.origins.items()},
    )


def judged_sets(config: TrainConfig, examples: Sequence[Encoded[Any]]) -> dict[str, frozenset[str]]:
    """Ids of held-out examples by the set that they belong to; empty where sets have no names."""
    if not isinstance(config.eval_data, Mapping):
        return {}
    return {
        name: frozenset(e.id for e in examples if e.id.startswith(f"{name}/")) for name in config.eval_data
    }


def one_eval_source(config: TrainConfig) -> str | None:
    """What `eval_data` names, where sets by name have no use.

    Raises:
        ConfigError: there are several.
    """
    if isinstance(config.eval_data, Mapping):
        raise ConfigError(
            f"eval_data names {len(config.eval_data)} sets, and {config.method} judges by one: give one source"
        )
    return config.eval_data


def load_judged_source(source: str, config: TrainConfig, load: Callable[..., Comparisons]) -> Comparisons:
    """Comparisons to judge by: the test or validation split, unless another is asked for."""
    if world_of(source) is not None:
        return load_source(source, config, "test", load)
    trained = config.split if same_source(source, config.data) else None
    split = config.eval_split or evaluation_split(source, config.data_config, trained)
    return load_source(source, config, split, load, judged=True)


def same_source(one: str, other: str) -> bool:
    """Whether two names of sources mean the same."""
    return one == other or Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def columns_as(config: TrainConfig, judged: bool = False) -> ColumnsAs:
    """How the configuration wants columns to be taken; held-out data need not have them all."""
    return ColumnsAs(config.rename_columns, config.ignore_columns, where_there=judged)


def load_source(
    source: str, config: TrainConfig, split: str, load: Callable[..., Comparisons], judged: bool = False
) -> Comparisons:
    """Comparisons of a file, folder, hub id, object in memory, or world."""
    world = world_of(source)
    if world is None:
        comparisons = load(
            source,
            split=split,
            config_name=config.data_config,
            columns=config.columns,
            columns_as=columns_as(config, judged),
        )
    else:
        test = split == "test"
        rows = world.comparisons(
            world_prompts(source, split),
            split="test" if test else "train",
            label_noise=0.0 if test else config.label_noise,
            seed=config.seed,
        )
        comparisons = load(rows, columns=config.columns)
        comparisons = replace(comparisons, report=replace(comparisons.report, source=source))
    if config.max_examples is not None:
        comparisons = replace(comparisons, examples=comparisons.examples[: config.max_examples])
    return comparisons


def suit(
    comparisons: Comparisons, objective: Objective, config: TrainConfig, keep_ties: bool = False
) -> Comparisons:
    """Turn pairs into what the objective takes: single samples, or pairs without ties.

    Args:
        comparisons: any.
        objective: see `Objective.unpaired` and `has_tie_term`.
        config: its `ties` says what ties mean to an objective without a tie term.
        keep_ties: leave ties as they are (held-out data: their margins are of interest whatever was trained on).
    """
    singles = comparisons.examples and comparisons.examples[0].comparisons[0].second is None
    if objective.unpaired:
        return comparisons if singles else unpair(comparisons, config.ties)
    if singles and winners_suffice(objective, config):
        return without_bad(comparisons, config)
    if singles:
        raise ConfigError(
            f"{config.method} compares pairs, but {config.data} holds single labelled samples: use kto or bco (sft for good "
            "ones alone), or give rows with chosen and rejected"
        )
    if objective.has_tie_term and config.ties is None:
        return comparisons
    if keep_ties and config.ties is not None and not objective.batch_coupled:
        return comparisons
    return apply_ties_policy(comparisons, config.ties)


def winners_suffice(objective: Objective, config: TrainConfig) -> bool:
    """Whether single good samples will do: the loss reads no loser, or the method draws one."""
    method = methods.find(config.method)
    return objective.winner_alone or (method is not None and method.draws_losers)


def good_enough(left: Comparisons, given: Comparisons, config: TrainConfig) -> Comparisons:
    """What is left to train on, if anything is.

    Raises:
        ConfigError: rows were given, and none is good.
    """
    if given.examples and not left.examples:
        raise ConfigError(f"{config.method} learns from good samples, and {config.data} labels none as good")
    return left


def without_bad(comparisons: Comparisons, config: TrainConfig) -> Comparisons:
    """Single samples that are good, each: all that an objective can use which looks at winners alone."""
    good = [e for e in comparisons.examples if e.comparisons[0].outcome == WIN]
    bad = [
        Dropped(
            comparisons.origins[e.id].row,
            e.id,
            "not_good",
            f"not labelled good, and {config.method} learns from good ones",
        )
        for e in comparisons.examples
        if e.comparisons[0].outcome != WIN
    ]
    dropped = merge_dropped(comparisons.dropped, bad)
    report = recount(comparisons.report, good, dropped)
    return replace(comparisons, examples=good, dropped=dropped, report=report)


def prompt_key(example: Example) -> str:
    """A string that is equal for examples of equal conditions."""
    return condition_key(example.items[0].condition)


def condition_key(condition: Mapping[str, Any]) -> str:
    """A string that is equal for equal conditions."""
    return json.dumps(dict(condition), sort_keys=True, default=named)


def named(value: Any) -> str:
    """What stands for a value that JSON has no form for: its digest, or else its text."""
    return str(getattr(value, "digest", None) or value)


def hold_out(comparisons: Comparisons, size: float, seed: int) -> tuple[Comparisons, Comparisons]:
    """Split whole prompts off: a prompt never has rows on both sides.

    Args:
        comparisons: all rows.
        size: a share of the rows below 1, or a number of rows.
        seed: of the choice.
    """
    n = round(size * len(comparisons)) if size < 1 else int(size)
    if size >= 1 and n >= len(comparisons):
        raise ConfigError(
            f"eval_size={n} would hold out all {len(comparisons)} rows of {comparisons.report.source}: give a smaller "
            "number, a share below 1 such as 0.1, or 0 for nothing"
        )
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


def merge_dropped(*lists: Iterable[Dropped]) -> list[Dropped]:
    """Dropped rows of several passes over the same data, each once."""
    return list(dict.fromkeys(d for dropped in lists for d in dropped))


def has_ties(examples: Sequence[Encoded[Any]]) -> bool:
    """Whether any comparison ties, wholly or in part."""
    return any(edge.outcome.tie > 0 for e in examples for edge in e.comparisons)


def digest(examples: Iterable[Encoded[Any]], key: Callable[[Any], str]) -> str:
    """Digest of ids, items (by the likelihood's `key`) and edges, in order."""
    h = hashlib.blake2b(digest_size=16)
    for example in examples:
        h.update(example.id.encode())
        for item in (*example.items, *example.aside):
            h.update(key(item).encode())
        h.update(repr(example.comparisons).encode())
    return h.hexdigest()
