"""B of `prefopt reproduce symmpo`: what the arms of `captions.py` come to, as claims, table and figures.

Nothing is claimed of CHAIR alone, which falls when less is said: Cover or F1 stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, within
from prefopt.reproduce.paired import mean, minus
from prefopt.reproduce.symmpo.captions import (
    ANCHORED,
    ARMS,
    BOTH_ROWS,
    DPO,
    GAMMAS,
    MDPO,
    NO_ANCHOR,
    NO_PAIR,
    SHARED,
    START,
    SVCO_ANCHORED,
    SWEEP,
    SYMMPO,
    Trained,
    percent,
    swept,
)

Found = Mapping[str, Sequence[Trained]]
"""Arm, or the start -> one a seed; arms of the sweep may have fewer."""

PILOT = "pass condition of a pilot in a world alike"
ABLATIONS = "ablations: MMHal 2.89, 2.53 without pair, 2.39 without anchor"
SILENCE, LOST = 10.0, 30.0
"""Nats that DPO's right captions lose at least, and points of Cover."""
KEPT, GAINED = 4.0, 0.8
"""Points of Cover that SymMPO may lose against the start, and of F1 that it gains at least."""
PAIRS_SHARE = 1.5
"""Points of swap accuracy that the pair term is worth at least."""
ANCHORS_NATS, ANCHORS_COVER = 1.5, 6.0
"""What the anchors are worth at least: nats of right captions, points of Cover."""

COLUMNS: dict[str, Callable[[Trained], float]] = {
    "CHAIRi": lambda run: percent(run, "chair_i"),
    "CHAIRs": lambda run: percent(run, "chair_s"),
    "Cover": lambda run: percent(run, "cover"),
    "F1": lambda run: percent(run, "f1"),
    "CoverPrior": lambda run: percent(run, "cover_prior"),
    "Exact": lambda run: percent(run, "exact"),
    "mentions": lambda run: run.measured.captions.mentions,
    "SwapAcc": lambda run: 100 * run.measured.swap_accuracy,
    "sensitivity (nats)": lambda run: run.measured.sensitivity,
    "gap of margins (nats)": lambda run: run.measured.gap,
    "drift (nats)": lambda run: run.measured.drift,
}
"""Measures as tables name them, shares in percent."""


def values(found: Found, arm: str, measure: str) -> list[float]:
    """One a seed."""
    return [COLUMNS[measure](run) for run in found[arm]]


