"""One iteration: try moves, take their vote, and go that way if enough of them helped.

A caller makes a probe (`HeadProbe` from hidden states at scored places, or `PlainProbe` from a scoring function) for
one pair, or a small batch, and passes it on with the settings, the run's seed and the iteration's number. Nothing is
kept between iterations but the weights.

Legend: M moves, S pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from prefopt.oracles.comparison import MODES, Mode, opens, oracle
from prefopt.oracles.direction import Selection, normalize_, onebit_sparse
from prefopt.oracles.perturbations import MOST, SAMPLERS, Perturbations, Sampler

AcceptCheck = Literal["none", "trial", "actual"]
Estimator = Literal["sampled", "expected"]
Skipped = Literal["", "identical", "gate", "zero", "trial", "actual"]


class Probe(Protocol):
    """What can be asked about moves of some weights; see `HeadProbe`, whose methods these are."""

    identical: bool
    logp_S2: Tensor

    @property
    def size(self) -> int:
        """Number of entries that move."""
        ...

    def survey(
        self,
        moves: Perturbations,
        indices: Sequence[int],
        radius: float,
        mode: Mode = "mean",
        bits_M: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The answers, and a sum that `direction` understands."""
        ...

    def direction(self, total: Tensor, moves: Perturbations, y_M: Tensor) -> Tensor:
        """The vote, in the shape of the weights."""
        ...

    def changes_along(self, g: Tensor, length: float) -> Tensor:
        """(S, 2) changes of log-probabilities by length * g."""
        ...

    def move(self, g: Tensor, length: float) -> None:
        """weights += length * g."""
        ...

    def expected(self) -> tuple[float, Tensor]:
        """(p, mean vote) in the limit of many small moves."""
        ...


