"""Training in the vector world: rounds of collection, and updates on what they kept, with the library's own parts.

Legend: E comparisons of an update, P states (one a comparison here), CHW = (32, 1, 1).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from prefopt import methods, objectives
from prefopt.comparisons import Encoded, collate
from prefopt.likelihoods.steps import (
    EncodedStep,
    GuidedNetwork,
    GuidedTarget,
    StepPlan,
    TimeWeight,
    TransitionLikelihood,
    predicted_noise,
)
from prefopt.models.ema import EMA
from prefopt.objectives.base import Objective
from prefopt.objectives.sides import Sides
from prefopt.reproduce.gradspo.world import PROMPTS, SHAPE, Measured, Size, World, measure, network
from prefopt.sources.online import Gap, StepSampler, Tally
from prefopt.training.batches import Known, join

BATCH = 64
RELEASED = methods.defaults("gradspo")
"""Settings of the released code; SPO's are the same where it has them."""
WATCHED_SAMPLES = 128
"""Samples after each round."""


def written(learning_rate: float) -> str:
    """As people write it.

    >>> written(3e-5)
    '3e-5'
    """
    return f"{learning_rate:.0e}".replace("e-0", "e-")


@dataclass(frozen=True, slots=True)
class Variant:
    """One method, or an ablation of it; the defaults are GradSPO as released.

    Attributes:
        likelihood: "guided" (GradSPO) or "transition" (SPO).
        average_noise: each side's direction is half the difference of both noises, not its own noise.
        sampler: whose samples are compared, the averaged weights' or the present ones'.
        anchor: at whose prediction the guided target starts.
        clip_eps: clip of each side's ratio; None for none.
        temporal_weight: k_t / g.
        grad_scale: g.
    """

    likelihood: Literal["guided", "transition"] = "guided"
    average_noise: bool = True
    sampler: Literal["ema", "online"] = "ema"
    anchor: Literal["ema", "online"] = "ema"
    clip_eps: float | None = RELEASED.get("clip_eps", 0.1)
    temporal_weight: TimeWeight = "sqrt_one_minus_abar"
    grad_scale: float = RELEASED.get("grad_scale", 0.5)

    @property
    def objective(self) -> Objective:
        """The loss: one for both methods."""
        return objectives.get("step_dpo", beta=RELEASED["beta"], clip_eps=self.clip_eps)

    def scored_by(self, guided: GuidedNetwork, model: nn.Module, average: EMA | None) -> TransitionLikelihood:
        """The likelihood; without an average the target starts at the present prediction."""
        if self.likelihood == "transition":
            return TransitionLikelihood(guided=guided)

        def anchor(_: nn.Module, plan: StepPlan) -> Tensor:
            averaged = average is not None and self.anchor == "ema"
            with average.swapped_in() if average is not None and averaged else nullcontext():
                return predicted_noise(guided, model, plan)

        return GuidedTarget(
            guided=guided,
            grad_scale=self.grad_scale,
            temporal_weight=self.temporal_weight,
            anchor=anchor,
        )

    def collector(self, world: World) -> StepSampler:
        """The library's collector in this world."""
        keeps: Literal["sample", "half_difference", "noise"] = "sample"
        if self.likelihood == "guided":
            keeps = "half_difference" if self.average_noise else "noise"
        return StepSampler(
            guided=world.guided,
            steps_S2=world.steps_S2,
            shape=SHAPE,
            judge=world.reward,
            gap=Gap(RELEASED["threshold"], RELEASED["threshold"]),
            candidates=RELEASED["candidates"],
            first=RELEASED["first_compared_step"],
            seed=world.seed,
            store_noise=keeps,
        )


GRADSPO = Variant()
SPO = Variant(likelihood="transition", sampler="online")


@dataclass(slots=True)
class StepLog:
    """Sums over the comparisons of one reverse step.

    Attributes:
        pairs: how many.
        clipped: those with both sides outside the clip, which have no gradient.
        sides: clipped sides.
        gradient: norm of the gradient of a comparison's loss with respect to the predicted noise.
    """

    pairs: int = 0
    clipped: float = 0.0
    sides: float = 0.0
    gradient: float = 0.0


