"""E2 of `prefopt reproduce lpo`: what LPO, SPO and Diffusion-DPO cost to reach the same exact reward.

All three train the same small latent diffusion model, the judges and Diffusion-DPO on the same comparisons. Costs are
counted with and without the training of the judge, which one run pays and the next does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, everywhere, not_measured
from prefopt.reproduce.lpo.judges import load_pixel, watch_pixel
from prefopt.reproduce.lpo.world import (
    GUIDANCE,
    Cost,
    Meter,
    Run,
    Size,
    assembled,
    fit,
    folder_of,
    sampled_by,
)
from prefopt.reproduce.paired import minus

LPO, SPO, DPO = "LPO", "SPO", "Diffusion-DPO"
SETTINGS: dict[str, dict[str, Any]] = {
    LPO: {"beta": 500.0, "learning_rate": 1e-4, "threshold": [0.1, 0.2]},
    SPO: {"beta": 500.0, "learning_rate": 3e-4, "threshold": 0.05, "first_compared_step": 4},
    DPO: {"beta": 500.0, "learning_rate": 2e-4, "warmup_steps": 10, "ties": "drop", "reference": "live"},
}
"""Chosen on a world that is not among the default seeds (seed 3); the rest is the methods' own defaults."""
GAIN = 0.2
"""Of utility over the pretrained model: the reward that all are to reach."""
GAINS = (0.1, GAIN, 0.3, 0.4)
"""Of the table."""

Runs = Mapping[str, Sequence[Run]]
Judges = Mapping[str, Sequence[Cost]]
Measure = Callable[[Cost], float]


# -- training ------------------------------------------------------------------------------------------------


def train(name: str, seed: int, size: Size, root: Path) -> Run:
    """One method's run in a seed's world; LPO and SPO need their judges to be there."""
    online: dict[str, Any] = {
        "prompts_per_step": size.prompts_a_round,
        "max_steps": size.measured_rounds[-1],
        "guidance_scale": GUIDANCE,
    }
    shared: dict[str, Any] = {"per_device_train_batch_size": size.update, **SETTINGS[name]}
    if "threshold" in shared and size.kept_share is not None:
        shared |= {"threshold": 1 - size.kept_share, "threshold_rule": "quantile"}
    meter = Meter()
    if name == LPO:
        lrm = f"lrm:{folder_of(seed, root) / 'lrm'}"
        course = assembled(seed, size, root, "lpo", judge=lrm, **online, **shared)
        model = course.loop.feed.collector.judge.model
        meter.watch("half U-Net", model.backbone)
        meter.watch("text encoder", model.text.encoders[0])
    elif name == SPO:
        pixel = load_pixel(seed, size, root)
        # the collector is made with the world's exact reward as judge, which the learned one replaces
        course = sampled_by(
            assembled(seed, size, root, "spo", judge="world:picture", **online, **shared), judge=pixel
        )
        watch_pixel(meter, pixel.model, pixel.loaded)
    else:
        steps = size.measured_updates[-1]
        course = assembled(seed, size, root, "diffusion_dpo", max_steps=steps, **shared)
    meter.watch("U-Net", course.setup.policy.model)
    with course.loop.scorer.reference.model() as reference:
        meter.watch("U-Net", reference)
    measured = size.measured_updates if name == DPO else size.measured_rounds
    return fit(seed, size, course, meter, measured)


# -- equal reward --------------------------------------------------------------------------------------------


def utilities(run: Run) -> list[float]:
    """At each point."""
    return [point.rewards["utility"] for point in run.points]


def cost_to(run: Run, gain: float, measure: Measure) -> float:
    """Cost at which a run first has so much more utility than at its start, by linear interpolation; inf for never."""
    values = utilities(run)
    level = values[0] + gain
    for k in range(1, len(values)):
        if values[k] >= level:
            share = (level - values[k - 1]) / (values[k] - values[k - 1])
            before, after = measure(run.points[k - 1].cost), measure(run.points[k].cost)
            return before + share * (after - before)
    return math.inf


def reward_at(run: Run, cost: float, measure: Measure) -> float:
    """Utility after so much cost, by linear interpolation; the start's before it, the end's after."""
    costs, values = [measure(point.cost) for point in run.points], utilities(run)
    for k in range(1, len(costs)):
        if cost < costs[k]:
            share = max(0.0, (cost - costs[k - 1]) / (costs[k] - costs[k - 1]))
            return values[k - 1] + share * (values[k] - values[k - 1])
    return values[-1]


def operations(cost: Cost) -> float:
    """Of all networks."""
    return cost.operations


def seconds(cost: Cost) -> float:
    """Processor time."""
    return cost.seconds


MEASURES: dict[str, Measure] = {"operations": operations, "processor time": seconds}
"""By name, for claims."""
COUNTED = {False: "judge training apart", True: "judge training included"}


