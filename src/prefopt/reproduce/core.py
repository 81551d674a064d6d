"""Claims, and the one rule that judges them; what a reproduction is and how it is written to disk.

The rule. A directional claim is a list of paired differences, one a seed, signed so that the claim says "above 0".
Their mean gets a 95 % t-interval, and
    holds               the whole interval lies above 0,
    does not hold here  the whole interval lies below 0 (or, where a claim names a smallest effect worth having,
                        below that effect),
    inconclusive        anything else, and whatever a single seed gave.
An exact claim (a theorem, an invariance) is a list of errors, one a seed; it holds if the largest is within the
stated tolerance and does not hold here otherwise.
Intervals are per claim: a table of twenty claims is expected to hold one false "holds" in forty by chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal["holds", "does not hold here", "inconclusive"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold here"
OPEN: Verdict = "inconclusive"

Tick = Callable[[], None]
Ticker = Callable[[str, int], Tick]
"""Starts a progress bar of so many steps and returns what advances it by one."""


def silent(description: str, total: int) -> Tick:
    """A `Ticker` that shows nothing."""
    return lambda: None


@dataclass(frozen=True, slots=True)
class Paper:
    """What a paper's folder says of it, without importing anything heavy.

    Attributes:
        title: the paper's.
        paper: arXiv number, or the id on OpenReview.
        seeds: of its largest experiment, unless others are asked for.
    """

    title: str
    paper: str
    seeds: int


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of a paper beside what this machine measured.

    Attributes:
        statement: what should be so, in words.
        source: where the paper says it.
        expected: the condition the verdict tests, such as "> 0".
        measured: mean over seeds of the paired differences, or the largest error of an exact claim.
        interval: 95 % t-interval of the mean; smallest and largest error for an exact claim.
        verdict: holds, does not hold here, or inconclusive.
        how: what was compared, in one sentence.
        unit: unit of `measured`, for people.
        per_seed: the numbers behind it, one a seed.
    """

    statement: str
    source: str
    expected: str
    measured: float
    interval: tuple[float, float]
    verdict: Verdict
    how: str
    unit: str = ""
    per_seed: tuple[float, ...] = ()


def t_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Two-sided Student interval of the mean of `values`; infinite for fewer than two."""
    n = len(values)
    if n < 2:
        return -math.inf, math.inf
    from scipy.stats import t

    mean = math.fsum(values) / n
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf(0.5 + level / 2, n - 1)) * std / math.sqrt(n)
    return mean - half, mean + half


def judge(interval: tuple[float, float], smallest_effect: float = 0.0) -> Verdict:
    """The rule for directional claims (see the top of this file)."""
    low, high = interval
    if low > 0:
        return HOLDS
    return FAILS if high < smallest_effect or high == low == 0 else OPEN


def directional(
    statement: str,
    differences: Iterable[float],
    *,
    source: str,
    how: str,
    unit: str = "",
    smallest_effect: float = 0.0,
) -> Claim:
    """Judge "these paired differences are above 0".

    Args:
        statement: the claim in words.
        differences: one number a seed, positive where the seed agrees with the claim.
        source: where the paper says it.
        how: what was subtracted from what.
        unit: unit of the differences.
        smallest_effect: an effect smaller than this would not be worth having; an interval wholly below it counts
            against the claim.

    Returns:
        The claim with its verdict.

    Raises:
        ValueError: no differences, or one that is not finite.

    Example:
        >>> directional("up", [0.2, 0.3, 0.25], source="Table 1", how="after - before").verdict
        'holds'
    """
    values = checked(statement, differences)
    interval = t_interval(values)
    expected = "> 0" if smallest_effect == 0 else f"> 0 (at least {smallest_effect:g} would matter)"
    mean = math.fsum(values) / len(values)
    return Claim(
        statement,
        source,
        expected,
        mean,
        interval,
        judge(interval, smallest_effect),
        how,
        unit,
        tuple(values),
    )


def everywhere(
    statement: str,
    differences: Mapping[str, Sequence[float]],
    *,
    source: str,
    how: str,
    unit: str = "",
) -> Claim:
    """Judge a claim made for several settings at once by the setting that supports it least.

    A setting that contradicts the claim decides; else the one whose interval reaches lowest does. So the claim
    holds only where it holds in every setting.

    Args:
        statement: the claim in words.
        differences: per setting (its name), one number a seed, positive where the seed agrees with the claim.
        source: where the paper says it.
        how: what was subtracted from what; the deciding setting is appended.
        unit: unit of the differences.
    """
    claims = [
        directional(statement, values, source=source, how=f"{how}; weakest at {name}", unit=unit)
        for name, values in differences.items()
    ]
    against = [c for c in claims if c.verdict == FAILS]
    return min(against, key=lambda c: c.interval[1]) if against else min(claims, key=lambda c: c.interval[0])


def within(
    statement: str, errors: Iterable[float], tolerance: float, *, source: str, how: str, unit: str = ""
) -> Claim:
    """Judge an exact claim: every error, one a seed, is at most `tolerance` in absolute value."""
    values = [abs(e) for e in checked(statement, errors)]
    return Claim(
        statement,
        source,
        f"<= {tolerance:g}",
        max(values),
        (min(values), max(values)),
        HOLDS if max(values) <= tolerance else FAILS,
        how,
        unit,
        tuple(values),
    )


def not_measured(statement: str, *, source: str, how: str) -> Claim:
    """A claim that this run could not put to the test; inconclusive, `how` says why."""
    return Claim(statement, source, "> 0", math.nan, (-math.inf, math.inf), OPEN, how)


def checked(statement: str, values: Iterable[float]) -> list[float]:
    """The values as floats; raises ValueError if there are none or one is not finite."""
    floats = [float(v) for v in values]
    if not floats or not all(math.isfinite(v) for v in floats):
        raise ValueError(
            f"claim {statement!r} needs at least one finite number a seed; given {floats}. "
            "A run that diverged must be reported, not averaged"
        )
    return floats


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of numbers or words."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with the name of its files and a caption."""

    name: str
    caption: str
    figure: Figure


