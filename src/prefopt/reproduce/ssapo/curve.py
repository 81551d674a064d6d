"""S3 and S4 of `prefopt reproduce ssapo`: few labels, wrong labels, and what the radius does to them.

The world is in `world.py`, claims and conditions in `claims.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from prefopt.reproduce import plots
from prefopt.reproduce.core import Part, Plot, Table, Ticker, silent
from prefopt.reproduce.paired import minus
from prefopt.reproduce.ssapo.claims import (
    CLEAN,
    CURVES,
    FLIPS,
    GAP_NAMES,
    GAP_RADII,
    LABEL_COUNTS,
    LABELS,
    MANY,
    METHODS,
    PROBABILITY_RADII,
    RELEASED_NAMES,
    SOME,
    WORTH,
    Found,
    claims,
    label_claims,
)
from prefopt.reproduce.ssapo.world import (
    AGAIN,
    BETA,
    CANDIDATES,
    DOUBTED,
    FEATURES,
    LEVEL,
    ORACLE,
    PIECES,
    SEED_ONLY,
    SELF,
    SMOOTHING,
    SPA_ROUNDS,
    TEMPERATURE,
    Method,
    Size,
    Stage,
    World,
    make_world,
    margin_name,
    released_name,
    run,
)


def learning_curve(seeds: range, size: Size, ticker: Ticker = silent) -> Part:
    """S3 and S4."""
    counts = [n for n in LABEL_COUNTS if n <= size.labels]
    tick = ticker("ssapo S3, S4: few labels", len(FLIPS) * len(METHODS) + (len(counts) - 1) * len(CURVES))
    world = make_world(seeds, size)

    def counted(method: Method, labels: int, flipped: float) -> list[Stage]:
        stages = run(method, world, size, labels, flipped)
        tick()
        return stages

    found: Found = {
        labels: {name: counted(method, LABELS, flipped) for name, method in METHODS.items()}
        for labels, flipped in FLIPS.items()
    }
    curve = {
        n: {name: counted(METHODS[name], n, 0.0) if n != LABELS else found[CLEAN][name] for name in CURVES}
        for n in counts
    }
    result = Part()
    result.claims += claims(found) + label_claims(curve)
    result.tables += [
        Table(
            "S3, S4: after the last round",
            [
                "labels",
                "method",
                "win rate (%)",
                f"at KL {LEVEL:g} (%)",
                "KL (nats)",
                "own labels right, first round (%)",
                "last round (%)",
                "mass moved, last round (%)",
            ],
            [row(labels, name, stages) for labels, by in found.items() for name, stages in by.items()],
        ),
        Table(
            "S4: by number of clean labels",
            ["labels", "method", "win rate (%)", f"at KL {LEVEL:g} (%)"],
            [
                [n, name, fmean(stages[-1].win), fmean(stages[-1].level)]
                for n, by in curve.items()
                for name, stages in by.items()
            ],
        ),
    ]
    result.plots += [radius_plot(found, len(seeds)), rounds_plot(found, size, len(seeds)), labels_plot(curve)]
    result.settings["S3, S4"] = settings(seeds, size, world)
    return result


def row(labels: str, name: str, stages: Sequence[Stage]) -> list[str | float]:
    """A line of the main table; empty where a method labels nothing."""
    last = stages[-1]
    rounds: list[str | float] = ["", "", ""]
    if not math.isnan(last.right[0]):
        rounds = [fmean(stages[1].right), fmean(last.right), fmean(last.moved)]
    return [labels, name, fmean(last.win), fmean(last.level), fmean(last.kl), *rounds]


def settings(seeds: range, size: Size, world: World) -> dict[str, object]:
    """Every number that was chosen."""
    return {
        "seeds": len(seeds),
        "labels": LABELS,
        "flipped": FLIPS,
        "rounds": list(size.prompts),
        "candidates": CANDIDATES,
        "features": FEATURES,
        "test_prompts": world.test.utility_SNK.shape[1],
        "beta": BETA,
        "temperature": TEMPERATURE,
        "optimizer": "Adam, warm-up over a tenth of the steps, cosine",
        "learning_rate": {"labelled pairs": size.seed_rate, "rounds": size.rate},
        "steps_on_labelled_pairs": size.seed_steps,
        "batch": size.batch,
        "epochs_a_round": size.epochs,
        "epsilon": {"shift": GAP_RADII, "dual": 0.3, "released": PROBABILITY_RADII, "unclamped": 0.05},
        "pieces_in_probability": PIECES,
        "window": "[smallest gap - 1, largest + 1], [0, 1] in probability",
        "spa": {"alpha": SMOOTHING, "doubted share": DOUBTED},
        "smallest_effect_of_the_radius": WORTH,
    }


COLOURS = {CLEAN: plots.BLUE, SOME: plots.GREEN, MANY: plots.VERMILION}
MARKERS = {CLEAN: "o", SOME: "D", MANY: "s"}


@plots.styled
def radius_plot(found: Found, seeds: int) -> Plot:
    """Difference from epsilon = 0 by radius."""
    figure, axes = plots.panels(3, width=4.3)
    for ax, what, radii, names, title in (
        (axes[0], "win", GAP_RADII, GAP_NAMES, "SSAPO, wins"),
        (axes[1], "level", GAP_RADII, GAP_NAMES, f"SSAPO, wins at KL {LEVEL:g}"),
        (axes[2], "win", PROBABILITY_RADII, RELEASED_NAMES, "released leader, wins"),
    ):
        for labels, by in found.items():
            columns = [minus(getattr(by[n][-1], what), getattr(by[SELF][-1], what)) for n in names]
            plots.curve(ax, radii, columns, label=labels, colour=COLOURS[labels], marker=MARKERS[labels])
        ax.axhline(0, color=plots.INK, linewidth=1.0)
        ax.set_xscale("log")
        ax.set_title(title)
        ax.set_xlabel("radius ε (probability)" if ax is axes[2] else "radius ε (units of the gap)")
    axes[0].set_ylabel("points more than ε = 0")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return Plot(
        "ssapo_radius",
        f"S3: win rate by radius, less that of epsilon = 0 with the same random numbers. Means of {seeds} seeds with "
        "95 % intervals",
        figure,
    )


@plots.styled
def rounds_plot(found: Found, size: Size, seeds: int) -> Plot:
    """Win rate by number of prompts labelled so far."""
    figure, axes = plots.panels(len(found), width=4.3)
    seen = [0]
    for prompts in size.prompts:
        seen.append(seen[-1] + prompts)
    styles = (
        (SELF, plots.BLUE, "o"),
        (margin_name(0.1), plots.VERMILION, "s"),
        (released_name(0.05), plots.PURPLE, "v"),
        (SPA_ROUNDS, plots.GREEN, "D"),
        (ORACLE, plots.ORANGE, "^"),
        (AGAIN, plots.SKY, "P"),
    )
    for ax, (labels, by) in zip(axes, found.items(), strict=True):
        for name, colour, marker in styles:
            plots.curve(ax, seen, [s.win for s in by[name]], label=name, colour=colour, marker=marker)
        ax.axhline(
            fmean(by[SEED_ONLY][-1].win), color=plots.INK, linestyle="--", linewidth=1.3, label=SEED_ONLY
        )
        ax.set_title(labels)
        ax.set_xlabel("prompts of the rounds so far")
        ax.set_xticks(seen)
    axes[0].set_ylabel("win rate against the reference (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return Plot(
        "ssapo_rounds",
        f"S4: exact win rate under the true reward, {LABELS} labelled pairs. Means of {seeds} seeds with 95 % "
        "intervals over seeds",
        figure,
    )


@plots.styled
def labels_plot(curve: Mapping[int, Mapping[str, list[Stage]]]) -> Plot:
    """Win rate by number of labels."""
    figure, axes = plots.panels(2)
    colours = (plots.INK, plots.BLUE, plots.VERMILION, plots.ORANGE)
    for ax, what, title in ((axes[0], "win", "Wins"), (axes[1], "level", f"Wins at KL {LEVEL:g}")):
        for name, colour, marker in zip(CURVES, colours, ("v", "o", "s", "^"), strict=True):
            columns = [getattr(by[name][-1], what) for by in curve.values()]
            plots.curve(ax, list(curve), columns, label=name, colour=colour, marker=marker)
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(curve), [str(n) for n in curve])
        ax.set_title(title)
        ax.set_xlabel("clean labelled pairs")
    axes[0].set_ylabel("win rate against the reference (%)")
    axes[0].legend()
    return Plot(
        "ssapo_labels",
        "S4: few-label learning curve, as trained and with every policy scaled to the same KL. Means over seeds with "
        "95 % intervals",
        figure,
    )
