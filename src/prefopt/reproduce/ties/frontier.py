"""T1 of `prefopt reproduce ties`: quality against drift in a log-linear world, four methods, five beta.

CP = clear-preference pairs, TP = tied pairs. Shapes: S seeds, E comparisons a seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from prefopt import objectives
from prefopt.objectives.base import Objective
from prefopt.reproduce import loglinear, plots
from prefopt.reproduce.core import (
    Claim,
    Part,
    Plot,
    Table,
    Ticker,
    directional,
    everywhere,
    not_measured,
    silent,
)
from prefopt.reproduce.loglinear import Pairs
from prefopt.reproduce.paired import at_matched_kl, mean, minus
from prefopt.reproduce.ties.worlds import Mined, metric_world

CP, CP_TP, RK, D = "DPO (CP)", "DPO (CP+TP)", "DPO-RK (CP+TP)", "DPO-D (CP+TP)"
METHODS = (CP, CP_TP, RK, D)
BETAS = (0.1, 0.3, 1.0, 2.0, 4.0)
COLOURS = {CP: plots.VERMILION, CP_TP: plots.ORANGE, RK: plots.BLUE, D: plots.GREEN}
MARKERS = {CP: "s", CP_TP: "^", RK: "o", D: "D"}
LEGEND = {
    CP: "DPO, ties dropped (CP)",
    CP_TP: "DPO, ties fed in as wins (CP+TP)",
    RK: "DPO-RK, ties as ties (CP+TP)",
    D: "DPO-D, ties as ties (CP+TP)",
}
SHARES = (0, 25, 50, 75, 100)
ALPHAS = (0.5, 1.0986, 2.0, 3.0, 5.0)

Frontier = dict[str, dict[float, tuple[Sequence[float], Sequence[float]]]]
"""method -> beta -> (KL of each seed, score of each seed)."""


def objective_of(method: str, beta: float) -> Objective:
    """The objective of one of the four methods; both tie models at the paper's default nu."""
    if method == RK:
        return objectives.get("dpo_rk", beta=beta, nu=3.0)
    if method == D:
        return objectives.get("dpo_d", beta=beta, nu=1.0)
    return objectives.get("dpo", beta=beta)


def pairs_of(method: str, clear: Pairs, tied: Pairs) -> Pairs:
    """The comparisons a method trains on; DPO counts ties as wins of the side stored first."""
    return clear if method == CP else clear.cat(tied)


