"""C1 and C2 of `prefopt reproduce condition_po`: how clearly the starting model tells the two sides of pairs apart.

Delta = l_w - l_l, mean squared denoising errors under shared noise. Condition pairs differ in the control image alone,
image pairs in everything.

Legend: E comparisons, T timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prefopt.reproduce import plots
from prefopt.reproduce.condition_po.deltas import Contrast, contrasts, deltas
from prefopt.reproduce.condition_po.world import Kind, Run, Size, rows_of
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, everywhere
from prefopt.reproduce.paired import mean

CONDITIONS: Kind = "conditions"
IMAGES: Kind = "images"
KINDS: tuple[Kind, ...] = (CONDITIONS, IMAGES)
SCORED_AS = {CONDITIONS: "condition_po", IMAGES: "diffusion_dpo"}
NAMES = {CONDITIONS: "condition pairs", IMAGES: "image pairs (DPO)"}
CLEAN, NOISY = 50, (700, 900)
"""Timesteps that C2 compares."""
REMAINS = 0.01
"""Share of the mean Delta at t = 50 that still is a signal: the pilot had 5 % and 0.2 % or less."""


@dataclass(frozen=True, slots=True)
class Contrasts:
    """Delta of one kind of pair of a seed.

    Attributes:
        lines: by timestep.
        variance: over pictures, noise and all timesteps.
    """

    lines: dict[int, Contrast]
    variance: float

    @property
    def within(self) -> float:
        """Variance within a timestep, mean over timesteps."""
        return mean([line.std**2 for line in self.lines.values()])

    def remaining(self, t: int) -> float:
        """Mean Delta at a timestep, as a share of that at `CLEAN`."""
        return self.lines[t].mean / self.lines[CLEAN].mean


Found = Sequence[Mapping[Kind, Contrasts]]
"""One a seed."""


def measure(seed: int, size: Size) -> dict[Kind, Contrasts]:
    """Delta of a seed's pairs under the starting model, each pair under noise of its own, the same for all timesteps."""
    found: dict[Kind, Contrasts] = {}
    for kind in KINDS:
        rows = rows_of(kind, seed, size)[: size.contrast_rows]
        with Run(rows, seed, size, method=SCORED_AS[kind]) as run:
            setup = run.course.setup
            model = setup.policy.model.eval()
            delta_TE = deltas(setup.likelihood, model, setup.data.train, size.timesteps)
        lines = {line.timestep: line for line in contrasts(delta_TE, size.timesteps)}
        found[kind] = Contrasts(lines, float(delta_TE.var()))
    return found


def claims(found: Found) -> list[Claim]:
    """C1: variance and its ratio to the signal; C2: the signal at high noise."""
    times = list(found[0][CONDITIONS].lines)

    def at_every_t(of: Callable[[Contrast, Contrast], float]) -> dict[str, list[float]]:
        return {
            f"t = {t}": [of(seed[CONDITIONS].lines[t], seed[IMAGES].lines[t]) for seed in found]
            for t in times
        }

    return [
        directional(
            "C1: condition pairs have a lower total variance of Delta than image pairs",
            [math.log2(seed[IMAGES].variance / seed[CONDITIONS].variance) for seed in found],
            source="theorem: lower variance of the contrastive loss",
            how="log2 of the variances over pictures, noise and uniform t, image pairs' over condition pairs'",
            unit="doublings",
        ),
        everywhere(
            "C1: and a lower variance at every noise level alone",
            at_every_t(lambda c, i: 2 * math.log2(i.std / c.std)),
            source="theorem, read at each t",
            how="log2 of the variances, image pairs' over condition pairs'",
            unit="doublings",
        ),
        everywhere(
            "C1: their ratio of signal to noise is higher at every noise level",
            at_every_t(lambda c, i: c.snr - i.snr),
            source="theorem and experiment, made free of scale",
            how="|mean Delta| / standard deviation, condition pairs - image pairs",
        ),
        everywhere(
            "C1: the sign of Delta is right more often at every noise level",
            at_every_t(lambda c, i: 100 * (c.accuracy - i.accuracy)),
            source="theorem and experiment, made free of scale",
            how="share of pairs with Delta < 0, condition pairs - image pairs",
            unit="percentage points",
        ),
        directional(
            f"C1: their ratio of signal to noise keeps more of itself from t = {CLEAN} to {NOISY[-1]}",
            [
                seed[CONDITIONS].lines[NOISY[-1]].snr / seed[CONDITIONS].lines[CLEAN].snr
                - seed[IMAGES].lines[NOISY[-1]].snr / seed[IMAGES].lines[CLEAN].snr
                for seed in found
            ],
            source="derived here",
            how=f"ratio at t = {NOISY[-1]} over that at t = {CLEAN}, condition pairs - image pairs",
        ),
        everywhere(
            f"C2: condition pairs keep more than {REMAINS:.0%} of their mean Delta at high noise",
            {f"t = {t}": [100 * (seed[CONDITIONS].remaining(t) - REMAINS) for seed in found] for t in NOISY},
            source="abstract: signal at all timesteps",
            how=f"mean Delta over that at t = {CLEAN}, less {REMAINS:.0%}",
            unit="percentage points",
        ),
        everywhere(
            f"C2: image pairs keep less than {REMAINS:.0%} of theirs",
            {f"t = {t}": [100 * (REMAINS - seed[IMAGES].remaining(t)) for seed in found] for t in NOISY},
            source="pilot: 0.2 % and 0.02 %",
            how=f"{REMAINS:.0%} less mean Delta over that at t = {CLEAN}",
            unit="percentage points",
        ),
    ]


