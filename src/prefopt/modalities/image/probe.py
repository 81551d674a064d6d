"""Where along the noise levels a run on image pairs learned: accuracy and denoising errors by timestep, before and after.

Averages over timesteps hide that a policy ranks images by one stretch of noise levels and forgets how to denoise at
another. Errors are mean squares over the latent's elements, without the run's weight of timesteps, under the noise of
evaluations; every timestep meets the same noise. Each process computes all of it, so that sharded models stay in step.

Legend: T probed timesteps, E comparisons, N items; chosen and rejected differ in number where images are single.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from prefopt.comparisons import Comparison, Encoded, collate
from prefopt.likelihoods.denoising import DenoisingLikelihood
from prefopt.likelihoods.latents import EncodedLatent
from prefopt.likelihoods.process import Process
from prefopt.modalities.base import Context, Probe, Setup
from prefopt.references import Reference

TIMESTEPS = 8
MOST_EXAMPLES = 64
ROUNDING = 4 * torch.finfo(torch.float32).eps  # of an error, relative; gaps below it are no preference


class Errors(NamedTuple):
    """Denoising errors, float32 on the CPU."""

    chosen_TE: Tensor
    rejected_TE: Tensor


def with_probe(context: Context, setup: Setup, likelihood: DenoisingLikelihood) -> Setup:
    """The same run; its probe also writes record/timesteps.json, where there is anything to tell apart.

    Args:
        context: of the run.
        setup: of offline comparisons.
        likelihood: the run's.
    """
    data = setup.data
    examples = spread([e for e in data.held_out or data.train if any(map(decisive, e.comparisons))])
    if not examples:
        return setup
    probe = TimestepProbe(context, replace(likelihood, weight="constant"), examples)

    def both(reference: Reference) -> Probe:
        found = None
        if reference.kind != "none":
            # here, started or resumed, the policy still has its first weights and may be lent as the reference
            with reference.start() as model:
                found = probe.errors(model)
        split = "held-out" if data.held_out else "training"
        return WithTimesteps(setup.probe(reference), probe, setup.policy.model, found, split)

    return replace(setup, probe=both)


@dataclass(frozen=True)
class TimestepProbe:
    """Measures a model on fixed comparisons at fixed timesteps.

    Attributes:
        context: of the run.
        likelihood: gives the errors; its weight must be constant.
        examples: each with a decisive comparison.
    """

    context: Context
    likelihood: DenoisingLikelihood
    examples: Sequence[Encoded[EncodedLatent]]

    @property
    def timesteps(self) -> list[int]:
        """Middles of equal parts of the train timesteps, cleanest first."""
        return probed_timesteps(self.likelihood.process)

    @torch.no_grad()
    def errors(self, model: nn.Module) -> Errors:
        """Errors of both sides of the decisive comparisons; the model is left in the mode it was found in."""
        size, accelerator = self.context.config.per_device_eval_batch_size, self.context.accelerator
        chosen: list[Tensor] = []
        rejected: list[Tensor] = []
        training = model.training
        model.eval()
        for start in range(0, len(self.examples), size):
            batch = collate(self.likelihood.at(e, -1) for e in self.examples[start : start + size])
            plan = self.likelihood.plan(batch.items).to(accelerator.device)
            with accelerator.autocast():
                scores = [self.likelihood.score(model, plan.at(t)).logp_N for t in self.timesteps]
            error_TN = -torch.stack(scores).float().cpu()
            for side, index_E in zip((chosen, rejected), ends(batch.edges), strict=True):
                side.append(error_TN[:, index_E])
        model.train(training)
        return Errors(torch.cat(chosen, 1), torch.cat(rejected, 1))


@dataclass(frozen=True)
class WithTimesteps:
    """Another probe, and the errors by timestep before the first step and after the last.

    Attributes:
        other: takes what it takes.
        timesteps: measures.
        model: the policy's, unwrapped.
        reference: its errors; None where the objective has no reference.
        split: which comparisons are measured.
    """

    other: Probe
    timesteps: TimestepProbe
    model: nn.Module
    reference: Errors | None
    split: str

    def take(self, step: int, label: str) -> dict[str, float]:
        """What the other probe measures; errors go to the record."""
        if label in ("before", "after"):
            found = self.timesteps.errors(self.model)
            paired = self.timesteps.examples[0].comparisons[0].second is not None
            share_T = accuracy(found, self.reference, paired=paired)
            measured = {label: {"accuracy": share_T.tolist(), **as_lists(found)}}
            if self.reference is not None:
                measured["reference"] = as_lists(self.reference)
            shape = {"split": self.split, "paired": paired, "timesteps": self.timesteps.timesteps}
            self.timesteps.context.record.add("timesteps", **shape, **measured)
        return self.other.take(step, label)


def probed_timesteps(process: Process) -> list[int]:
    """Middles of equal parts of a process's train timesteps, cleanest first."""
    middle_T = (torch.arange(TIMESTEPS, dtype=torch.float64) + 0.5) / TIMESTEPS
    found: list[int] = process.timesteps(middle_T).unique().tolist()  # a toy process may have fewer
    return found


