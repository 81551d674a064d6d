"""Held-out comparisons through the run: the metrics of training, and the margins of wins and ties apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from prefopt.comparisons import Encoded, collate
from prefopt.sources.schedule import cut_by_count, shares
from prefopt.training.loop import Loop, derived
from prefopt.training.metrics import SumsAndCounts, add_comparison_metrics

EVALUATION = -1  # as an epoch: noise that no training epoch draws, the same at every evaluation


@torch.no_grad()
def evaluate(loop: Loop, examples: Sequence[Encoded[Any]]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Metrics over examples, and the reward margins of wins and ties, over all processes.

    Ties are judged as ties whatever the objective makes of them: where it has no term for them, they count in no
    loss.
    """
    objective, accelerator, model = loop.objective, loop.accelerator, loop.model
    model.eval()
    found = SumsAndCounts()
    margins: dict[str, list[float]] = {"wins": [], "ties": []}
    seen = [loop.scorer.likelihood.at(e, EVALUATION) for e in examples]
    size, process = loop.config.per_device_eval_batch_size, accelerator.process_index
    for batch in shares(cut_by_count(seen, size), process, accelerator.num_processes):
        with accelerator.autocast():
            sides, edges, *_ = loop.scorer.sides(model, collate(batch or seen[:1]))
        outcome_E3 = edges.outcome_E3.to(sides.rho_w.dtype)
        counted_E = torch.full_like(edges.weight_E, float(bool(batch)))
        state = loop.state
        if objective.batch_coupled or not state:
            state = objective.next_state(state, objective.statistics(sides, outcome_E3))
        losses_E = objective.losses(sides, None if edges.all_wins else outcome_E3, state)
        add_comparison_metrics(found, objective, sides, outcome_E3, counted_E, losses_E, state)
        if batch and not objective.unpaired and not edges.singles:
            m_E = objective.reward_scale * (sides.rho_w - sides.rho_l)
            signed = torch.where(outcome_E3[:, 1] > outcome_E3[:, 0], -m_E, m_E)
            for value, tie in zip(signed.tolist(), outcome_E3[:, 2].tolist(), strict=True):
                margins["ties" if tie >= 0.5 else "wins"].append(value)
    model.train()
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        margins = {k: gather_object(v) for k, v in margins.items()}
    return derived(found.means(lambda x: accelerator.reduce(x, "sum")), objective), margins
