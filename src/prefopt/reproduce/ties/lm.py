"""T4 of `prefopt reproduce ties`: frontier, margins and three-way accuracy with a small language model.

E comparisons.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prefopt import objectives
from prefopt.objectives.ties import TieModel
from prefopt.reproduce import lm, plots
from prefopt.reproduce.core import Asked, Claim, Part, Plot, Table, directional
from prefopt.reproduce.paired import mean, minus
from prefopt.reproduce.ties.frontier import (
    COLOURS,
    CP,
    CP_TP,
    LEGEND,
    MARKERS,
    METHODS,
    RK,
    D,
    Frontier,
    better_at_matched_kl,
    objective_of,
    short,
)

# the first is shared, so that methods compare at equal beta; the second makes the frontiers cover the same KL, since
# the tie models drift less at equal beta
BETAS = {CP: (1.0, 3.0), CP_TP: (1.0, 3.0), RK: (1.0, 0.3), D: (1.0, 2.0)}
BETA = 1.0


def one_run(method: str, beta: float, seed: int, seeds: int, size: lm.Size) -> dict[str, float]:
    """Train one model; frontier point, held-out margins and accuracies."""
    data = lm.rows(size, seeds, seed)
    if method == CP:
        data = [row for row in data if not row[3]]
    model = lm.train(objective_of(method, beta), data, size, seed)
    found = lm.measure(model, size, seed)
    held_out = lm.rows(size, seeds, None)
    _, tokenizer = lm.reference(size)
    policy, start = (lm.logp_of_rows(m, tokenizer, held_out) for m in (model, lm.reference(size)[0]))
    d_E = beta * ((policy[0] - start[0]) - (policy[1] - start[1]))
    tie_E = torch.tensor([row[3] for row in held_out])
    return {
        "kl": found.kl,
        "score": found.score,
        "clear_mean": float(d_E[~tie_E].mean()),
        "clear_std": float(d_E[~tie_E].std()),
        "tie_mean": float(d_E[tie_E].mean()),
        "tie_std": float(d_E[tie_E].std()),
        "rk_rule": accuracy(objectives.get("dpo_rk", beta=beta), d_E, tie_E),
        "d_rule": accuracy(objectives.get("dpo_d", beta=beta), d_E, tie_E),
    }


def accuracy(model: TieModel, d_E: Tensor, tie_E: Tensor) -> float:
    """Percent of held-out pairs whose likeliest outcome is the gold one: win of the first side, or tie."""
    return 100 * float((model.classify(d_E) == torch.where(tie_E, 2, 0)).float().mean())


def language_model(asked: Asked, size: lm.Size) -> Part:
    """T4: claims 2.1 (frontier) and App. C (margins, classification) on the text world."""
    seeds = asked.seeds
    by_setting = lm.over_seeds(asked, "ties T4", one_run, [(m, b) for m in METHODS for b in BETAS[m]], size)
    found = {m: {b: by_setting[m, b] for b in BETAS[m]} for m in METHODS}
    start = [lm.measure(lm.reference(size)[0], size, seed).score for seed in range(seeds)]
    points: Frontier = {m: {b: (found[m][b]["kl"], found[m][b]["score"]) for b in BETAS[m]} for m in METHODS}
    result = Part(claims=claims(found, points))
    names = ["kl", "score", "clear_mean", "clear_std", "tie_mean", "tie_std", "rk_rule", "d_rule"]
    result.tables.append(
        Table(
            "T4: language model, held-out measures (d = reward margin)",
            [
                "method",
                "beta",
                "KL (nats)",
                "score (%)",
                "d on CP",
                "std",
                "d on TP",
                "std",
                "accuracy, RK rule (%)",
                "accuracy, Davidson rule (%)",
            ],
            [[m, f"{b:g}", *(mean(found[m][b][n]) for n in names)] for m in METHODS for b in BETAS[m]],
        )
    )
    result.plots.append(frontier_plot(points, mean(start), seeds))
    result.settings["T4"] = {"seeds": seeds, "beta": BETAS, **lm.chosen(size)}
    return result


def claims(found: dict[str, dict[float, dict[str, list[float]]]], points: Frontier) -> list[Claim]:
    """T4's statements."""
    beta = BETA

    def at(method: str, name: str) -> list[float]:
        return found[method][beta][name]

    best = {
        m: [max(pair) for pair in zip(*(found[m][b]["score"] for b in BETAS[m]), strict=True)]
        for m in METHODS
    }

    return [
        *(
            directional(
                f"T4: {short(m)} drifts less than DPO(CP) at beta {beta:g}",
                minus(at(CP, "kl"), at(m, "kl")),
                source="Tables 7-9",
                how="sampled sequence KL of DPO(CP) - KL at the same beta",
                unit="nats",
            )
            for m in (RK, D, CP_TP)
        ),
        *(better_at_matched_kl(points, m, other, "T4") for m in (RK, D) for other in (CP, CP_TP)),
        directional(
            "T4: ties fed to DPO as wins lower its best quality (claim A)",
            minus(best[CP], best[CP_TP]),
            source="Secs. 3.2-3.4",
            how="best score over beta of DPO(CP) - best of DPO(CP+TP)",
            unit="points",
        ),
        *(
            directional(
                f"T4: {short(m)} keeps the margins of held-out ties {words} DPO(CP)",
                minus([factor * x for x in at(CP, "tie_std")], at(m, "tie_std")),
                source="App. C",
                how=f"{name} of DPO(CP)'s - {short(m)}'s std of d on held-out ties, beta {beta:g}",
            )
            for m in (RK, D)
            for factor, words, name in (
                (1.0, "closer to 0 than", "1.0"),
                (0.5, "within half the spread of", "0.5"),
            )
        ),
        *(
            directional(
                f"T4: {short(m)} tells wins, losses and ties apart better than {short(other)}",
                minus(at(m, rule), at(other, rule)),
                source="App. C",
                how=f"three-way accuracy on held-out pairs by {name}'s rule, beta {beta:g}",
                unit="percentage points",
            )
            for m, rule, name in ((RK, "rk_rule", "Rao-Kupper"), (D, "d_rule", "Davidson"))
            for other in (CP, CP_TP)
        ),
    ]


@plots.styled
def frontier_plot(points: Frontier, start: float, seeds: int) -> Plot:
    """Sampled score against sampled KL."""
    figure, (ax,) = plots.panels(1, width=7.2, height=4.6)
    for m in METHODS:
        plots.frontier(ax, points[m], label=LEGEND[m], colour=COLOURS[m], marker=MARKERS[m], betas=-1)
    ax.set_xlabel("drift: KL from the reference (nats a completion)")
    ax.set_ylabel("quality: exact score of samples (%)")
    ax.set_title("Quality against drift, small language model")
    figure.legend(loc="outside lower center", ncols=2)
    return Plot(
        "ties_frontier_lm",
        f"Score against KL on held-out prompts of the text world; the reference scores {start:.0f} % at KL 0. Means of "
        f"{seeds} seeds with 95 % intervals",
        figure,
    )
