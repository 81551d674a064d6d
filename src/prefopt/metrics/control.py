"""Comparisons of methods by how closely their images follow the control images."""

from __future__ import annotations

import math


def error_rate_reduction(method: float, baseline: float, oracle: float) -> float:
    """1 - |oracle - method| / |oracle - baseline|: the share of the baseline's error that a method does without.

    Args:
        method: its score.
        baseline: the score that it is compared with.
        oracle: the score of real images, which only the detector's own errors keep from being perfect.

    Returns:
        1 where the method scores as real images do, 0 where it scores as the baseline, below 0 where worse.

    Raises:
        ValueError: a score that is not finite, or a baseline without any error.

    Example:
        >>> round(error_rate_reduction(44.81, 43.64, 55.07), 3)
        0.102
    """
    if not all(math.isfinite(score) for score in (method, baseline, oracle)):
        raise ValueError(
            f"scores are {method} (method), {baseline} (baseline), {oracle} (oracle); needed finite numbers"
        )
    if oracle == baseline:
        raise ValueError(f"baseline and oracle both score {oracle}: the baseline has no error to reduce")
    return 1 - abs(oracle - method) / abs(oracle - baseline)
