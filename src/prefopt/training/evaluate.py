"""Held-out comparisons through the run: the metrics of training, and the margins of wins and ties apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prefopt.comparisons import Encoded, collate
from prefopt.objectives.base import State
from prefopt.sources.schedule import cut_by_count, shares
from prefopt.training.batches import Scored
from prefopt.training.loop import Loop, derived
from prefopt.training.metrics import SumsAndCounts, add_comparison_metrics

EVALUATION = -1  # as an epoch: noise that no training epoch draws, the same at every evaluation


@torch.no_grad()
def evaluate(
    loop: Loop, examples: Sequence[Encoded[Any]], sets: Mapping[str, Collection[str]] | None = None
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Metrics over examples, and the reward margins of wins and ties, over all processes.

    Ties are judged as ties whatever the objective makes of them: where it has no term for them, they count in no
    loss.

    Args:
        loop: of the run.
        examples: to look at.
        sets: ids of the examples of each named set; its metrics are added as NAME_METRIC.
    """
    objective, accelerator, model = loop.objective, loop.accelerator, loop.model
    model.eval()
    found = SumsAndCounts()
    parts = {name: SumsAndCounts() for name in sets or {}}
    margins: dict[str, list[float]] = {"wins": [], "ties": []}
    seen = [loop.scorer.likelihood.at(e, EVALUATION) for e in examples]
    size, process = loop.config.per_device_eval_batch_size, accelerator.process_index
    batches: list[list[Encoded[Any]]] = []
    into: list[list[SumsAndCounts]] = []
    for name, members in by_set(seen, sets).items():
        cut = shares(cut_by_count(members, size), process, accelerator.num_processes)
        batches += cut
        into += [[found, parts[name]] if name in parts else [found]] * len(cut)

    def scored(batch: Sequence[Encoded[Any]]) -> Scored:
        with accelerator.autocast():
            return loop.scorer.sides(model, collate(batch or seen[:1]))

    each: Iterable[Scored] = map(scored, batches)
    shared: State | None = None
    if (
        objective.state_of_rows
    ):  # of all rows: few batches may hold what it tells of, and means over batches mislead
        each = list(each)
        shared = state_of(loop, each, batches)
    for batch, counters, (sides, edges, *_) in zip(batches, into, each, strict=True):
        outcome_E3 = edges.outcome_E3.to(sides.rho_w.dtype)
        counted_E = torch.full_like(edges.weight_E, float(bool(batch)))
        state = loop.state if shared is None else shared
        if shared is None and (objective.batch_coupled or not state):
            state = objective.next_state(state, objective.statistics(sides, outcome_E3))
        losses_E = objective.losses(sides, None if edges.all_wins else outcome_E3, state)
        for counter in counters:
            add_comparison_metrics(counter, objective, sides, outcome_E3, counted_E, losses_E, state)
        if batch and not objective.unpaired and not edges.singles:
            m_E = objective.reward_scale * (sides.rho_w - sides.rho_l)
            signed = torch.where(outcome_E3[:, 1] > outcome_E3[:, 0], -m_E, m_E)
            for value, tie in zip(signed.tolist(), outcome_E3[:, 2].tolist(), strict=True):
                margins["ties" if tie >= 0.5 else "wins"].append(value)
    model.train()
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        margins = {k: gather_object(v) for k, v in margins.items()}
    means = derived(found.means(lambda x: accelerator.reduce(x, "sum")), objective)
    for name, counter in parts.items():
        of_set = derived(counter.means(lambda x: accelerator.reduce(x, "sum")), objective)
        means |= {f"{name}_{metric}": value for metric, value in of_set.items()}
    return means, margins


def by_set(
    examples: Sequence[Encoded[Any]], sets: Mapping[str, Collection[str]] | None
) -> dict[str | None, list[Encoded[Any]]]:
    """Examples by the set that they belong to; all under None where there are no sets."""
    if not sets:
        return {None: list(examples)}
    return {name: [e for e in examples if e.id in ids] for name, ids in sets.items()}


def state_of(loop: Loop, each: Sequence[Scored], batches: Sequence[Sequence[Any]]) -> State:
    """The objective's state of all these rows, over all processes; batches that are empty stand in for none."""
    sums: dict[str, Tensor] = {}
    for batch, (sides, edges, *_) in zip(batches, each, strict=True):
        found = loop.objective.statistics(sides, edges.outcome_E3.to(sides.rho_w.dtype))
        for name, value in found.items():
            more = value * float(bool(batch))
            sums[name] = sums[name] + more if name in sums else more
    return loop.objective.next_state(
        loop.state, {name: loop.accelerator.reduce(value, "sum") for name, value in sums.items()}
    )
