"""Losses of a preference gap that fall with it: -log sigma(xi), -log v, and tangents below them.

They are what the follower of SSAPO (arXiv 2502.18099, section 3.2 and appendix G.1) evaluates, in float64 on the host.
Legend of shape suffixes: K pieces. Symbols: xi gap, v = sigma(xi).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Array = NDArray[np.float64]
Loss = Callable[[Array], Array]


@dataclass(frozen=True)
class Pieces:
    """A piecewise linear loss, h(x) = max_k (slope_k x + intercept_k).

    Args:
        slope_K, intercept_K: (K,) float64; no slope is positive.

    Raises:
        ValueError: no pieces, lengths differ, a number is not finite, or a slope is positive.

    >>> float(tangents_margin([0.0])(np.zeros(1))[0])
    0.6931471805599453
    """

    slope_K: Array
    intercept_K: Array

    def __post_init__(self) -> None:
        for name in ("slope_K", "intercept_K"):
            object.__setattr__(self, name, finite_vector(getattr(self, name), name, "piece"))
        if len(self.slope_K) != len(self.intercept_K):
            raise ValueError(
                f"{len(self.slope_K)} slopes and {len(self.intercept_K)} intercepts; needed one of each a piece"
            )
        if (self.slope_K > 0).any():
            k = int(np.argmax(self.slope_K > 0))
            raise ValueError(
                f"piece {k} has the positive slope {self.slope_K[k]:g}: the closed solution holds for losses that "
                "fall with the gap"
            )

    def __call__(self, x: Array) -> Array:
        """h(x), in the shape of x."""
        out = np.full_like(x, -np.inf)
        for slope, intercept in zip(self.slope_K, self.intercept_K, strict=True):
            np.maximum(out, slope * x + intercept, out=out)
        return out


def tangents_margin(knots: ArrayLike) -> Pieces:
    """Tangents of -log sigma(xi) at the knots (paper, section 3.2); they never exceed it.

    The paper also allows chords, but chords of a convex loss lie above it.

    Args:
        knots: (K,) gaps, K >= 1, finite.

    Example:
        >>> tangents_margin([0.0]).slope_K.tolist()
        [-0.5]
    """
    knots_K = finite_vector(knots, "knots", "knot")
    slope_K = -expit(-knots_K)
    return Pieces(slope_K, np.logaddexp(0.0, -knots_K) - slope_K * knots_K)


def tangents_probability(pieces: int) -> Pieces:
    """Tangents of -log v at v = k/K, k = 1..K (paper, appendix G.1).

    -log v has no finite slope at 0, so `pieces` is no accuracy here: it is the slope at 0, the adversary's strength.

    Args:
        pieces: K >= 1.

    Example:
        >>> tangents_probability(2).slope_K.tolist()
        [-2.0, -1.0]
    """
    k = np.arange(1, count_of(pieces, "pieces") + 1, dtype=np.float64)
    return Pieces(-pieces / k, 1 - np.log(k / pieces))


def exact_margin(xi: Array) -> Array:
    """-log sigma(xi)."""
    return np.logaddexp(0.0, -xi)


def exact_probability(v: Array) -> Array:
    """-log v."""
    return -np.log(v)


def finite_vector(x: ArrayLike, name: str, what: str) -> Array:
    """A vector of at least one number, all finite; raises ValueError naming the first of its `what`s that is not."""
    out = np.asarray(x, dtype=np.float64)
    if out.ndim != 1 or not len(out):
        raise ValueError(f"{name} must be a vector with at least one number; given shape {out.shape}")
    bad = ~np.isfinite(out)
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"{name} of {what} {first} is {out[first]}; needed a finite number ({int(bad.sum())} of {len(out)} are "
            "not): drop such rows, or find where the log-probabilities overflow"
        )
    return out


def count_of(value: int, name: str) -> int:
    """A whole number of at least 1; raises ValueError naming it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; given {value!r}")
    return value


__all__ = [
    "Array",
    "Loss",
    "Pieces",
    "count_of",
    "exact_margin",
    "exact_probability",
    "finite_vector",
    "tangents_margin",
    "tangents_probability",
]
