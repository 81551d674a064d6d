"""What a method of several runs starts from: labelled pairs, prompts without labels, held-out pairs; each a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prefopt.comparisons import Example
from prefopt.config import ConfigError, TrainConfig
from prefopt.files import GO_ON
from prefopt.methods import Method
from prefopt.modalities.splits import (
    columns_as,
    condition_key,
    hold_out,
    load_judged,
    load_source,
    one_eval_source,
    prompt_key,
    suit,
)
from prefopt.objectives.base import Objective
from prefopt.sources.files import Rows, evaluation_split, load_rows
from prefopt.sources.prompts import NamedPrompt, load_text_prompts, prompts_in
from prefopt.sources.report import Dropped, write_dropped
from prefopt.stages.answers import Answers
from prefopt.stages.folder import read_rows, write_rows
from prefopt.stages.seeds import choose_seeds
from prefopt.worlds import world_of

ANSWERED = frozenset({"chosen", "rejected", "completion", "candidates", "label"})
"""Columns of rows that are more than prompts."""
ASKED = ("prompt", "tools", "chat_template_kwargs")
"""What of a row of prompts a model is asked with."""


@dataclass(frozen=True)
class Material:
    """Files of rows, as `prefopt train` takes them.

    Attributes:
        labelled: pairs whose labels may be used.
        held_out: pairs to judge by: a file or a world; None for none.
        prompts: (id, condition) without labels, in order.
        held_prompts: more of them to judge by, answers to which the starting model and the judge make held-out pairs of;
            none where there are such pairs.
        dropped: number of rows and prompts that could not be used; `dropped.jsonl` says why.
    """

    labelled: Path
    held_out: str | None
    prompts: list[NamedPrompt]
    held_prompts: list[NamedPrompt]
    dropped: int


@dataclass(frozen=True)
class Parts:
    """The data, split and checked, of which nothing has been written yet; pairs are rows."""

    labelled: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    prompts: list[NamedPrompt]
    dropped: list[Dropped]
    held_prompts: Sequence[NamedPrompt] = ()

    def write(self, folder: Path) -> None:
        """A file for each part; the prompts last, so that where they are, everything is."""
        write_rows(folder / "labelled.jsonl", self.labelled)
        if self.held_out:
            write_rows(folder / "held_out.jsonl", self.held_out)
        write_dropped(self.dropped, folder / "dropped.jsonl", GO_ON)
        if self.held_prompts:
            write_rows(folder / "held_prompts.jsonl", named_rows(self.held_prompts))
        write_rows(folder / "prompts.jsonl", named_rows(self.prompts))


def named_rows(prompts: Iterable[NamedPrompt]) -> Iterable[dict[str, Any]]:
    """Prompts as rows, each with its name."""
    return ({"id": name, **condition} for name, condition in prompts)


def written(folder: Path) -> bool:
    """Whether `Parts.write` has come to its end there."""
    return (folder / "prompts.jsonl").exists()


def split_data(config: TrainConfig, objective: Objective, answers: Answers, method: Method) -> Parts:
    """Split the data; writes nothing, and reads weights only to choose labelled pairs by their prompts.

    Args:
        config: see `seed_pairs`, `prompts`, `eval_data`, `eval_size`.
        objective: what ties mean to it.
        answers: the modality's reader of rows, and what its models can be asked.
        method: whether it begins with labelled pairs.

    Raises:
        ConfigError, ValueError, OSError: rows that are no pairs, too few rows or prompts, prompts that cannot be asked.
    """
    if (rows := unlabelled(config)) is not None:
        return prompts_alone(config, rows, answers, method)
    check_seeds(config, method)
    everything = load_source(config.data, config, config.split, answers.load_comparisons)
    rest = everything
    held: list[Example] = []
    if (judged_source := one_eval_source(config)) is not None:
        if world_of(judged_source) is None:
            held = load_judged(config, answers.load_comparisons).examples
    elif world_of(config.data) is None:
        rest, apart = hold_out(everything, config.eval_size, config.seed)
        held = apart.examples
    if held and held[0].comparisons[0].second is None:
        raise ConfigError(f"eval_data={config.eval_data} holds single labelled samples: give pairs")
    seeded = (
        config.seed_pairs > 0 and not method.opponent
    )  # which learns from its own answers from the first round
    if seeded and rest.examples and rest.examples[0].comparisons[0].second is None:
        raise ConfigError(
            f"{config.method} begins with pairs, but {config.data} holds single labelled samples: give rows with "
            "prompt, chosen and rejected"
        )
    chosen, later = choose_seeds(config, rest.examples, answers) if seeded else ([], rest.examples)
    seed = replace(rest, examples=chosen)
    seed = suit(seed, objective, config) if seeded else seed
    labelled, judged = ([answers.row_of(e) for e in part] for part in (seed.examples, held))
    if not config.rounds:
        return Parts(labelled, judged, [], seed.dropped)
    taken = {prompt_key(e) for e in (*seed.examples, *held)}
    fresh: dict[str, NamedPrompt] = {}
    for name, condition in prompts_of(config, later):
        key = condition_key(condition)
        if key not in taken:
            fresh.setdefault(key, (name, condition))
    prompts, dropped = answers.room_for_answers(config, list(fresh.values()))
    check_amounts(config, len(everything.examples), len(seed.examples), len(prompts))
    return Parts(labelled, judged, prompts, [*seed.dropped, *dropped])


def material_of(config: TrainConfig, folder: Path) -> Material:
    """What `Parts.write` has written."""
    held_out, held_prompts = folder / "held_out.jsonl", folder / "held_prompts.jsonl"
    source = one_eval_source(config) or config.data
    judged = source if world_of(source) is not None else str(held_out) if held_out.exists() else None
    return Material(
        folder / "labelled.jsonl",
        judged,
        read_named(folder / "prompts.jsonl"),
        read_named(held_prompts) if held_prompts.exists() else [],
        len(read_rows(folder / "dropped.jsonl")),
    )


def read_named(path: Path) -> list[NamedPrompt]:
    """Prompts that `Parts.write` has written."""
    return [(str(row.pop("id")), row) for row in read_rows(path)]


def check_seeds(config: TrainConfig, method: Method) -> None:
    """Raise ConfigError where a method that learns to label from labelled pairs is to have none."""
    if method.stages == "self" and config.seed_pairs == 0:
        raise ConfigError(
            f"{method.name} labels answers by what labelled pairs have taught it, so seed_pairs=0 leaves it nothing: give "
            "some, or with a judge use online_dpo, which needs none"
        )


def unlabelled(config: TrainConfig) -> Rows | None:
    """The rows of `data` if they are prompts alone; None if they carry answers, or belong to a world.

    Raises:
        ValueError, OSError: they cannot be read.
    """
    if world_of(config.data) is not None:
        return None
    rows = columns_as(config).apply(load_rows(config.data, config.split, config.data_config, lines="prompt"))
    return None if ANSWERED & set(rows.columns) else rows


def prompts_alone(config: TrainConfig, rows: Rows, answers: Answers, method: Method) -> Parts:
    """Prompts to sample answers to, and prompts to judge by, where no row has a label.

    Raises:
        ConfigError, ValueError, OSError: a method that needs labelled pairs, keys of such pairs, or too few prompts.
    """
    default = type(config).model_fields["seed_pairs"].default
    if method.stages == "self":
        raise ConfigError(
            f"{method.name} labels answers by what labelled pairs have taught it, and {rows.source} holds prompts alone (its "
            f"columns are {', '.join(rows.columns)}): give rows with prompt, chosen and rejected, and these as prompts=FILE; "
            "or with a judge use online_dpo, which needs no labels"
        )
    if config.seed_pairs not in (0, default):
        raise ConfigError(
            f"seed_pairs={config.seed_pairs}, but {rows.source} holds prompts alone (its columns are "
            f"{', '.join(rows.columns)}): leave it out, or give rows with prompt, chosen and rejected"
        )
    if config.prompts is not None:
        raise ConfigError(
            f"data={config.data} holds prompts alone, and prompts={config.prompts} names others: give one of them, as data"
        )
    if not config.rounds:
        raise ConfigError(
            "rounds=0 leaves nothing to train on, since there are no labelled pairs: needed rounds >= 1"
        )
    everything = named_prompts(rows, config.max_examples)
    if config.eval_data is None:
        asked, apart = hold_prompts_out(everything, config.eval_size, config.seed, rows.source)
        judged: list[dict[str, Any]] = []
    else:
        asked, (apart, judged) = everything, judged_by(config, answers)
    taken = {condition_key(condition) for _, condition in apart}
    taken |= {condition_key({k: row[k] for k in ASKED if row.get(k)}) for row in judged}
    fresh: dict[str, NamedPrompt] = {}
    for name, condition in asked:
        if (key := condition_key(condition)) not in taken:
            fresh.setdefault(key, (name, condition))
    kept, dropped = answers.room_for_answers(config, list(fresh.values()))
    held_prompts, more = answers.room_for_answers(config, apart) if apart else ([], [])
    if len(kept) < config.rounds * (config.prompts_per_round or 1):
        wanted = f"{config.rounds} rounds of {config.prompts_per_round or 'at least 1'}"
        raise ConfigError(
            f"{rows.source} holds {len(everything)} prompts, of which {len(kept)} are new, fit and are not held out; needed "
            f"{wanted}: lower prompts_per_round, rounds or eval_size, or give more prompts"
        )
    return Parts([], judged, kept, [*dropped, *more], held_prompts)


def judged_by(config: TrainConfig, answers: Answers) -> tuple[list[NamedPrompt], list[dict[str, Any]]]:
    """What `eval_data` holds: prompts alone, or else pairs as rows; a world's pairs stay where they are."""
    source = str(one_eval_source(config))
    if world_of(source) is not None:
        return [], []
    split = config.eval_split or evaluation_split(source, config.data_config, None)
    rows = columns_as(config, judged=True).apply(load_rows(source, split, config.data_config, lines="prompt"))
    if not ANSWERED & set(rows.columns):
        return named_prompts(rows, None), []
    return [], [answers.row_of(e) for e in load_judged(config, answers.load_comparisons).examples]