def decisive(edge: Comparison) -> bool:
    """Whether the votes favour one side."""
    return edge.outcome.tie < 0.5 and edge.outcome.win != edge.outcome.lose


def spread(examples: list[Encoded[Any]]) -> list[Encoded[Any]]:
    """At most `MOST_EXAMPLES`, in their order, the same ones for the same list.

    Not its beginning nor every n-th: rows may be sorted, and pairs taken apart alternate between good and bad.
    """
    kept = random.Random(0).sample(range(len(examples)), min(MOST_EXAMPLES, len(examples)))
    return [examples[k] for k in sorted(kept)]


def ends(edges: Any) -> tuple[Tensor, Tensor]:
    """Items that the votes favour, and items that they do not: (E,) each for pairs, a part of E each for singles."""
    win_E, lose_E, tie_E = edges.outcome_E3.unbind(-1)
    turned_E, counts_E = lose_E > win_E, (tie_E < 0.5) & (win_E != lose_E)
    chosen_E = torch.where(turned_E, edges.second_E, edges.first_E)
    rejected_E = torch.where(turned_E, edges.first_E, edges.second_E)
    # a single image's other end is the baseline, which is no item
    return chosen_E[counts_E & (chosen_E >= 0)], rejected_E[counts_E & (rejected_E >= 0)]


def accuracy(policy: Errors, reference: Errors | None, *, paired: bool) -> Tensor:
    """(T,) float64 share of pairs whose chosen image gained more, equal gains counting one half.

    A gain is the reference's error minus the policy's; without a reference, minus the policy's. Gaps within rounding
    are equal. Single images are compared each desirable with each undesirable one; NaN where one of them is missing.

    Example:
        >>> policy = Errors(torch.tensor([[0.1, 0.2]]), torch.tensor([[0.3, 0.1]]))
        >>> accuracy(policy, None, paired=True).tolist(), accuracy(policy, policy, paired=True).tolist()
        ([0.5], [0.5])
    """
    gain_w, gain_l = (
        -mine if theirs is None else theirs - mine
        for mine, theirs in zip(policy, reference or (None, None), strict=True)
    )
    equal = ROUNDING * policy.chosen_TE
    if not paired:
        gain_w, equal, gain_l = gain_w[:, :, None], equal[:, :, None], gain_l[:, None, :]
    gap = gain_w - gain_l
    right = (gap > equal).double() + 0.5 * (gap.abs() <= equal).double()
    return right.flatten(1).mean(1)


def as_lists(errors: Errors) -> dict[str, list[list[float]]]:
    """By side, a list of errors for each timestep; nine digits hold a float32."""
    return {
        side: [[float(f"{value:.9g}") for value in row] for row in error_TE.tolist()]
        for side, error_TE in zip(("chosen", "rejected"), errors, strict=True)
    }