def ratio_claim(
    runs: Runs, judges: Judges, rival: str, measured: str, included: bool, gain: float = GAIN
) -> Claim:
    """LPO needs less than a rival for the same gain."""
    measure = MEASURES[measured]
    statement = f"E2: LPO needs less than {rival} to the same reward ({measured}, {COUNTED[included]})"
    source = "GPU hours: 2.5 to 28 times fewer, reward modelling included"
    if not included:
        source = "GPU hours of preference optimization"
    logs, bounds = [], 0
    for seed, (ours, theirs) in enumerate(zip(runs[LPO], runs[rival], strict=True)):
        cost, other = cost_to(ours, gain, measure), cost_to(theirs, gain, measure)
        if math.isinf(cost):
            return not_measured(
                statement, source=source, how=f"LPO did not gain {gain:g} of utility with seed {seed}"
            )
        if math.isinf(other):
            bounds += 1
            other = measure(theirs.points[-1].cost)
        if included:
            cost += measure(judges[LPO][seed])
            other += measure(judges[rival][seed]) if rival in judges else 0.0
        logs.append(math.log2(other / cost))
    how = f"log2 of {rival}'s cost over LPO's, to {gain:g} of utility above the pretrained model"
    if bounds:
        how += (
            f"; {rival} did not get there with {bounds} of {len(logs)} seeds, for which its whole run counts"
        )
    return directional(statement, logs, source=source, how=how, unit="doublings")


def equal_cost_claim(runs: Runs, judges: Judges, rival: str, included: bool) -> Claim:
    """LPO's reward at the largest cost that both runs reached."""
    differences = []
    for seed, (ours, theirs) in enumerate(zip(runs[LPO], runs[rival], strict=True)):
        extra = [
            operations(judges[name][seed]) if included and name in judges else 0.0 for name in (LPO, rival)
        ]
        budget = min(
            operations(run.points[-1].cost) + more for run, more in zip((ours, theirs), extra, strict=True)
        )
        at = [
            reward_at(run, budget - more, operations) for run, more in zip((ours, theirs), extra, strict=True)
        ]
        differences.append(at[0] - at[1])
    return directional(
        f"E2: LPO's reward beats {rival}'s at equal cost (operations, {COUNTED[included]})",
        differences,
        source="main table",
        how=f"utility, LPO - {rival}, at the largest cost that both reached",
        unit="utility",
    )


def claims(runs: Runs, judges: Judges) -> list[Claim]:
    """Of equal reward and of equal cost."""
    return [
        everywhere(
            "E2: all three raise the reward of the pretrained model",
            {
                name: minus([utilities(r)[-1] for r in by], [utilities(r)[0] for r in by])
                for name, by in runs.items()
            },
            source="main table",
            how="utility of pictures of held-out prompts, after - before",
            unit="utility",
        ),
        *(
            ratio_claim(runs, judges, rival, measured, included)
            for rival in (SPO, DPO)
            for included in COUNTED
            for measured in MEASURES
        ),
        *(equal_cost_claim(runs, judges, rival, included) for rival in (SPO, DPO) for included in COUNTED),
        *(
            directional(
                f"E2: LPO ends with a higher reward than {rival}",
                minus([utilities(r)[-1] for r in runs[LPO]], [utilities(r)[-1] for r in runs[rival]]),
                source="main table, each by its own recipe",
                how=f"utility after the whole run, LPO - {rival}, whose run costs more",
                unit="utility",
            )
            for rival in (SPO, DPO)
        ),
    ]


# -- tables and figures --------------------------------------------------------------------------------------


def unit_of(runs: Runs) -> float:
    """Operations of the U-Net on one latent."""
    cost = runs[DPO][0].points[-1].cost
    # a U-Net alone: Diffusion-DPO runs nothing else
    return cost.operations / (cost.rows["U-Net"] + 2 * cost.trained_rows["U-Net"])


def spent(runs: Runs, judges: Judges) -> list[Table]:
    """What whole runs and judges took and gave, means over seeds."""
    unit = unit_of(runs)
    rows: list[list[str | float]] = []

    def row(name: str, costs: Sequence[Cost], *rest: str | float) -> list[str | float]:
        def each(network: str) -> float:
            return fmean([c.rows.get(network, 0) for c in costs])

        return [
            name,
            fmean([c.drawn for c in costs]),
            each("U-Net"),
            fmean([c.trained_rows.get("U-Net", 0) for c in costs]),
            each("half U-Net"),
            each("decoder"),
            fmean([c.operations for c in costs]) / unit,
            fmean([c.seconds for c in costs]),
            *rest,
        ]

    for name, by in runs.items():
        ends = [run.points[-1].rewards for run in by]
        gains = [run.points[0].rewards for run in by]
        rows.append(
            row(
                name,
                [run.points[-1].cost for run in by],
                fmean([run.kept for run in by]),
                fmean([run.updates for run in by]),
                *(
                    fmean([e[k] - s[k] for e, s in zip(ends, gains, strict=True)])
                    for k in ("utility", "match", "aesthetic")
                ),
            )
        )
    rows += [row(f"judge of {name}", costs, "", "", "", "", "") for name, costs in judges.items()]
    columns = [
        *("", "candidates drawn", "U-Net forward", "of them backward too", "half U-Net forward", "decoded"),
        *("all operations (U-Net forwards)", "processor seconds", "pairs kept", "updates"),
        *("gain in utility", "gain in match", "gain in aesthetic"),
    ]
    return [
        Table("E2: whole runs, means over seeds", columns, rows),
        cost_table(runs, judges, unit),
    ]