def claims(found: Found) -> list[Claim]:
    """What DPO does, what SymMPO does, what its parts are worth, and what is left against fair rivals."""

    def of(arm: str, measure: str) -> list[float]:
        return values(found, arm, measure)

    def above(
        statement: str, over: list[float], under: list[float], how: str, source: str, unit: str = "points",
        least: float = 0.0,
    ) -> Claim:  # fmt: skip
        by = f", minus {least:g}" if least > 0 else f", plus {-least:g}" if least < 0 else ""
        return directional(
            f"B: {statement}", [d - least for d in minus(over, under)], source=source, how=how + by, unit=unit
        )

    def f1(statement: str, over: str, under: str, source: str, least: float = 0.0) -> Claim:
        return above(
            statement, of(over, "F1"), of(under, "F1"), f"F1 of test captions, {over} - {under}", source, least=least
        )  # fmt: skip

    lead, fair = (minus(of(SYMMPO, "F1"), of(arm, "F1")) for arm in (MDPO, BOTH_ROWS))
    table = "main table: MMHal 2.44 (DPO), 2.71 (mDPO), 2.89 (SymMPO), 7B"
    return [
        above(
            f"DPO makes right captions less likely, by more than {SILENCE:g} nats", of(START, "drift (nats)"),
            of(DPO, "drift (nats)"), "change of log pi(y_w | m) on test pictures, sign turned", PILOT, "nats", SILENCE,
        ),
        above(
            f"DPO falls silent: it names fewer objects, by more than {LOST:g} points of Cover", of(START, "Cover"),
            of(DPO, "Cover"), f"Cover, {START} - {DPO}", PILOT, least=LOST,
        ),
        above(
            "and so has fewer captions with hallucinations than SymMPO", of(SYMMPO, "CHAIRs"), of(DPO, "CHAIRs"),
            f"CHAIRs, {SYMMPO} - {DPO}; read with the claim before", "Object-HalBench: DPO ahead of SymMPO",
        ),
        above(
            "SymMPO halves the hallucinated mentions", [x / 2 for x in of(START, "CHAIRi")], of(SYMMPO, "CHAIRi"),
            f"CHAIRi, half of {START}'s - {SYMMPO}; read with the next claim", PILOT,
        ),
        above(
            f"and still names what is there, within {KEPT:g} points of Cover", of(SYMMPO, "Cover"), of(START, "Cover"),
            f"Cover, {SYMMPO} - {START}", PILOT, least=-KEPT,
        ),
        f1(f"SymMPO gains at least {GAINED:g} points of F1 over the start", SYMMPO, START, PILOT, GAINED),
        f1("SymMPO beats DPO", SYMMPO, DPO, table),
        f1("SymMPO beats DPO with an anchor", SYMMPO, ANCHORED, "pilot"),
        f1("SymMPO beats mDPO", SYMMPO, MDPO, table),
        within(
            "B: and is behind it with no seed", [max(0.0, -d) for d in lead], 0.0, source=PILOT,
            how=f"F1 of test captions, what {SYMMPO} lacks to {MDPO}", unit="points",
        ),
        f1("SymMPO beats mDPO that is given both rows, too", SYMMPO, BOTH_ROWS, "fair control; pilot: +0.4"),
        above(
            "less than half of the lead over mDPO is left against mDPO on both rows", [d / 2 for d in lead], fair,
            f"F1, half of ({SYMMPO} - {MDPO}) - ({SYMMPO} - {BOTH_ROWS})",
            "re-run (arXiv 2605.31312): no uniform lead over mDPO",
        ),
        f1(
            "SymMPO beats the same log-ratios paired the other way, one answer under two images (S-VCO)", SYMMPO, SVCO_ANCHORED,
            "the critique of image pairs; pilot: +0.3",
        ),
        above(
            f"without the pair term answers go less by the picture, by at least {PAIRS_SHARE:g} points",
            of(SYMMPO, "SwapAcc"), of(NO_PAIR, "SwapAcc"), f"SwapAcc, {SYMMPO} - {NO_PAIR}", PILOT, least=PAIRS_SHARE,
        ),
        f1("without the pair term F1 is lower", SYMMPO, NO_PAIR, ABLATIONS),
        above(
            f"without anchors right captions become less likely, by more than {ANCHORS_NATS:g} nats",
            of(START, "drift (nats)"), of(NO_ANCHOR, "drift (nats)"),
            "change of log pi(y_w | m) on test pictures, sign turned", PILOT, "nats", ANCHORS_NATS,
        ),
        above(
            f"without anchors fewer objects are named, by more than {ANCHORS_COVER:g} points of Cover",
            of(SYMMPO, "Cover"), of(NO_ANCHOR, "Cover"), f"Cover, {SYMMPO} - {NO_ANCHOR}", PILOT, least=ANCHORS_COVER,
        ),
        f1("without anchors F1 is lower", SYMMPO, NO_ANCHOR, ABLATIONS),
    ]  # fmt: skip


def sweep_claim(found: Found) -> Claim:
    """The larger gamma, the closer the two margins, at every step of the sweep and with each seed that has it."""
    by_gamma = [values(found, swept(gamma), "gap of margins (nats)") for gamma in GAMMAS]
    rises = [max(b - a for a, b in pairwise(seed)) for seed in zip(*by_gamma, strict=True)]
    return within(
        "B: the larger gamma, the closer the two margins: no step of the sweep takes them apart",
        [max(0.0, rise) for rise in rises],
        0.0,
        source="definition of the margin term; pilot",
        how="mean |m_1 - m_2| on test pictures, its largest rise from one gamma to the next",
        unit="nats",
    )


