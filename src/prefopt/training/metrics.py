"""Metrics as sums and counts, kept on the device and read once per log line.

Means of means are wrong whenever micro-batches or processes hold different numbers of comparisons; sums and counts
are right for any split. Names are TRL's where it has one. `rewards/accuracies` counts an equal margin as one half,
so that it starts at 0.5.

Legend: E comparisons.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prefopt.objectives.base import Objective, State
from prefopt.objectives.sides import Sides

# in units of the reward; a difference below this is float32 round-off between two ways of computing the same score
EQUAL = 1e-5
TOKEN_METRICS = {"entropy": "entropy", "mean_token_accuracy": "top1"}
"""Metrics over the scored tokens of both sides, and the measure of a likelihood that each is made of."""


class SumsAndCounts:
    """Running (sum, count) pairs by name."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}

    def add(self, name: str, value_E: Tensor, where_E: Tensor | None = None) -> None:
        """Add the values of the comparisons selected by `where_E` (weights or booleans; all if left out)."""
        value = value_E.detach().double()
        count = torch.ones_like(value) if where_E is None else where_E.detach().double()
        # rows that do not count may hold anything, inf included
        total = torch.stack([torch.where(count > 0, value * count, 0.0).sum(), count.sum()])
        self._totals[name] = self._totals[name] + total if name in self._totals else total

    def means(
        self, reduce: Callable[[Tensor], Tensor] = lambda x: x, names: list[str] | None = None
    ) -> dict[str, float]:
        """Means over everything added, summed over processes by `reduce`; names without any count are left out.

        Args:
            reduce: sums a (2 * names,) tensor over processes.
            names: every name that any process may hold, in an order all agree on; default: those held here.
        """
        names = sorted(self._totals) if names is None else names
        if not names:
            return {}
        device = next(iter(self._totals.values())).device if self._totals else torch.device("cpu")
        zero = torch.zeros(2, dtype=torch.float64, device=device)
        flat = reduce(torch.cat([self._totals.get(name, zero) for name in names])).tolist()
        pairs = zip(names, flat[0::2], flat[1::2], strict=True)
        return {name: total / count for name, total, count in pairs if count > 0}

    def clear(self) -> None:
        """Forget everything."""
        self._totals = {}

    @property
    def names(self) -> list[str]:
        """Names held here, sorted."""
        return sorted(self._totals)


def add_comparison_metrics(
    into: SumsAndCounts,
    objective: Objective,
    sides: Sides,
    outcome_E3: Tensor,
    counted_E: Tensor,
    losses_E: Tensor,
    state: State,
) -> None:
    """Add what is logged of a batch of comparisons.

    Args:
        into: where to add.
        objective: for reward scale and diagnostics.
        sides: the comparisons' scores.
        outcome_E3: shares of (win, lose, tie).
        counted_E: 1.0 for comparisons that count, 0.0 for padding.
        losses_E: unweighted losses.
        state: the objective's state.
    """
    scale = objective.reward_scale
    equal: Tensor | float = EQUAL / max(1.0, scale)  # errors of images differ by far less than a nat
    if sides.logp_w is not None:  # but never less than rounding of the scores themselves, sums of many tokens
        equal = equal + 16 * torch.finfo(torch.float32).eps * sides.logp_w.abs()
    win, lose, tie = outcome_E3.unbind(-1)
    counted = counted_E > 0
    # an objective without a tie term has no loss for a whole tie (held-out ones are kept for their margins)
    judged = counted if objective.has_tie_term else counted & (win + lose > 0)
    into.add("loss", losses_E, judged)
    single = objective.unpaired or (sides.logp_w is not None and sides.logp_l is None)
    if single:
        reward_E = scale * sides.rho_w
        for name, side in (("chosen", win > 0.5), ("rejected", lose > 0.5)):
            into.add(f"rewards/{name}", reward_E, side & counted)
            if sides.logp_w is not None:
                into.add(f"logps/{name}", sides.logp_w, side & counted)
        if objective.needs_reference:
            into.add("displacement", (sides.rho_w < -equal).double(), (win > 0.5) & counted)
    else:
        tied = counted & (tie >= 0.5)
        decided = counted & ~tied
        # the side that most votes favour is "chosen", whichever end of the edge it is
        turned = lose > win
        chosen = torch.where(turned, sides.rho_l, sides.rho_w)
        rejected = torch.where(turned, sides.rho_w, sides.rho_l)
        margin = scale * (chosen - rejected)
        into.add("rewards/chosen", scale * chosen, decided)
        into.add("rewards/rejected", scale * rejected, decided)
        into.add("rewards/margins", margin, decided)
        gap_rho = chosen - rejected
        right = (gap_rho > equal).double() + 0.5 * (gap_rho.abs() <= equal)
        into.add("rewards/accuracies", right, decided)
        if objective.needs_reference:
            into.add("displacement", (chosen < -equal).double(), decided)
        if sides.logp_w is not None and sides.logp_l is not None:
            into.add("logps/chosen", torch.where(turned, sides.logp_l, sides.logp_w), decided)
            into.add("logps/rejected", torch.where(turned, sides.logp_w, sides.logp_l), decided)
        if sides.length_w is not None and sides.length_l is not None:
            gap = (sides.length_w - sides.length_l) * torch.where(turned, -1, 1)
            into.add("length_gap", gap, decided)
        into.add("ties/share", tied.double(), counted)
        into.add("ties/margin_abs", margin.abs(), tied)
        if objective.has_tie_term:
            into.add("ties/loss", losses_E, tied)
    for length_E, *measured in (
        (sides.length_w, sides.entropy_w, sides.top1_w),
        (sides.length_l, sides.entropy_l, sides.top1_l),
    ):
        for name, sum_E in zip(TOKEN_METRICS, measured, strict=True):
            if length_E is not None and sum_E is not None:  # means over tokens, not over completions
                into.add(name, sum_E / length_E, length_E * counted_E)
    for name, value_E in objective.diagnostics(sides, state).items():
        into.add(name, value_E, counted & ~value_E.isnan())