@dataclass(slots=True, kw_only=True)
class Part:
    """What one experiment found.

    Attributes:
        claims: the paper's claims with verdicts.
        tables: numbers behind the figures.
        plots: figures.
        settings: every number that was chosen, by experiment.
        notes: what a reader must know before trusting a verdict.
        uncounted: seconds spent on what is made once and then cached, which are not the experiment's.
    """

    claims: list[Claim] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    uncounted: float = 0.0

    def add(self, other: Part) -> None:
        """Append what another experiment found."""
        self.claims += other.claims
        self.tables += other.tables
        self.plots += other.plots
        self.settings |= other.settings
        self.notes += other.notes
        self.uncounted += other.uncounted


@dataclass(slots=True)
class Reproduction(Part):
    """What `prefopt reproduce NAME` found.

    Attributes:
        name: name of the reproduction, which starts all its file names.
        title: the paper's title.
        paper: arXiv number, or the id on OpenReview.
        seconds: wall time.
    """

    name: str
    title: str
    paper: str
    seconds: float = 0.0

    @property
    def published(self) -> str:
        """Where the paper is."""
        return published(self.paper)


def published(paper: str) -> str:
    """Where a paper is: arXiv numbers have a dot, ids on OpenReview have none.

    Example:
        >>> published("2409.17431"), published("d6lIOnvOX2")
        ('arXiv 2409.17431', 'OpenReview d6lIOnvOX2')
    """
    return f"arXiv {paper}" if "." in paper else f"OpenReview {paper}"


@dataclass(frozen=True, slots=True)
class Asked:
    """How a reproduction is to be run.

    Attributes:
        seeds: as many as the largest experiment has; `at_most` takes fewer.
        quick: small sizes that only show that everything runs; verdicts mean nothing then.
        workers: processes, where an experiment can be split.
        ticker: starts progress bars.
    """

    seeds: int
    quick: bool = False
    workers: int = 1
    ticker: Ticker = silent

    def at_most(self, seeds: int) -> Asked:
        """The same for an experiment that takes no more seeds than so many."""
        return replace(self, seeds=min(self.seeds, seeds))

    def in_processes(
        self, description: str, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """`work(*job)` for each job, over the workers, under a bar, in the order of the jobs.

        Processes are spawned, each with one thread, so a result does not depend on their number.
        """
        tick = self.ticker(description, len(jobs))
        if self.workers <= 1:
            results = []
            for job in jobs:
                results.append(work(*job))
                tick()
            return results
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        with ProcessPoolExecutor(self.workers, get_context("spawn"), initializer=one_thread) as pool:
            futures = [pool.submit(work, *job) for job in jobs]
            for future in futures:
                future.add_done_callback(lambda _: tick())
            return [future.result() for future in futures]


def one_thread() -> None:
    """One torch thread a process: more processes than cores times threads would only fight."""
    import torch

    torch.set_num_threads(1)