def cost_table(runs: Runs, judges: Judges, unit: float) -> Table:
    """Cost to several gains, judge apart and included."""
    rows: list[list[str | float]] = []
    for gain in GAINS:
        for name, by in runs.items():
            reached = [not math.isinf(cost_to(run, gain, operations)) for run in by]
            row: list[str | float] = [gain, name, f"{sum(reached)} of {len(by)}"]
            for included in COUNTED:
                for measure, scale in ((operations, unit), (seconds, 1.0)):
                    costs = [
                        cost_to(run, gain, measure)
                        + (measure(judges[name][s]) if included and name in judges else 0.0)
                        for s, run in enumerate(by)
                    ]
                    row.append(fmean(costs) / scale if all(reached) else "not reached by all")
            rows.append(row)
    names = [
        f"{what}, {COUNTED[included]}"
        for included in COUNTED
        for what in ("U-Net forwards", "processor seconds")
    ]
    return Table(
        "E2: cost to a gain in utility, means over seeds",
        ["gain", "method", "seeds that reached it", *names],
        rows,
    )


COLOURS = {LPO: plots.BLUE, SPO: plots.VERMILION, DPO: plots.GREEN}
MARKERS = {LPO: "o", SPO: "s", DPO: "^"}


@plots.styled
def cost_plot(runs: Runs, judges: Judges, found: Sequence[Claim]) -> Plot:
    """Reward against cost, judge apart and included, beside the ratios."""
    unit = unit_of(runs)
    figure, axes = plots.panels(3, width=4.6, height=4.2)
    for ax, included in zip(axes, COUNTED, strict=False):
        for name, by in runs.items():
            paths = []
            for seed, run in enumerate(by):
                extra = operations(judges[name][seed]) if included and name in judges else 0.0
                x = [(operations(p.cost) + extra) / unit / 1000 for p in run.points]
                y = [u - utilities(run)[0] for u in utilities(run)]
                paths.append((x, y))
                ax.plot(x, y, color=COLOURS[name], alpha=0.3, linewidth=1.0)
            x, y = (
                [fmean([path[i][k] for path in paths]) for k in range(len(paths[0][0]))] for i in range(2)
            )
            ax.plot(x, y, color=COLOURS[name], marker=MARKERS[name], label=name, markeredgecolor="white")
        ax.axhline(GAIN, color=plots.QUIET, linestyle=":", linewidth=1.2)
        ax.set_xlim(left=0)
        ax.set_xlabel("operations (thousand U-Net forwards)")
        ax.set_title(COUNTED[included].capitalize())
    axes[0].set_ylabel("gain in exact utility")
    axes[0].legend(loc="lower right")
    shown = [c for c in found if c.unit == "doublings"]
    for k, claim in enumerate(shown):
        colour = COLOURS[SPO] if f"than {SPO}" in claim.statement else COLOURS[DPO]
        low, high = claim.interval
        axes[2].plot([low, high], [k, k], color=colour, linewidth=1.4)
        axes[2].plot(claim.measured, k, "o", color=colour, markersize=7)
    axes[2].axvline(0, color=plots.QUIET, linewidth=1.0)
    labels = [c.statement.removeprefix("E2: LPO needs less than ") for c in shown]
    axes[2].set_yticks(range(len(shown)), [short(label) for label in labels], fontsize=8.5)
    axes[2].invert_yaxis()
    axes[2].set_xlabel("doublings; right of 0: LPO is cheaper")
    axes[2].set_title("Rival's cost over LPO's")
    return Plot(
        "lpo_cost",
        f"E2: gain in exact utility against cost (thin: seeds, thick: means); dotted: the gain of {GAIN:g} at which costs "
        f"are compared on the right, with 95 % intervals over {len(runs[LPO])} seeds",
        figure,
    )


def short(label: str) -> str:
    """A claim's words for an axis.

    >>> short("SPO to the same reward (operations, judge training apart)")
    'SPO, operations, judge apart'
    """
    rival, _, rest = label.partition(" to the same reward (")
    return f"{rival}, {rest.rstrip(')')}".replace("judge training", "judge").replace("processor time", "time")


def experiment(runs: Runs, judges: Judges) -> Part:
    """E2's claims, numbers and figure."""
    found = claims(runs, judges)
    return Part(
        claims=found,
        tables=spent(runs, judges),
        plots=[cost_plot(runs, judges, found)],
        settings={"E2": {"gain": GAIN, **SETTINGS}},
    )
