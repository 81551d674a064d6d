"""The worst distribution of preference gaps near the observed one: the follower of SSAPO (arXiv 2502.18099).

The leader trains a policy, the follower answers with the distribution of gaps that hurts it most while moving no
more than `epsilon` of gap on average. That is a linear program (Theorem 3.3 of the paper) with a closed solution: for
a convex, non-increasing loss h on [low, high] the best use of a unit of movement is along the chord from a gap to
`low`, the chord of the smallest gap is the steepest, and so mass is sent to `low` in ascending order of the gaps
until the budget is spent. One sort, no solver.

Legend of shape suffixes: N pairs, M groups, G pairs of a group. Symbols:
    xi       gap beta * (rho_w - rho_l), dimensionless; `value` is xi, or sigma(xi) in probability space
    moved    f, the share of a pair's mass that goes to `low`; the rest stays
    shift    d = value - low, how far it goes, in units of `value`
    gain     (h(low) - h(value)) / d, what a unit of movement adds to the loss
    lambda_  price of the budget: the gain of the last pair that got any of it

    >>> from prefopt.sources.worst_case import worst_case
    >>> found = worst_case([0.2, 1.0, 3.0], epsilon=0.1)
    >>> found.moved_N.tolist(), found.worst_value > found.center_value
    ([0.30000000000000004, 0.0, 0.0], True)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from prefopt.sources.gap_losses import (
    Array,
    Loss,
    count_of,
    exact_margin,
    exact_probability,
    finite_vector,
    tangents_margin,
    tangents_probability,
)

Space = Literal["margin", "probability"]
SPACES: tuple[Space, ...] = ("margin", "probability")

UNMOVED = {"robust_moved": 0.0, "robust_shift": 0.0, "robust_lambda": -1.0, "robust_low": 0.0}
"""Constants of a pair outside the game (a human's label among self-annotated ones): its loss is DPO's."""

CRUMB = 1e-12  # shares nearer than this to 0 or 1 are rounding


# -- the follower ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorstCase:
    """The follower's answer.

    Attributes:
        space: of `low`, `high`, `shift_N` and `epsilon`.
        epsilon: budget, mean movement allowed (in each group).
        low, high: window; moved mass lies at `low`.
        moved_N: (N,) shares in [0, 1]; at most one a group is fractional.
        shift_N: (N,) value - low.
        gain_N: (N,) loss gained by a unit of movement; 0 where there is no room.
        lambda_N: (N,) price of the budget in the pair's group.
        center_value: mean loss of the observed gaps.
        worst_value: mean loss of the worst distribution.
        dual_value: the same from the dual problem; equal up to rounding, as a certificate.
        transport: mean movement spent, at most epsilon.
        clipped: gaps that lay outside the window and were put on its end.
    """

    space: Space
    epsilon: float
    low: float
    high: float
    moved_N: Array
    shift_N: Array
    gain_N: Array
    lambda_N: Array
    center_value: float
    worst_value: float
    dual_value: float
    transport: float
    clipped: int = 0

    def summary(self) -> dict[str, Any]:
        """What a report says of a round, as JSON values."""
        return {
            "space": self.space,
            "pairs": len(self.moved_N),
            **{k: getattr(self, k) for k in ("epsilon", "low", "high", "center_value", "worst_value", "dual_value")},
            "transport": self.transport,
            "moved_mass": float(self.moved_N.mean()),
            "moved_pairs": int((self.moved_N > 0).sum()),
            "clipped": self.clipped,
        }  # fmt: skip

    def columns(self) -> list[dict[str, float]]:
        """The constants of each pair, under the names that the objective `ssapo` reads them by.

        `robust_lambda` and `robust_low` are in units of the gap and missing in probability space. At epsilon = 0 there
        is no game: any lambda from the largest gain on solves the dual, but would bind once the policy has moved.
        """
        names = {"robust_moved": self.moved_N, "robust_shift": self.shift_N}
        if self.space == "margin":
            price_N = self.lambda_N if self.epsilon > 0 else np.full_like(self.lambda_N, -1.0)
            names |= {"robust_lambda": price_N, "robust_low": np.full_like(self.moved_N, self.low)}
        lists = [column.tolist() for column in names.values()]
        return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]


def worst_case(
    xi: ArrayLike,
    *,
    epsilon: float,
    space: Space = "margin",
    pieces: int | None = None,
    low: float | None = None,
    high: float | None = None,
    tau: float = 1.0,
    group_size: int | None = None,
    clip: bool = False,
) -> WorstCase:
    """The follower over the gaps of a round.

    Args:
        xi: (N,) gaps beta * (rho_w - rho_l), in the order of the pairs.
        epsilon: Wasserstein radius >= 0, in units of the space: gap (beta included) or probability. The paper's 0.01
            is in probability; the same number in margin space is a far weaker adversary.
        space: "margin" looks at xi with the loss -log sigma(xi), "probability" at v = sigma(xi) with -log v.
        pieces: None for the exact loss, else K tangents: at evenly spaced knots of the window (K = 1: its middle), or
            at v = k/K. The paper's setting is probability with 6. The exact loss in probability needs a low > 0.
        low, high: window, which holds all values. Default: [min - tau, max + tau], or [0, 1].
        tau: room below the smallest gap; results depend on it.
        group_size: solve consecutive groups of this size, each with its own budget; None: all together, which is
            never weaker.
        clip: put values outside the window on its end instead of refusing them; they are counted.

    Returns:
        Shares to move, how far, price and values.

    Raises:
        ValueError: no gaps, a gap is not finite (names the first), the window does not hold them, or epsilon, pieces,
            tau or group_size do not fit.

    Example:
        >>> paper = worst_case([0.5, 2.0], epsilon=0.01, space="probability", pieces=6)
        >>> paper.moved_N.round(4).tolist()
        [0.0321, 0.0]
    """
    xi_N = finite_vector(xi, "xi", "pair")
    _check_space(space)
    if pieces is not None:
        count_of(pieces, "pieces")
    if not (math.isfinite(tau) and tau > 0):
        raise ValueError(f"tau must be a positive number; given {tau}")
    if space == "margin":
        value_N, ends = xi_N, (float(xi_N.min()) - tau, float(xi_N.max()) + tau)
    else:
        value_N, ends = expit(xi_N), (0.0, 1.0)
    low, high = ends[0] if low is None else float(low), ends[1] if high is None else float(high)
    loss: Loss
    if space == "margin":
        loss = exact_margin if pieces is None else tangents_margin(_knots(low, high, pieces))
    elif pieces is not None:
        loss = tangents_probability(pieces)
    elif low > 0:
        loss = exact_probability
    else:
        raise ValueError(
            "the exact loss -log v is infinite at v = 0: in probability space give pieces (the paper uses 6), or a "
            "window with low > 0"
        )
    # sigma saturates (at 1 beyond xi = 37), xi still says which gap is smaller
    return follower(
        value_N, loss, low, high, epsilon, space=space, group_size=group_size, clip=clip, order=xi_N
    )


def follower(
    value: ArrayLike,
    loss: Loss,
    low: float,
    high: float,
    epsilon: float,
    *,
    space: Space = "margin",
    group_size: int | None = None,
    clip: bool = False,
    order: ArrayLike | None = None,
) -> WorstCase:
    """The follower for any convex, non-increasing loss on a window.

    Args:
        value: (N,) gaps or probabilities.
        loss: maps an array to losses, elementwise.
        low, high: window that holds all values.
        epsilon: mean movement allowed, >= 0.
        space: recorded in the answer, not used.
        group_size, clip: see `worst_case`.
        order: (N,) numbers in the order of `value` that break its ties; further ties go by index.

    Raises:
        ValueError: see `worst_case`.

    Example:
        >>> follower([1.0], exact_margin, low=-1.0, high=2.0, epsilon=0.5).moved_N
        array([0.25])
    """
    value_N = finite_vector(value, "value", "pair")
    n = len(value_N)
    _check_epsilon(epsilon)
    order_N = value_N if order is None else finite_vector(order, "order", "pair")
    if len(order_N) != n:
        raise ValueError(f"{len(order_N)} numbers of order for {n} values; needed one each")
    size = n if group_size is None else min(count_of(group_size, "group_size"), n)
    value_N, clipped = _within(value_N, low, high, clip)

    cap_N = value_N - low
    stay_N, at_low = loss(value_N), float(loss(np.array([low]))[0])
    gain_N = np.divide(at_low - stay_N, cap_N, out=np.zeros(n), where=cap_N > 0)

    order_MG = _grouped(order_N, size, np.inf)  # padding comes last and has no room to move
    rank_MG = np.argsort(order_MG, axis=1, kind="stable")
    cap_MG = np.take_along_axis(_grouped(cap_N, size, 0.0), rank_MG, axis=1)
    gain_MG = np.take_along_axis(_grouped(gain_N, size, 0.0), rank_MG, axis=1)
    size_M = np.minimum(size, n - size * np.arange(len(order_MG)))
    budget_M = epsilon * size_M
    spent_MG = np.cumsum(cap_MG, axis=1)
    before_MG = np.concatenate([np.zeros((len(spent_MG), 1)), spent_MG[:, :-1]], axis=1)
    share_MG = np.divide(
        budget_M[:, None] - before_MG, cap_MG, out=np.zeros_like(cap_MG), where=cap_MG > 0
    ).clip(0, 1)
    share_MG[share_MG < CRUMB] = 0.0
    share_MG[share_MG > 1 - CRUMB] = 1.0
    moved_MG = np.empty_like(share_MG)
    np.put_along_axis(moved_MG, rank_MG, share_MG, axis=1)
    moved_N = moved_MG.reshape(-1)[:n]

    got_MG = share_MG > 0
    last_M = size - 1 - np.argmax(got_MG[:, ::-1], axis=1)
    lambda_M = np.where(
        got_MG.any(axis=1), np.take_along_axis(gain_MG, last_M[:, None], axis=1)[:, 0], gain_MG.max(axis=1)
    )
    if epsilon > 0:
        lambda_M = np.where(spent_MG[:, -1] > budget_M, lambda_M, 0.0)
    lambda_N = np.repeat(lambda_M, size_M)

    worst_N = (1 - moved_N) * stay_N + moved_N * at_low
    dual_N = lambda_N * epsilon + np.maximum(stay_N, at_low - lambda_N * cap_N)
    return WorstCase(
        space=space,
        epsilon=float(epsilon),
        low=float(low),
        high=float(high),
        moved_N=moved_N,
        shift_N=cap_N,
        gain_N=gain_N,
        lambda_N=lambda_N,
        center_value=float(stay_N.mean()),
        worst_value=float(worst_N.mean()),
        dual_value=float(dual_N.mean()),
        transport=float((moved_N * cap_N).mean()),
        clipped=clipped,
    )


def _grouped(x_N: Array, size: int, filler: float) -> Array:
    """(M, G) consecutive groups, the last one padded."""
    groups = -(-len(x_N) // size)
    out = np.full(groups * size, filler)
    out[: len(x_N)] = x_N
    return out.reshape(groups, size)


def _knots(low: float, high: float, pieces: int) -> Array:
    return np.array([(low + high) / 2]) if pieces == 1 else np.linspace(low, high, pieces)


# -- checks ----------------------------------------------------------------------------------------------------


def _within(value_N: Array, low: float, high: float, clip: bool) -> tuple[Array, int]:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"the window must be two finite numbers, low <= high; given [{low}, {high}]")
    outside_N = (value_N < low) | (value_N > high)
    count = int(outside_N.sum())
    if count and not clip:
        first = int(np.argmax(outside_N))
        raise ValueError(
            f"{count} of {len(value_N)} values lie outside the window [{low:g}, {high:g}], so no distribution on it "
            f"can be reached; the first is pair {first} with {value_N[first]:g}. Widen the window to hold "
            f"[{value_N.min():g}, {value_N.max():g}], or give clip=True"
        )
    return value_N.clip(low, high), count


def _check_space(space: str) -> None:
    if space not in SPACES:
        raise ValueError(f"space must be margin or probability; given {space!r}")


def _check_epsilon(epsilon: float) -> None:
    if isinstance(epsilon, bool) or not (math.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon, the radius of the ball, must be finite and at least 0; given {epsilon}")


__all__ = ["SPACES", "UNMOVED", "Space", "WorstCase", "follower", "worst_case"]
