"""What a method of several runs starts from: labelled pairs, prompts without labels, held-out pairs; each a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefopt.comparisons import Example
from prefopt.config import ConfigError, TrainConfig
from prefopt.files import GO_ON
from prefopt.modalities.splits import (
    condition_key,
    hold_out,
    load_judged,
    load_source,
    one_eval_source,
    prompt_key,
    suit,
)
from prefopt.objectives.base import Objective
from prefopt.sources.prompts import NamedPrompt, load_text_prompts
from prefopt.sources.report import Dropped, write_dropped
from prefopt.stages.answers import Answers
from prefopt.stages.folder import Reward, read_rows, write_rows
from prefopt.stages.seeds import choose_seeds
from prefopt.worlds import world_of


@dataclass(frozen=True)
class Material:
    """Files of rows, as `prefopt train` takes them.

    Attributes:
        labelled: pairs whose labels may be used.
        held_out: pairs to judge by: a file or a world; None for none.
        prompts: (id, condition) without labels, in order.
        dropped: number of rows and prompts that could not be used; `dropped.jsonl` says why.
    """

    labelled: Path
    held_out: str | None
    prompts: list[NamedPrompt]
    dropped: int


@dataclass(frozen=True)
class Parts:
    """The data, split and checked, of which nothing has been written yet; pairs are rows."""

    labelled: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    prompts: list[NamedPrompt]
    dropped: list[Dropped]

    def write(self, folder: Path) -> None:
        """A file for each part; the prompts last, so that where they are, everything is."""
        write_rows(folder / "labelled.jsonl", self.labelled)
        if self.held_out:
            write_rows(folder / "held_out.jsonl", self.held_out)
        write_dropped(self.dropped, folder / "dropped.jsonl", GO_ON)
        write_rows(folder / "prompts.jsonl", ({"id": name, **condition} for name, condition in self.prompts))


def written(folder: Path) -> bool:
    """Whether `Parts.write` has come to its end there."""
    return (folder / "prompts.jsonl").exists()


def split_data(config: TrainConfig, objective: Objective, answers: Answers) -> Parts:
    """Split the data; writes nothing, and reads weights only to choose labelled pairs by their prompts.

    Args:
        config: see `seed_pairs`, `prompts`, `eval_data`, `eval_size`.
        objective: what ties mean to it.
        answers: the modality's reader of rows, and what its models can be asked.

    Raises:
        ConfigError, ValueError, OSError: rows that are no pairs, too few rows or prompts, prompts that cannot be asked.
    """
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
    if rest.examples and rest.examples[0].comparisons[0].second is None:
        raise ConfigError(
            f"{config.method} begins with pairs, but {config.data} holds single labelled samples: give rows with "
            "prompt, chosen and rejected"
        )
    chosen, later = choose_seeds(config, rest.examples, answers)
    seed = suit(replace(rest, examples=chosen), objective, config)
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
    held_out = folder / "held_out.jsonl"
    source = one_eval_source(config) or config.data
    judged = source if world_of(source) is not None else str(held_out) if held_out.exists() else None
    rows = read_rows(folder / "prompts.jsonl")
    return Material(
        folder / "labelled.jsonl",
        judged,
        [(str(row.pop("id")), row) for row in rows],
        len(read_rows(folder / "dropped.jsonl")),
    )


def prompts_of(config: TrainConfig, later: Iterable[Example]) -> list[NamedPrompt]:
    """Prompts from their own source, or those of the rows whose labels are not used."""
    if config.prompts is None:
        return [(e.id, dict(e.items[0].condition)) for e in later]
    try:
        rows = load_text_prompts(config.prompts)
    except ValueError as error:
        raise ConfigError(f"prompts: {error}") from error
    asked = ("prompt", "tools", "chat_template_kwargs")
    return [(name, {k: row[k] for k in asked if row.get(k)}) for name, row in rows]


def check_amounts(config: TrainConfig, rows: int, seed: int, prompts: int) -> None:
    """Raise ConfigError where a round would have nothing to train on."""
    size = config.prompts_per_round
    if prompts >= config.rounds * (size or 1):
        return
    wanted = f"{config.rounds} rounds" + (f" of prompts_per_round={size}" if size else "")
    raise ConfigError(
        f"{rows} rows of {config.data}, of which {seed} serve as labelled pairs (seed_pairs={config.seed_pairs}), "
        f"and prompts={config.prompts} leave {prompts} new prompts for {wanted}: lower "
        f"{'prompts_per_round, ' if size else ''}rounds or seed_pairs, or give prompts=FILE with more of them"
    )


def verifier(config: TrainConfig) -> Reward | None:
    """The exact reward of a world's prompts."""
    world = world_of(config.data)
    return None if world is None else world.verify
