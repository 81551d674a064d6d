"""What the methods of `plane.py` come to, as claims, a table and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, everywhere
from prefopt.reproduce.paired import minus
from prefopt.reproduce.sopo.plane import (
    BASE,
    BETAS,
    CANDIDATES,
    CENTRES,
    FAR,
    GIVEN,
    JOBS,
    LARGE,
    NEAR,
    OFF,
    OFFLINE,
    ONLINE,
    PREFERRED,
    RATE,
    SFT,
    SOPO,
    TAU,
    C,
    Measured,
    Method,
    Outcome,
)

THEOREMS = "Theorems 1 and 2"
CONTROL = "no claim: the control that the paper has not"
HERE = "no claim: a limit of this toy"


def values(found: Sequence[Outcome], field: str, method: str, beta: float) -> list[float]:
    """One number a seed; what has no beta is the same at all."""
    key = (method, beta) if (method, beta) in found[0].measured else (method, 0.0)
    return [float(getattr(outcome.measured[key], field)) for outcome in found]


def claims(found: Sequence[Outcome]) -> list[Claim]:
    """E1: what fixed losers and online samples miss, and the control."""

    def at_both(statement: str, field: str, over: str, under: str, source: str, unit: str) -> Claim:
        differences = {
            f"beta {beta:g}": minus(values(found, field, over, beta), values(found, field, under, beta))
            for beta in BETAS
        }
        words = {
            "far": "share far off",
            "nll": "NLL of preferred points",
            "coverage": "coverage",
            "reward": "mean reward",
        }
        return everywhere(
            statement, differences, source=source, how=f"{words[field]}, {over} - {under}", unit=unit
        )

    others = {
        f"{other} at beta {beta:g}": minus(
            values(found, "reward", ONLINE, beta), values(found, "reward", other, beta)
        )
        for beta in BETAS
        for other in (BASE, SFT, OFFLINE, SOPO)
    }
    return [
        at_both("E1: fixed losers leave more far off than sampled ones", "far", OFFLINE, SOPO, "Theorem 1", "share"),
        at_both("E1: fixed losers fit what is preferred worse than sampled ones", "nll", OFFLINE, SOPO, "Theorem 1", "nats"),
        everywhere("E1: online DPO has the highest mean reward", others, source="Theorem 2", how=f"mean reward, {ONLINE} - others"),
        at_both("E1: online DPO forgets one of the two centres, which SoPo covers", "coverage", SOPO, ONLINE, "Theorem 2", "share"),
        at_both("E1: online DPO fits what is preferred worse than SoPo", "nll", ONLINE, SOPO, THEOREMS, "nats"),
        at_both("E1: SoPo fits what is preferred better than SFT does", "nll", SFT, SOPO, CONTROL, "nats"),
        at_both("E1: SoPo leaves less far off than SFT does", "far", SFT, SOPO, CONTROL, "share"),
        directional(
            f"E1: SoPo has a larger mean reward at beta {BETAS[-1]:g} than at {LARGE:g}",
            minus(values(found, "reward", SOPO, BETAS[-1]), values(found, "reward", SOPO, LARGE)),
            source=HERE, how=f"mean reward, beta {BETAS[-1]:g} - beta {LARGE:g}",
        ),
    ]  # fmt: skip


def shown(number: float) -> str | float:
    """A number of the table; what was not measured as a dash."""
    return "-" if math.isnan(number) else round(number, 4)


def experiment(found: Sequence[Outcome], steps: int) -> Part:
    """Claims, numbers and the picture of the first seed."""

    def row(method: Method) -> list[str | float]:
        name, beta = method
        return [
            name,
            f"{beta:g}" if beta else "-",
            *(shown(plots.centre(values(found, field, name, beta))[0]) for field in Measured._fields),
        ]

    columns = [
        "method",
        "beta",
        "mean reward",
        f"coverage (< {NEAR:g})",
        f"far off (> {FAR:g})",
        "NLL of preferred",
    ]
    title = f"E1: points in a plane, exact densities, means of {len(found)} seeds"
    return Part(
        claims=claims(found),
        tables=[Table(title, columns, [row(method) for method in (*JOBS, (PREFERRED, 0.0))])],
        plots=[picture(found[0])],
        settings={
            "E1": {
                "seeds": len(found),
                "updates": steps,
                "learning_rate": RATE,
                "optimizer": "Adam (0.9, 0.99)",
                "batch": GIVEN,
                "given_points": GIVEN,
                "candidates": CANDIDATES,
                "tau": TAU,
                "C": C,
                "similarity": "exp(-d^2 / 8)",
                "betas": [*BETAS, LARGE],
            }
        },
    )


@plots.styled
def picture(outcome: Outcome) -> Plot:
    """Samples of each method beside the centres."""
    shown = (
        (BASE, plots.QUIET),
        (OFFLINE, plots.VERMILION),
        (ONLINE, plots.ORANGE),
        (SOPO, plots.GREEN),
        (SFT, plots.BLUE),
    )
    figure, axes = plots.panels(len(shown), width=2.7, height=3.1)
    for ax, (method, colour) in zip(axes, shown, strict=True):
        x, y = zip(*outcome.samples[method], strict=True)
        ax.plot(x, y, ".", color=colour, markersize=3, alpha=0.5, zorder=3)
        ax.plot(*zip(*CENTRES, strict=True), "+", color=plots.INK, markersize=11, markeredgewidth=2)
        ax.plot(*OFF, "x", color=plots.INK, markersize=8, markeredgewidth=2)
        ax.set_title(method)
        ax.set_xlim(-8, 6)
        ax.set_ylim(-7, 6)
        ax.set_aspect("equal")
    return Plot(
        "sopo_plane",
        f"E1: samples after training at beta {BETAS[0]:g}, first seed. Plus signs: centres of what is preferred; cross: where the losers "
        "are that are given",
        figure,
    )
