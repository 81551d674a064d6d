"""Start-of-run checks: what can be known to be wrong before the first step."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import torch

from prefopt.comparisons import Encoded, collate
from prefopt.likelihoods.base import Likelihood
from prefopt.likelihoods.capability import computes_in
from prefopt.objectives.sides import Sides
from prefopt.runs.record import Record
from prefopt.training.loop import Loop, StopRun

START_TOLERANCE = 1e-3  # nats a sequence of text; covers float32 sums of different batch shapes
ROUNDING = 1e-5  # of an image's score, an error near 1: no such sum is in it, and betas are in the thousands


OTHER_CONDITION = (
    "the reference sees other conditions than the policy, so margins do not start at zero: {margin:.3g} nats on average over the "
    "first examples. What follows says that the two agree where they see the same"
)


def as_seen(example: Encoded[Any], likelihood: Likelihood) -> Encoded[Any]:
    """The example under the conditions that the reference sees; the same object where these are its own."""
    items = tuple(map(likelihood.seen_by_reference, example.items))
    aside = tuple(map(likelihood.seen_by_reference, example.aside))
    same = all(a is b for a, b in zip((*items, *aside), (*example.items, *example.aside), strict=True))
    return example if same else replace(example, items=items, aside=aside)


def check_start_value(loop: Loop, record: Record) -> None:
    """Policy equals reference: zero margins, and the loss that goes with them.

    Raises:
        StopRun: they differ in full precision.
    """
    config, objective = loop.config, loop.objective
    if not objective.needs_reference:
        note = "the objective uses no reference: there is no zero margin to start from"
        record.check("start value", "note", note)
        return
    if config.reference_model is not None:
        note = "another reference model is in use: margins need not start at zero"
        record.check("start value", "note", note)
        return
    examples = loop.feed.opening(config.per_device_train_batch_size)
    if not examples:
        return
    seen = [as_seen(example, loop.scorer.likelihood) for example in examples]
    with torch.no_grad(), loop.accelerator.autocast():
        loop.model.eval()
        sides, edges, *_ = loop.scorer.sides(loop.model, collate(seen))
        if any(a is not b for a, b in zip(seen, examples, strict=True)):
            own, *_ = loop.scorer.sides(loop.model, collate(examples))
            margin = float((own.rho_w - own.rho_l).mean())
            record.check("start margin", "note", OTHER_CONDITION.format(margin=margin))
    worst = float(torch.cat([sides.rho_w, sides.rho_l]).abs().max())
    outcome_E3 = edges.outcome_E3.to(sides.rho_w.dtype)
    state = objective.next_state(loop.state, objective.statistics(sides, outcome_E3))
    loss = float(objective.losses(sides, outcome_E3, state).mean())
    record.manifest(zero_margin_loss=loss)
    coarse = computes_in(loop.model) & {torch.bfloat16, torch.float16}
    full_precision = loop.accelerator.mixed_precision == "no" and not coarse
    if worst <= (rounding(sides) if full_precision else 1.0):
        found = f"policy equals reference (largest log-ratio {worst:.1e}); loss {loss:.4f}"
        record.check("start value", "pass", found)
        return
    if math.isnan(worst):
        record.check("start value", "fail", "scores are not numbers (NaN) before any step")
        raise StopRun(
            "the scores of policy or reference are not numbers (NaN) before any step: look for NaN in the weights of the "
            "model and of the reference, or set dtype=float32, bf16=false and fp16=false"
        )
    fails = full_precision and worst > START_TOLERANCE
    found = f"policy and reference differ by {worst:.3g} before any step: dropout, dtype or a damaged cache"
    record.check("start value", "fail" if fails else "warn", found)
    if fails:
        raise StopRun(
            f"policy and reference differ by {worst:.3g} before any step, so the run would start from a wrong "
            "place. Check that the model is deterministic (no dropout) and the same in both; try reference=live"
        )


def rounding(sides: Sides) -> float:
    """What float32 may do to a log-ratio: up to the tolerance to sums over tokens, far less to undivided items."""
    lengths = [x for x in (sides.length_w, sides.length_l) if x is not None]
    if any(bool((x != 1).any()) for x in lengths):
        return START_TOLERANCE
    scores = [x for x in (sides.logp_w, sides.logp_l) if x is not None]
    return min(START_TOLERANCE, ROUNDING * max(1.0, *(float(x.abs().max()) for x in scores)))


def rehearse_longest(loop: Loop, record: Record) -> None:
    """Forward and backward of the longest micro-batch without a step: a run that cannot fit fails now."""
    if not loop.rule.by_gradient:
        return
    examples = loop.feed.rehearsal(loop.config.per_device_train_batch_size)
    if not examples:
        return
    if loop.batch_tokens is not None:
        width = loop.scorer.likelihood.width
        cuts = loop.cut(loop.feed.rehearsal(loop.feed.step_size))
        examples = max(cuts, key=lambda cut: sum(width(item) for e in cut for item in e.items))
    objective = loop.objective
    start = time.perf_counter()
    loop.model.train()
    with loop.accelerator.autocast():
        sides, edges, *_ = loop.scorer.sides(loop.model, collate(examples))
    outcome_E3 = edges.outcome_E3.to(sides.rho_w.dtype)
    state = objective.next_state(loop.state, objective.statistics(sides, outcome_E3))
    loop.accelerator.backward(objective.losses(sides, outcome_E3, state).mean())
    loop.optimizer.zero_grad()
    seconds = time.perf_counter() - start
    record.check(
        "longest batch first", "pass", f"forward and backward of the longest batch took {seconds:.2f} s"
    )