def experiment(found: Found) -> Part:
    """Claims, numbers and figure."""
    rows: list[list[str | float | int]] = []
    for t in found[0][CONDITIONS].lines:
        row: list[str | float | int] = [t]
        for kind in KINDS:
            lines = [seed[kind].lines[t] for seed in found]
            row += [
                mean([getattr(line, name) for line in lines]) for name in ("mean", "std", "snr", "accuracy")
            ]
        rows.append(row)
    columns = [
        f"{what}, {kind}" for kind in KINDS for what in ("mean Delta", "its std", "|mean| / std", "share < 0")
    ]
    spreads: list[list[str | float | int]] = [
        [
            NAMES[kind],
            mean([seed[kind].variance for seed in found]),
            mean([seed[kind].within for seed in found]),
        ]
        for kind in KINDS
    ]
    return Part(
        claims=claims(found),
        tables=[
            Table("C1, C2: Delta of the starting model by timestep, means over seeds", ["t", *columns], rows),
            Table(
                "C1: variance of Delta, means over seeds",
                ["pairs", "over all timesteps", "within a timestep, mean"],
                spreads,
            ),
        ],
        plots=[contrast_plot(found)],
    )


@plots.styled
def contrast_plot(found: Found) -> Plot:
    """Delta with its spread, the ratio of both, and the share of right signs, by timestep."""
    figure, axes = plots.panels(3, width=4.4, height=3.9)
    times = list(found[0][CONDITIONS].lines)
    looks = {CONDITIONS: (plots.BLUE, "o"), IMAGES: (plots.VERMILION, "s")}
    for kind, (colour, marker) in looks.items():
        label = NAMES[kind]
        lines = [[seed[kind].lines[t] for seed in found] for t in times]
        middle = [mean([line.mean for line in at]) for at in lines]
        spread = [mean([line.std for line in at]) for at in lines]
        axes[0].plot(times, middle, marker=marker, color=colour, label=label, markeredgecolor="white")
        low, high = ([m + sign * s for m, s in zip(middle, spread, strict=True)] for sign in (-1, 1))
        axes[0].fill_between(times, low, high, color=colour, alpha=0.15, linewidth=0)
        for ax, of in (
            (axes[1], lambda line: line.snr),
            (axes[2], lambda line: 100 * line.accuracy),
        ):
            columns = [[of(line) for line in at] for at in lines]
            plots.curve(ax, times, columns, label=label, colour=colour, marker=marker)
    axes[0].set_yscale("symlog", linthresh=1e-4)
    axes[0].set_title("Delta and its spread")
    axes[0].set_ylabel("winner's error - loser's (log scale beyond 0.0001)")
    axes[1].set_title("Signal over noise")
    axes[1].set_ylabel("|mean Delta| / standard deviation")
    axes[1].set_ylim(bottom=0)
    axes[2].set_title("Right side")
    axes[2].set_ylabel("pairs with Delta < 0 (%)")
    axes[2].axhline(50, color=plots.QUIET, linewidth=1.0)
    axes[1].legend()
    for ax in axes:
        ax.set_xlabel("timestep (noise grows to the right)")
    return Plot(
        "condition_po_contrast",
        "C1, C2: denoising error of the winner minus that of the loser under the starting model, with one standard "
        f"deviation over pairs and noise; its ratio and sign, means of {len(found)} seeds with 95 % intervals",
        figure,
    )