def adam(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The optimiser of T1 and T3."""
    return torch.optim.Adam(parameters, lr=0.02)


def fit(objective: Objective, world: Mined, pairs: Pairs, steps: int) -> Tensor:
    """(S, D) weights after full-batch Adam on `pairs`."""
    return loglinear.fit(objective, world.train, pairs, steps=steps, optimizer=adam)


def frontier_in_log_linear_world(seeds: range, steps: int, ticker: Ticker = silent) -> Part:
    """T1: frontier, equal-beta KL, utility at matched KL, share of ties, width of the tie band."""
    world = metric_world(seeds)
    tick = ticker("ties T1: frontier", len(METHODS) * len(BETAS) + 2 * len(SHARES) + len(ALPHAS))
    points: Frontier = {method: {} for method in METHODS}
    # the scale of utility differs from seed to seed; as a share of the best candidate's, seeds compare
    attainable_S = world.test.utility_SNK.amax(-1).mean(-1)

    def measure(objective: Objective, pairs: Pairs) -> tuple[list[float], list[float]]:
        w_SD = fit(objective, world, pairs, steps)
        tick()
        utility_S = 100 * loglinear.expected_utility(world.test, w_SD) / attainable_S
        return loglinear.kl(world.test, w_SD).tolist(), utility_S.tolist()

    for method in METHODS:
        for beta in BETAS:
            pairs = pairs_of(method, world.clear, world.tied)
            points[method][beta] = measure(objective_of(method, beta), pairs)

    total = world.tied.prompt_SE.shape[1]
    by_share = {
        method: {
            share: measure(
                objective_of(method, 1.0),
                world.clear.cat(world.tied.take(torch.arange(total * share // 100))),
            )[0]
            for share in SHARES
        }
        for method in (RK, D)
    }
    both = world.clear.cat(world.tied)
    by_alpha = {alpha: measure(objectives.get("dpo_rk", beta=1.0, alpha=alpha), both)[0] for alpha in ALPHAS}

    source = "Secs. 3.2-3.4"
    result = Part()
    result.claims += frontier_claims(points, source, "T1")
    result.claims += [
        everywhere(
            f"T1: more ties kept, less drift ({short(method)}, beta 1)",
            {
                f"{a} -> {b} % of the ties": minus(by_share[method][a], by_share[method][b])
                for a, b in pairwise(SHARES)
            },
            source="Table 14",
            how="KL with fewer ties - KL with more, each step of the sweep",
            unit="nats",
        )
        for method in (RK, D)
    ]
    result.claims.append(
        everywhere(
            "T1: a wider tie band (larger nu) regularises less (DPO-RK, beta 1)",
            {f"alpha {a:g} -> {b:g}": minus(by_alpha[b], by_alpha[a]) for a, b in pairwise(ALPHAS)},
            source="Table 11",
            how="KL at larger alpha = log nu - KL at smaller, each step of the sweep",
            unit="nats",
        )
    )
    result.tables += [
        frontier_table("T1: frontier in the log-linear world", points, "utility (%)"),
        Table(
            "T1: KL (nats) by share of ties kept, beta 1",
            ["method", *(f"{s} %" for s in SHARES)],
            [[m, *(mean(by_share[m][s]) for s in SHARES)] for m in (RK, D)],
        ),
        Table(
            "T1: KL (nats) of DPO-RK by alpha = log nu, beta 1",
            [f"{a:g}" for a in ALPHAS],
            [[mean(by_alpha[a]) for a in ALPHAS]],
        ),
    ]
    result.plots += [frontier_plot(points, len(seeds)), sweep_plot(by_share, by_alpha, len(seeds))]
    result.settings["T1"] = {
        "seeds": len(seeds),
        "prompts": 150,
        "candidates": 8,
        "features": 40,
        "test_prompts": 600,
        "metric_noise": 0.5,
        "score": "expected true utility, % of the best candidate's",
        "optimizer": "Adam 0.02, full batch",
        "steps": steps,
        "beta": BETAS,
        "nu": {"dpo_rk": 3.0, "dpo_d": 1.0},
    }
    return result


def frontier_claims(points: Frontier, source: str, label: str) -> list[Claim]:
    """Claims A and B on one frontier."""
    betas = list(points[CP])

    def less_drift(method: str, claim: str) -> Claim:
        return everywhere(
            f"{label}: {short(method)} drifts less than DPO(CP) at every beta ({claim})",
            {f"beta {b:g}": minus(points[CP][b][0], points[method][b][0]) for b in betas},
            source=source,
            how="KL of DPO(CP) - KL at the same beta",
            unit="nats",
        )

    best = {
        m: [max(values) for values in zip(*(p[1] for p in points[m].values()), strict=True)] for m in METHODS
    }
    return [
        less_drift(RK, "claim B"),
        less_drift(D, "claim B"),
        better_at_matched_kl(points, RK, CP, label),
        better_at_matched_kl(points, D, CP, label),
        better_at_matched_kl(points, RK, CP_TP, label),
        better_at_matched_kl(points, D, CP_TP, label),
        less_drift(CP_TP, "claim A"),
        directional(
            f"{label}: ties fed to DPO as wins lower its best quality (claim A)",
            minus(best[CP], best[CP_TP]),
            source=source,
            how="best score over beta of DPO(CP) - best of DPO(CP+TP)",
            unit="points",
        ),
    ]


def better_at_matched_kl(points: Frontier, method: str, other: str, label: str) -> Claim:
    """Claim B: more quality at the same drift."""
    statement = f"{label}: {short(method)} beats {short(other)} at the same KL (claim B)"
    source = "Secs. 3.2-3.4"
    try:
        differences = at_matched_kl(points[method], points[other])
    except ValueError as error:
        return not_measured(statement, source=source, how=str(error))
    how = "mean score difference over the KL range both frontiers cover, by linear interpolation"
    return directional(statement, differences, source=source, how=how, unit="points")


def frontier_table(title: str, points: Frontier, score: str) -> Table:
    """Means over seeds."""
    return Table(
        title,
        ["method", "beta", "KL (nats)", score],
        [[m, f"{b:g}", mean(k), mean(s)] for m, by_beta in points.items() for b, (k, s) in by_beta.items()],
    )


@plots.styled
def frontier_plot(points: Frontier, seeds: int) -> Plot:
    """The picture of the paper: quality against drift."""
    import numpy as np

    figure, (ax,) = plots.panels(1, width=8.2, height=5.2)
    for method in METHODS:
        plots.frontier(
            ax,
            points[method],
            label=LEGEND[method],
            colour=COLOURS[method],
            marker=MARKERS[method],
            betas={CP: -1, RK: 1}.get(method, 0),
        )
    # the vertical distance between the frontiers where DPO's middle beta lies
    lines = {
        m: np.array(sorted((mean(kls), mean(scores)) for kls, scores in points[m].values())) for m in (CP, RK)
    }
    at = lines[CP][len(lines[CP]) // 2, 0]
    low, high = (float(np.interp(at, line[:, 0], line[:, 1])) for line in (lines[CP], lines[RK]))
    ax.annotate(
        "",
        xy=(at, high),
        xytext=(at, low),
        arrowprops={"arrowstyle": "<->", "color": plots.INK, "lw": 1.3, "shrinkA": 2, "shrinkB": 0},
    )
    ax.annotate(
        f"{high - low:+.0f} points at the same drift",
        (at, low + 0.78 * (high - low)),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=9.5,
        color=plots.INK,
    )
    ax.annotate(
        "better",
        xy=(0.025, 0.985),
        xytext=(0.12, 0.885),
        xycoords="axes fraction",
        arrowprops={"arrowstyle": "-|>", "color": plots.QUIET, "lw": 1.6},
        color=plots.QUIET,
        ha="center",
        va="center",
    )
    ax.set_xlabel("drift: KL from the reference (nats a prompt)")
    ax.set_ylabel("quality: share of the attainable utility (%)")
    ax.set_xlim(left=-0.1)
    ax.legend(loc="lower right", labelspacing=0.6)
    ax.set_title("Quality against drift, by what is done with ties")
    return Plot(
        "ties_frontier",
        "Exact expected utility against exact KL to the reference in the log-linear world, five beta a method "
        f"(small beta right). Means of {seeds} seeds with 95 % intervals; CP = clear pairs, TP = tied pairs",
        figure,
    )


@plots.styled
def sweep_plot(
    by_share: Mapping[str, Mapping[int, Sequence[float]]],
    by_alpha: Mapping[float, Sequence[float]],
    seeds: int,
) -> Plot:
    """KL by share of ties, and by width of the tie band."""
    figure, (left, right) = plots.panels(2, width=4.8, height=3.9)
    for method, by in by_share.items():
        kls = list(by.values())
        plots.curve(left, list(by), kls, label=short(method), colour=COLOURS[method], marker=MARKERS[method])
    left.set_xlabel("share of the ties kept (%)")
    left.set_title("KL by share of ties")
    left.legend()
    plots.curve(right, list(by_alpha), list(by_alpha.values()), label="DPO-RK", colour=COLOURS[RK])
    right.set_xlabel("alpha = log nu, half-width of the tie band")
    right.set_title("KL by width of the tie band (DPO-RK)")
    for ax in (left, right):
        ax.set_ylabel("KL from the reference (nats)")
        ax.set_ylim(bottom=0)
    return Plot(
        "ties_sweeps", f"KL at beta 1 in the log-linear world. Means of {seeds} seeds, 95 % intervals", figure
    )


def short(method: str) -> str:
    """A method's name inside a sentence."""
    return method.replace(" (CP+TP)", "") if method in (RK, D) else method.replace(" ", "")