class Run(NamedTuple):
    """One training run."""

    measured: Measured
    """After the last round."""
    by_round: tuple[float, ...]
    """Mean reward of a few samples after each round, the same noise each time."""
    updates: int
    by_step: dict[int, StepLog]
    """By timestep."""

    @property
    def best(self) -> float:
        """Reward after the best round."""
        return max(self.by_round)

    @property
    def fall(self) -> float:
        """From the best round to the last."""
        return max(self.by_round) - self.by_round[-1]


@dataclass
class Watched:
    """The network, remembering its latest output that has a gradient."""

    output_PCHW: Tensor | None = field(default=None, repr=False)

    def __call__(
        self, model: nn.Module, x_BCHW: Tensor, t_B: Tensor, conditions: Mapping[str, Tensor]
    ) -> Tensor:
        """As `network`."""
        output_BCHW = network(model, x_BCHW, t_B, conditions)
        if output_BCHW.requires_grad:
            output_BCHW.retain_grad()
            self.output_PCHW = output_BCHW
        return output_BCHW


def score(
    likelihood: TransitionLikelihood,
    objective: Objective,
    model: nn.Module,
    reference: nn.Module,
    examples: list[Encoded[EncodedStep]],
) -> tuple[StepPlan, Sides]:
    """The plan of some comparisons, and their sides under policy and reference."""
    batch = collate(examples)
    plan = likelihood.plan(batch.items)
    scores = likelihood.score(model, plan)
    with torch.no_grad():
        reference_NL = likelihood.score(reference, plan).logp_NL
    return plan, join(Known(scores, reference_NL), batch.edges, objective)


def train(world: World, variant: Variant, learning_rate: float, size: Size) -> Run:
    """Train a copy of the reference.

    AdamW with weight decay 1e-4 and gradient norm clipped at 1; every update takes 64 of a round's pairs, the last one
    what is left.
    """
    model = copy.deepcopy(world.reference).requires_grad_(True)
    average, watched = EMA(model, RELEASED["ema_decay"]), Watched()
    guided = GuidedNetwork(process=world.process, network=watched, conditions=world.guided.conditions)
    likelihood, objective = variant.scored_by(guided, model, average), variant.objective
    collector = variant.collector(world)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=RELEASED["weight_decay"])
    order = torch.Generator().manual_seed(world.seed)
    by_step = {int(t): StepLog() for t in world.steps_S2[collector.first :, 0]}
    rewards, updates = [], 0
    for round_ in range(size.rounds):
        prompts = [(f"{round_}/{b}", PROMPTS[b % len(PROMPTS)]) for b in range(size.prompts)]
        weights: AbstractContextManager[None] = nullcontext()
        if variant.sampler == "ema":
            weights = average.swapped_in()
        with weights:
            found = collector.collect(model, prompts, round_, Tally())
        shuffled = [found[i] for i in torch.randperm(len(found), generator=order).tolist()]
        for start in range(0, len(found), BATCH):
            plan, sides = score(
                likelihood, objective, model, world.reference, shuffled[start : start + BATCH]
            )
            loss = objective.losses(sides, None, {}).mean()
            optimizer.zero_grad()
            loss.backward()
            log(by_step, plan, objective, sides, watched)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update()
            updates += 1
        rewards.append(measure(world, model, min(WATCHED_SAMPLES, size.test_samples)).reward)
    return Run(measure(world, model, size.test_samples), tuple(rewards), updates, by_step)


def log(
    by_step: dict[int, StepLog], plan: StepPlan, objective: Objective, sides: Sides, watched: Watched
) -> None:
    """Add an update's comparisons to the account of their steps; called after the backward pass."""
    output_PCHW = watched.output_PCHW
    assert output_PCHW is not None
    assert output_PCHW.grad is not None
    norm_P = len(output_PCHW) * output_PCHW.grad.flatten(1).norm(dim=1)  # of a loss, not of their mean
    outside = objective.diagnostics(sides, {})  # empty without a clip
    both_E, one_E, other_E = (
        outside.get(f"step_dpo/clipped_{which}", torch.zeros(len(norm_P)))
        for which in ("both", "chosen", "rejected")
    )
    account = zip(
        plan.t_P.tolist(), norm_P.tolist(), both_E.tolist(), (one_E + other_E).tolist(), strict=True
    )
    for t, norm, both, ends in account:
        step = by_step[t]
        step.pairs += 1
        step.clipped += both
        step.sides += ends
        step.gradient += norm
