"""E1's claims of `prefopt reproduce lpo`: which judge is right how often, by noise level."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional
from prefopt.reproduce.lpo.judges import EXACT, LRM, PIXEL, SCRATCH, Ranking

LOW, HIGH = 300, 700
"""Timesteps up to which noise is called low and from which it is called high; at the noisiest all are near chance."""
RESAMPLES = 2000
PARTS = {
    f"low noise (t below {LOW + 1})": lambda t: t <= LOW,
    f"middle noise (t from {LOW + 1} to {HIGH - 1})": lambda t: LOW < t < HIGH,
    f"high noise (t from {HIGH})": lambda t: t >= HIGH,
}


def ahead(ranking: Ranking, judge: str, rival: str, times: Sequence[int]) -> float:
    """Percentage points of accuracy by which a judge is ahead, mean over timesteps."""
    return 100 * fmean([ranking.accuracy(judge, t) - ranking.accuracy(rival, t) for t in times])


def claims(rankings: Sequence[Ranking]) -> list[Claim]:
    """LRM against both pixel judges at low, middle and high noise, and whether its lead grows with noise."""
    times = list(rankings[0].right[LRM])
    parts = {name: [t for t in times if within(t)] for name, within in PARTS.items()}
    low, high = [t for t in times if t <= LOW], [t for t in times if t >= HIGH]
    found = []
    for rival in (PIXEL, SCRATCH):
        found += [
            directional(
                f"E1: LRM is more accurate than the {rival} at {name}",
                [ahead(r, LRM, rival, some) for r in rankings],
                source="motivation: pixel judges fail on noisy images",
                how="accuracy on held-out pairs, LRM - pixel judge, mean over t = "
                + ", ".join(map(str, some)),
                unit="percentage points",
            )
            for name, some in parts.items()
            if some
        ]
        found.append(
            directional(
                f"E1: LRM's lead over the {rival} grows with the noise",
                [ahead(r, LRM, rival, high) - ahead(r, LRM, rival, low) for r in rankings],
                source="title: noise-aware",
                how="lead at high noise - lead at low noise",
                unit="percentage points",
            )
        )
    return found


def bootstrap(differences: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % interval of the mean over seeds of paired differences, pairs drawn again within each seed."""
    rng = np.random.default_rng(0)
    means = np.zeros(RESAMPLES)
    for values in differences:
        array = np.asarray(values)
        means += array[rng.integers(len(array), size=(RESAMPLES, len(array)))].mean(1) / len(differences)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def accuracy_table(rankings: Sequence[Ranking]) -> Table:
    """By timestep, means over seeds, and LRM's lead with an interval over pairs."""
    rows: list[list[str | float]] = []
    for t in rankings[0].right[LRM]:
        row: list[str | float] = [t]
        row += [fmean([r.accuracy(judge, t) for r in rankings]) for judge in (LRM, PIXEL, SCRATCH, EXACT)]
        for rival in (PIXEL, SCRATCH):
            differences = [
                [100 * (a - b) for a, b in zip(r.right[LRM][t], r.right[rival][t], strict=True)]
                for r in rankings
            ]
            low, high = bootstrap(differences)
            row.append(f"{fmean([fmean(d) for d in differences]):+.1f} [{low:+.1f}, {high:+.1f}]")
        rows.append(row)
    n = fmean([len(next(iter(r.right[LRM].values()))) for r in rankings])
    return Table(
        f"E1: accuracy by timestep, means over {len(rankings)} seeds of about {n:.0f} pairs each; LRM's lead in points "
        "with a 95 % bootstrap interval over pairs",
        ["t", LRM, PIXEL, SCRATCH, EXACT, f"LRM - {PIXEL}", f"LRM - {SCRATCH}"],
        rows,
    )


@plots.styled
def accuracy_plot(rankings: Sequence[Ranking]) -> Plot:
    """Accuracy and LRM's lead against the timestep."""
    figure, (left, right) = plots.panels(2, width=5.0, height=4.2)
    times = list(rankings[0].right[LRM])
    looks = {
        EXACT: (plots.QUIET, "", ":"),
        LRM: (plots.BLUE, "o", "-"),
        PIXEL: (plots.VERMILION, "s", "-"),
        SCRATCH: (plots.ORANGE, "v", "--"),
    }
    for judge, (colour, marker, line) in looks.items():
        columns = [[100 * r.accuracy(judge, t) for r in rankings] for t in times]
        label = "exact reward of the prediction" if judge == EXACT else judge
        plots.curve(left, times, columns, label=label, colour=colour, marker=marker, line=line)
    left.axhline(50, color=plots.QUIET, linewidth=1.0)
    left.set_ylabel("right on held-out pairs (%)")
    left.set_title("Accuracy by noise level")
    left.legend(loc="lower left", bbox_to_anchor=(0.0, 0.06))
    for rival in (PIXEL, SCRATCH):
        colour, marker, line = looks[rival]
        columns = [[ahead(r, LRM, rival, [t]) for r in rankings] for t in times]
        plots.curve(right, times, columns, label=f"over the {rival}", colour=colour, marker=marker, line=line)
    right.axhline(0, color=plots.QUIET, linewidth=1.0)
    right.set_ylabel("LRM's lead (percentage points)")
    right.set_title("Lead of the latent judge")
    right.legend()
    for ax in (left, right):
        ax.set_xlabel("timestep (noise grows to the right)")
    return Plot(
        "lpo_accuracy",
        "E1: judges on the same noisy latents of held-out pairs; the pixel judges and the exact reward read the decoded "
        f"prediction of the clean picture. Means of {len(rankings)} seeds with 95 % intervals",
        figure,
    )


def experiment(rankings: Sequence[Ranking]) -> Part:
    """E1's claims, numbers and figure."""
    return Part(
        claims=claims(rankings),
        tables=[accuracy_table(rankings)],
        plots=[accuracy_plot(rankings)],
    )
