"""Numbers one a seed: means, paired differences, and differences at the same drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def mean(values: Sequence[float]) -> float:
    """Mean over seeds, or whatever the values are of."""
    return sum(values) / len(values)


def minus(a: Sequence[float], b: Sequence[float], start: int = 0) -> list[float]:
    """Paired differences from seed `start` on: of those that had no say in what is compared.

    Example:
        >>> minus([3.0, 2.0], [1.0, 2.0]), minus([3.0, 2.0], [1.0, 2.0], start=1)
        ([2.0, 0.0], [0.0])
    """
    return [x - y for x, y in zip(a, b, strict=True)][start:]


def at_matched_kl(
    ours: Mapping[float, tuple[Sequence[float], Sequence[float]]],
    theirs: Mapping[float, tuple[Sequence[float], Sequence[float]]],
) -> list[float]:
    """Per seed: mean score difference of two frontiers over the KL range that both cover.

    Raises:
        ValueError: a seed's frontiers cover no common range.
    """
    import numpy as np

    differences = []
    for seed in range(len(next(iter(ours.values()))[0])):
        curves = [
            np.array(sorted((kls[seed], scores[seed]) for kls, scores in side.values()))
            for side in (ours, theirs)
        ]
        low = max(c[0, 0] for c in curves)
        high = min(c[-1, 0] for c in curves)
        if not low < high:
            raise ValueError(f"the frontiers of seed {seed} share no KL range: widen the sweep of beta")
        grid = np.linspace(low, high, 101)
        a, b = (np.interp(grid, c[:, 0], c[:, 1]) for c in curves)
        differences.append(float((a - b).mean()))
    return differences
