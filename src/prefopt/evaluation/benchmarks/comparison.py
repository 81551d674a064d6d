"""A model beside a baseline: differences of figures with paired bootstrap intervals, and what may be said of them.

Legend: U units, C counts, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prefopt.evaluation.benchmarks.base import Part, Tally, summed

RESAMPLES = 1000
MARGIN = 0.02
"""Loss of coverage, as a share, that must be excluded before fewer hallucinations count as an improvement."""

# in which figure a part shows hallucination, and in which what is covered
BESIDE = {"chair_i": "recall", "chair": "cover"}


@dataclass(frozen=True)
class Difference:
    """Model minus baseline.

    Attributes:
        value: over all units; NaN where a side has no figure.
        low, high: 95 % interval, percentile bootstrap over units; NaN where no resample has figures of both.
        undefined: resamples without a figure of either side, which the interval leaves out.
    """

    value: float
    low: float
    high: float
    undefined: int


def differences(
    model: Part, baseline: Part, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Difference]:
    """Differences of all figures of a part. A resample draws the same units of both sides.

    Args:
        model, baseline: the same part of both sides.
        seed: of the resampling.
        resamples: how many.

    Raises:
        ValueError: other units, or resamples below 2.

    Example:
        >>> from prefopt.evaluation.benchmarks.pope import figures, tally
        >>> right = {"1": tally("yes", "yes"), "2": tally("no", "no")}
        >>> wrong = {"1": tally("yes", "no"), "2": tally("no", "yes")}
        >>> differences(Part("pope", right, figures), Part("pope", wrong, figures))["accuracy"].low
        1.0
    """
    if resamples < 2:
        raise ValueError(f"an interval needs resamples of at least 2; given {resamples}")
    if set(model.tallies) != set(baseline.tallies):
        other = sorted(set(model.tallies) ^ set(baseline.tallies))
        raise ValueError(
            f"{model.name}: model and baseline answer other questions, such as of {other[0]!r}; needed the same"
        )
    units = list(model.tallies)
    weights_RU = np.random.default_rng(seed).multinomial(len(units), [1 / len(units)] * len(units), resamples)
    sides = []
    for part in (model, baseline):
        names = list(summed(part.tallies.values()))
        counts_UC = np.array(
            [[part.tallies[u].get(name, 0) for name in names] for u in units], dtype=np.float64
        )
        sums_RC = weights_RU @ counts_UC
        whole: Tally = dict(zip(names, counts_UC.sum(0).tolist(), strict=True))
        drawn = [part.figures(dict(zip(names, row, strict=True))) for row in sums_RC.tolist()]
        sides.append((part.figures(whole), drawn))
    (ours, ours_drawn), (theirs, theirs_drawn) = sides
    found = {}
    for name, value in ours.items():
        apart = np.array([a[name] - b[name] for a, b in zip(ours_drawn, theirs_drawn, strict=True)])
        kept = apart[~np.isnan(apart)]
        low, high = np.percentile(kept, [2.5, 97.5]) if len(kept) else (math.nan, math.nan)
        found[name] = Difference(value - theirs[name], float(low), float(high), int(len(apart) - len(kept)))
    return found


def verdict(found: Mapping[str, Difference]) -> str | None:
    """What differences say of hallucination, in a sentence that needs CHAIR and coverage both; None without a CHAIR.

    Fewer hallucinations count as an improvement only if the interval of coverage excludes a loss of more than `MARGIN`.
    """
    pair = next(((h, c) for h, c in BESIDE.items() if h in found and c in found), None)
    if pair is None:
        return None
    hallucination, coverage = found[pair[0]], found[pair[1]]
    both = f"{pair[0]} {spelled(hallucination)}, {pair[1]} {spelled(coverage)}"
    if math.isnan(hallucination.low) or math.isnan(coverage.low):
        return f"no verdict: a side mentions no objects, or no objects are annotated ({both})"
    if hallucination.high < 0:
        if coverage.high < 0:
            return f"no improvement shown: fewer hallucinations, and less is covered, as saying less would give ({both})"
        if coverage.low < -MARGIN:
            return f"undecided: fewer hallucinations, but a loss of coverage above {MARGIN:.0%} is not excluded ({both})"
        return f"improved: fewer hallucinations, and no loss of coverage above {MARGIN:.0%} ({both})"
    if hallucination.low > 0:
        more = "though more is covered" if coverage.low > 0 else "and no more is covered"
        return f"not improved: more hallucinations, {more} ({both})"
    return f"undecided: the interval of {pair[0]} includes no change ({both})"


def spelled(difference: Difference) -> str:
    """A difference and its interval."""
    return f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def paired(model: Sequence[Part], baseline: Sequence[Part]) -> list[tuple[Part, Part]]:
    """The same parts of both sides.

    Raises:
        ValueError: a side has others.
    """
    named = {part.name: part for part in baseline}
    if [part.name for part in model] != list(named):
        raise ValueError(
            f"the model has the parts {', '.join(p.name for p in model) or 'none'}, the baseline {', '.join(named) or 'none'}: "
            "needed the same; where a judge is needed, give what it said of both"
        )
    return [(part, named[part.name]) for part in model]
