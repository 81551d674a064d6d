"""E5 of `prefopt reproduce bpo` with a small language model: does SBA win more and stay more diverse than DPO?

With DPO under SBA's clip beside it, since the clip alone caps margins.
"""

from __future__ import annotations

from dataclasses import asdict

from prefopt import objectives
from prefopt.objectives.base import Objective
from prefopt.reproduce import lm, plots
from prefopt.reproduce.bpo.losses import clipped_dpo, sba
from prefopt.reproduce.core import Asked, Claim, Part, Plot, Table, directional
from prefopt.reproduce.paired import mean, minus

BETA = 0.3
LOSSES = ("DPO", "DPO, clipped", "SBA(-0.5)", "SBA(0)", "SBA(1.2)")


def loss_of(name: str) -> Objective:
    """The objective of one of `LOSSES`."""
    if name == "DPO":
        return objectives.get("dpo", beta=BETA)
    return clipped_dpo(BETA) if name == "DPO, clipped" else sba(float(name[4:-1]), BETA)


def one_run(name: str, seed: int, seeds: int, size: lm.Size) -> dict[str, float]:
    """Train one model on clear pairs and measure it."""
    data = [row for row in lm.rows(size, seeds, seed) if not row[3]]
    return asdict(lm.measure(lm.train(loss_of(name), data, size, seed), size, seed))


def language_model(asked: Asked, size: lm.Size) -> Part:
    """E5 on the text world."""
    by_setting = lm.over_seeds(asked, "bpo E5", one_run, [(name,) for name in LOSSES], size)
    found = {name: by_setting[(name,)] for name in LOSSES}
    start = lm.measure(lm.reference(size)[0], size, 0)
    keys = ("wins", "score", "entropy", "distinct", "kl")
    rows: list[list[str | float]] = [["reference", *(asdict(start)[k] for k in keys)]]
    rows += [[name, *(mean(found[name][k]) for k in keys)] for name in LOSSES]
    table = Table(
        "E5: language model, held-out prompts",
        ["loss", "win rate (%)", "score (%)", "entropy (nats a token)", "distinct samples (%)", "KL (nats)"],
        rows,
    )
    return Part(
        claims=claims(found),
        tables=[table],
        plots=[diversity_plot(found, asked.seeds)],
        settings={"E5 language model": {"seeds": asked.seeds, "beta": BETA, **lm.chosen(size)}},
    )


def claims(found: dict[str, dict[str, list[float]]]) -> list[Claim]:
    """More wins, more entropy; against DPO and against DPO with the clip."""

    def more(what: str, name: str, other: str, words: str, unit: str, source: str) -> Claim:
        return directional(
            f"E5: {name} {words} {other} (language model)",
            minus(found[name][what], found[other][what]),
            source=source,
            how=f"{name} - {other} on held-out prompts",
            unit=unit,
        )

    return [
        claim
        for name, other, source in (
            ("SBA(1.2)", "DPO", "Table 2"),
            ("SBA(1.2)", "DPO, clipped", "ablation"),
            ("SBA(-0.5)", "DPO", "Table 2"),
        )
        for claim in (
            more("wins", name, other, "wins more than", "percentage points", source),
            more("entropy", name, other, "keeps more entropy than", "nats a token", source),
        )
    ]


@plots.styled
def diversity_plot(found: dict[str, dict[str, list[float]]], seeds: int) -> Plot:
    """Wins and predictive entropy, both as paired differences from DPO."""
    figure, (ax,) = plots.panels(1, width=6.6, height=4.4)
    ax.axhline(0, color=plots.QUIET, linewidth=1.0)
    ax.axvline(0, color=plots.QUIET, linewidth=1.0)
    for colour, marker, name in zip(plots.SEQUENCE, "sD^v", LOSSES[1:], strict=False):
        (x, dx), (y, dy) = (
            plots.centre(minus(found[name][what], found["DPO"][what])) for what in ("entropy", "wins")
        )
        ax.errorbar(x, y, xerr=dx, yerr=dy, fmt="none", ecolor=colour, elinewidth=1.4, alpha=0.55)
        ax.plot(x, y, marker, color=colour, markersize=9, markeredgecolor="white", label=name)
    ax.annotate(
        "the paper's claim:\nup and to the right of DPO",
        (0.98, 0.97),
        xycoords="axes fraction",
        ha="right",
        va="top",
        color=plots.QUIET,
    )
    ax.set_xlabel("diversity: predictive entropy - DPO's (nats a token)")
    ax.set_ylabel("win rate - DPO's (percentage points)")
    ax.set_title("Wins and diversity beside DPO, small language model")
    figure.legend(loc="outside lower center", ncols=4)
    return Plot(
        "bpo_diversity_lm",
        f"Win rate and predictive entropy on held-out prompts of the text world, beta {BETA:g}, as paired differences "
        f"from DPO; means of {seeds} seeds with 95 % intervals",
        figure,
    )