def experiment(found: Found) -> Part:
    """Claims, numbers and figures."""
    seeds, swept_seeds = len(found[START]), len(found[swept(GAMMAS[0])])

    def table(title: str, arms: Sequence[str]) -> Table:
        def told(arm: str, measure: str) -> str:
            middle, half = plots.centre(values(found, arm, measure))
            return f"{middle:.1f} +- {half:.1f}" if half else f"{middle:.1f}"

        rows: list[list[str | float]] = [
            [arm, *(told(arm, measure) for measure in COLUMNS), mean([run.seconds for run in found[arm]])]
            for arm in arms
        ]
        return Table(title, ["arm", *COLUMNS, "processor seconds"], rows)

    return Part(
        claims=[*claims(found), sweep_claim(found)],
        tables=[
            table(f"B: test captions, means of {seeds} seeds with 95 % intervals", [START, *ARMS]),
            table(f"B: by the weight of the margin term, seeds: {swept_seeds}", list(SWEEP)),
        ],
        plots=[plane(found), by_gamma(found)],
        settings={
            "B": {
                "all": SHARED,
                "arms": {name: asdict(arm) for name, arm in (ARMS | SWEEP).items()},
                "seeds": seeds,
                "seeds of the sweep": swept_seeds,
            }
        },
        notes=[
            "B: a world of coloured shapes and a model of 0.2 million parameters, whose prior is planted and whose captions have no "
            "style. Each seed has its own world; the models are made once, then cached, and not in the seconds",
            "B: of a model that names nothing CHAIRi and F1 are counted as 0",
        ],
    )


@plots.styled
def plane(found: Found) -> Plot:
    """Hallucination against cover, better is up and to the left; and how far SymMPO is ahead, seed by seed, of all but DPO."""
    figure, (whole, ahead) = plots.panels(2, width=5.8, height=4.6)
    colours = [plots.INK, plots.QUIET, plots.ORANGE, plots.SKY, plots.BLUE, plots.PURPLE, plots.VERMILION]
    colours += [plots.GREEN, plots.GREEN]
    near = [name for name in (START, *ARMS) if name not in (SYMMPO, DPO)]
    for (name, colour), marker in zip(
        zip((START, *ARMS), colours, strict=True), ["*", "X", "v", "o", "D", "^", "s", "P", "d"], strict=True
    ):
        look: dict[str, Any] = {
            "marker": marker,
            "color": colour,
            "markeredgecolor": "white",
            "linestyle": "none",
        }
        size = 14 if name == START else 10
        x, y = (mean(values(found, name, measure)) for measure in ("CHAIRi", "Cover"))
        whole.plot(x, y, label=name, markersize=size, **look)
        if name not in near:
            continue
        place = len(near) - near.index(name)
        lead = minus(values(found, SYMMPO, "F1"), values(found, name, "F1"))
        middle, half = plots.centre(lead)
        ahead.errorbar(middle, place, xerr=half, fmt="none", ecolor=colour, elinewidth=1.4, alpha=0.6)
        ahead.plot(lead, [place] * len(lead), "|", color=colour, markersize=9)
        ahead.plot(middle, place, markersize=size, **look)
    whole.set_xlabel("hallucinated mentions, CHAIRi (%)")
    whole.set_ylabel("objects named, Cover (%)")
    whole.set_title("Who says less hallucinates less")
    whole.legend(loc="center right")
    ahead.axvline(0, color=plots.QUIET, linewidth=1)
    ahead.set_yticks(range(len(near), 0, -1), near)
    ahead.set_xlabel("F1 of SymMPO - F1 of the other (points)")
    ahead.set_title("The lead of SymMPO")
    return Plot(
        "symmpo_captions",
        "B: test captions, greedy. Left: objects named against mentions that are hallucinated, up and to the left is better, means of "
        f"{len(found[START])} seeds. Right: differences of F1 of the same seed (strokes), their means and 95 % intervals",
        figure,
    )


@plots.styled
def by_gamma(found: Found) -> Plot:
    """What the margin term does, by its weight."""
    figure, axes = plots.panels(3, width=4.2, height=3.8)
    lines = (("gap of margins (nats)",), ("CHAIRi",), ("Cover", "F1"))
    for ax, measures in zip(axes, lines, strict=True):
        for measure, colour in zip(measures, (plots.VERMILION, plots.BLUE), strict=False):
            plots.curve(
                ax,
                range(len(GAMMAS)),
                [values(found, swept(gamma), measure) for gamma in GAMMAS],
                label=measure,
                colour=colour,
            )
        ax.set_xticks(range(len(GAMMAS)), [f"{gamma:g}" for gamma in GAMMAS])
        ax.set_xlabel("weight of the margin term, gamma")
        ax.set_title(" and ".join(measures).replace(" (nats)", ""))
    axes[0].set_ylabel("mean |m1 - m2|, nats")
    axes[1].set_ylabel("%")
    axes[2].set_ylabel("%")
    axes[2].legend()
    return Plot(
        "symmpo_gamma",
        f"B: the weight of SymMPO's margin term; test captions, seeds: {len(found[swept(GAMMAS[0])])}",
        figure,
    )