@dataclass(frozen=True, slots=True)
class StepSettings:
    """How an iteration is made; the defaults are the paper's where it has them.

    Attributes:
        perturbations: m, moves tried (paper: 1600 or 1800).
        radius: r, standard deviation of one entry's move; for the sphere its length. The paper's 5e-4 belongs to heads
            of 7 to 9 billion parameter models; 0.02 to 0.05 times the weights' deviation is a start elsewhere.
        gate: lambda; the share of moves that helped must exceed it. Of very similar responses few moves can help: lower
            it there.
        gamma: step size; the step is gamma * p long (0.035 is the released code's; the paper's table 3 has 0.1 and 1).
        selection: which entries of the direction are used.
        sampler: see `Perturbations`.
        antithetic: try every move in both directions. Not the published method; m must be even.
        mode: of the oracle over a batch of pairs.
        accept_check: "none" (paper); "trial": weights - trial_step * direction must pass the oracle (released code);
            "actual": the step itself must.
        trial_step: for "trial".
        estimator: "sampled", or "expected": the mean vote in closed form, without moves; a baseline, head only.
        sparsity: None for the practical scheme (algorithm 2); s for the basic one (algorithm 1): the exact direction
            in the ball of that sparsity, a step gamma long, without gate or selection. For toys.

    Raises:
        ValueError: a value out of range, or settings that exclude each other.

    Example:
        >>> StepSettings(perturbations=100, gamma=0.1).gate
        0.2
    """

    perturbations: int = 1600
    radius: float = 5e-4
    gate: float = 0.2
    gamma: float = 0.035
    selection: Selection = field(default_factory=lambda: Selection(keep_fraction=0.01))
    sampler: Sampler = "gaussian"
    antithetic: bool = False
    mode: Mode = "mean"
    accept_check: AcceptCheck = "none"
    trial_step: float = 5.0
    estimator: Estimator = "sampled"
    sparsity: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.perturbations <= MOST:
            raise ValueError(f"perturbations is {self.perturbations}; needed 1 to {MOST}")
        for name in ("radius", "gamma", "trial_step"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; needed a finite number above 0")
        if not 0 <= self.gate < 1:
            raise ValueError(f"gate is {self.gate}; needed a share, at least 0 and below 1")
        choices: dict[str, tuple[str, ...]] = {
            "sampler": SAMPLERS,
            "mode": MODES,
            "accept_check": ("none", "trial", "actual"),
            "estimator": ("sampled", "expected"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of: {', '.join(allowed)}")
        if self.antithetic and self.perturbations % 2:
            raise ValueError(
                f"antithetic moves come in pairs, and perturbations is {self.perturbations}: make it even"
            )
        if self.estimator == "expected" and self.mode != "mean":
            raise ValueError(f"the expected direction is known for mode 'mean' alone, not {self.mode!r}")
        if self.sparsity is not None and not self.sparsity >= 1:
            raise ValueError(f"sparsity is {self.sparsity}; needed at least 1")


@dataclass(frozen=True, slots=True)
class StepReport:
    """What an iteration did.

    Attributes:
        success_rate: p.
        kept_fraction: share of the direction's entries that are used; 0 if none was made.
        update_norm: length of the step that was taken.
        skipped: why no step was taken: "identical" responses, "gate" (too few moves helped), "zero" (the votes cancel),
            "trial" or "actual" (accept_check); empty if one was.
        logp_S2: log-probabilities of (chosen, rejected) before.
        change_S2: their change by the step; zero if there was none.
        bits_M: the answers; empty for the expected direction.
    """

    success_rate: float
    kept_fraction: float
    update_norm: float
    skipped: Skipped
    logp_S2: Tensor
    change_S2: Tensor
    bits_M: Tensor


def oracle_step(
    probe: Probe, settings: StepSettings, seed: int, iteration: int, bits_M: Tensor | None = None
) -> StepReport:
    """One iteration of ComPO (paper, algorithm 2; algorithm 1 with `sparsity`); moves the probe's weights.

    With several workers, each calls `probe.survey` on its share of the indices, all exchange the answers (a bit a
    move), and each passes all of them here: the moves are made again and summed in one order everywhere, so that the
    step has the same bits on any number of workers.

    Args:
        probe: fresh, for the weights as they are.
        settings: see `StepSettings`.
        seed: the run's.
        iteration: its number; moves derive from both.
        bits_M: all answers, if they are known already.

    Raises:
        ValueError: an expected direction together with answers, or a wrong number of them.
        FloatingPointError: a log-probability is NaN or infinite; the weights are as before.

    Example:
        >>> w = torch.zeros(2)
        >>> from prefopt.oracles.plain import PlainProbe
        >>> probe = PlainProbe([w], lambda: (w[:1].clone(), w[1:].clone()))
        >>> settings = StepSettings(perturbations=64, gamma=1.0, selection=Selection(keep_fraction=1.0))
        >>> report = oracle_step(probe, settings, seed=0, iteration=0)
        >>> report.skipped, bool(w[0] > 0 > w[1])
        ('', True)
    """
    empty = torch.empty(0, dtype=torch.int8)

    def report(p: float, skipped: Skipped, kept: float, bits: Tensor) -> StepReport:
        return StepReport(p, kept, 0.0, skipped, probe.logp_S2, torch.zeros_like(probe.logp_S2), bits)

    if probe.identical:
        return report(0.0, "identical", 0.0, empty)
    if settings.estimator == "expected":
        if bits_M is not None:
            raise ValueError(
                "answers of moves were given, and the expected direction uses none: drop one of them"
            )
        p, g = probe.expected()
        bits = empty
    else:
        moves = Perturbations(seed, iteration, settings.sampler, settings.antithetic)
        indices = range(settings.perturbations)
        bits, total = probe.survey(moves, indices, settings.radius, settings.mode, bits_M)
        p = int((bits == -1).sum()) / settings.perturbations
    if settings.sparsity is None and not opens(p, settings.gate):
        return report(
            p, "gate", 0.0, bits
        )  # before the vote is unfolded: most of the cost of a skipped iteration
    if settings.estimator == "sampled":
        g = probe.direction(total, moves, bits)
        del total
    if settings.sparsity is None:
        nonzero = normalize_(g) > 0
        kept = settings.selection.apply_(g) if nonzero else 0
        length = settings.gamma * p
    else:
        g, _ = onebit_sparse(g, settings.sparsity)
        kept = int(g.count_nonzero())
        nonzero, length = kept > 0, settings.gamma
    share = kept / probe.size
    if not kept:
        return report(p, "zero", share, bits)
    if (
        settings.accept_check == "trial"
        and _answer(probe.changes_along(g, -settings.trial_step), settings) != -1
    ):
        return report(p, "trial", share, bits)
    change_S2 = probe.changes_along(g, -length)
    answer = _answer(
        change_S2, settings
    )  # also where it is not asked for: it refuses NaN before the weights move
    if settings.accept_check == "actual" and answer != -1:
        return report(p, "actual", share, bits)
    probe.move(g, -length)
    norm = length * float(torch.linalg.vector_norm(g))
    return StepReport(p, share, norm, "", probe.logp_S2, change_S2, bits)


def _answer(change_S2: Tensor, settings: StepSettings) -> int:
    return int(oracle(change_S2[None, :, 0], change_S2[None, :, 1], settings.mode))