def named_prompts(rows: Rows, limit: int | None) -> list[NamedPrompt]:
    """Prompts with what their templates are given.

    Raises:
        ConfigError: no column of prompts, a row without one, or an id twice.
    """
    try:
        found = prompts_in(rows, limit)
    except ValueError as error:
        raise ConfigError(f"data: {error}") from error
    for name, row in found:
        if isinstance(row["prompt"], list) and row["prompt"][-1].get("role") == "assistant":
            raise ConfigError(
                f"data: the conversation {name!r} of {rows.source} ends with the assistant's turn, so there is nothing to "
                "answer: leave that turn out"
            )
    return [(name, {k: row[k] for k in ASKED if row.get(k)}) for name, row in found]


def hold_prompts_out(
    prompts: Sequence[NamedPrompt], size: float, seed: int, source: str
) -> tuple[list[NamedPrompt], list[NamedPrompt]]:
    """Set prompts aside to judge by: a share below 1, or a number of them; both parts in their order.

    Raises:
        ConfigError: none would be left.
    """
    count = round(size * len(prompts)) if size < 1 else int(size)
    if count >= len(prompts):
        raise ConfigError(
            f"eval_size={size:g} would hold out all {len(prompts)} prompts of {source}: give a smaller number, a share "
            "below 1 such as 0.1, or 0 for nothing"
        )
    held = set(np.random.default_rng([seed, 7]).permutation(len(prompts))[:count].tolist())
    return (
        [prompt for n, prompt in enumerate(prompts) if n not in held],
        [prompt for n, prompt in enumerate(prompts) if n in held],
    )


def prompts_of(config: TrainConfig, later: Iterable[Example]) -> list[NamedPrompt]:
    """Prompts from their own source, or those of the rows whose labels are not used."""
    if config.prompts is None:
        return [(e.id, dict(e.items[0].condition)) for e in later]
    try:
        rows = load_text_prompts(config.prompts)
    except ValueError as error:
        raise ConfigError(f"prompts: {error}") from error
    return [(name, {k: row[k] for k in ASKED if row.get(k)}) for name, row in rows]


def check_amounts(config: TrainConfig, rows: int, seed: int, prompts: int) -> None:
    """Raise ConfigError where a round would have nothing to train on."""
    size = config.prompts_per_round
    if prompts >= config.rounds * (size or 1):
        return
    wanted = f"{config.rounds} rounds" + (f" of prompts_per_round={size}" if size else "")
    raise ConfigError(
        f"{rows} rows of {config.data}, of which {seed} serve as labelled pairs"
        f"{f' (seed_pairs={config.seed_pairs})' if seed else ''}, and prompts={config.prompts} leave {prompts} new prompts for "
        f"{wanted}: lower {'prompts_per_round, ' if size else ''}rounds{' or seed_pairs' if seed else ''}, or give "
        "prompts=FILE with more of them"
    )
