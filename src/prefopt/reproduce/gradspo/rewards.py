"""E3 and E4 of `prefopt reproduce gradspo`: reward over the learning rate, and what each part of GradSPO adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from prefopt.reproduce import plots
from prefopt.reproduce.core import (
    Claim,
    Part,
    Plot,
    Table,
    directional,
    everywhere,
    not_measured,
    within,
)
from prefopt.reproduce.gradspo.train import GRADSPO, SPO, Run, Variant, written
from prefopt.reproduce.gradspo.weights import COLOURS, MARKERS, Runs, clipped_overall, sides_clipped
from prefopt.reproduce.gradspo.world import Measured
from prefopt.reproduce.paired import at_matched_kl, mean, minus

RATES = (1e-5, 3e-5, 6e-5, 1e-4, 3e-4)
"""The released code's 6e-5 and around it; the last is beyond the best of either method."""
CURVE, TOO_LARGE = RATES[:-1], RATES[-1]
ABLATED = (1e-5, 3e-5, 1e-4)

OWN_NOISE, PRESENT_SAMPLER, PRESENT_ANCHOR = "own noise", "present sampler", "present anchor"
NO_CLIP, SPO_WEIGHTS, SPO_EMA = "no clip", "SPO's time weight", "SPO, average sampler"
PLAIN_NOISE, PLAIN_ANCHOR = "no clip, own noise", "no clip, present anchor"
ABLATIONS: dict[str, Variant] = {
    OWN_NOISE: replace(GRADSPO, average_noise=False),
    PRESENT_SAMPLER: replace(GRADSPO, sampler="online"),
    PRESENT_ANCHOR: replace(GRADSPO, anchor="online"),
    NO_CLIP: replace(GRADSPO, clip_eps=None),
    SPO_WEIGHTS: replace(GRADSPO, temporal_weight="spo", grad_scale=1.0),
    SPO_EMA: replace(SPO, sampler="ema"),
}
WITHOUT_CLIP: dict[str, Variant] = {
    PLAIN_NOISE: replace(GRADSPO, clip_eps=None, average_noise=False),
    PLAIN_ANCHOR: replace(GRADSPO, clip_eps=None, anchor="online"),
}
VARIANTS: dict[str, Variant] = {"SPO": SPO, "GradSPO": GRADSPO, **ABLATIONS, **WITHOUT_CLIP}
PLAIN_RATE = 3e-5
INERT_TOLERANCE = 1e-3
"""Rewards that agree so well agree to three decimals."""


def rates_of(name: str) -> Sequence[float]:
    """Learning rates at which a variant is run."""
    if name in WITHOUT_CLIP:
        return (PLAIN_RATE,)
    return ABLATED if name in ABLATIONS else RATES


def rewards(by_seed: Sequence[Run]) -> list[float]:
    """One a seed."""
    return [run.measured.reward for run in by_seed]


def magnitudes(by_seed: Sequence[Run]) -> list[float]:
    """log10 of minus the reward: rewards of runs that ran away differ by powers of ten."""
    return [math.log10(-run.measured.reward) for run in by_seed]


def end(run: Run) -> float:
    """Reward after the last round."""
    return run.measured.reward


def peak(run: Run) -> float:
    """Reward after the best round."""
    return run.best


Value = Callable[[Run], float]


def best_rates(by_rate: Mapping[float, Sequence[Run]], value: Value = end) -> list[float]:
    """For each seed the learning rate of the highest mean value of the other seeds: chosen and judged apart."""
    seeds = range(len(next(iter(by_rate.values()))))

    def of_others(rate: float, seed: int) -> float:
        values = [value(run) for run in by_rate[rate]]
        return mean([v for s, v in enumerate(values) if s != seed] or values)

    return [max(by_rate, key=lambda rate, seed=seed: of_others(rate, seed)) for seed in seeds]  # type: ignore[misc]


def at_best(by_rate: Mapping[float, Sequence[Run]], value: Value = end) -> list[Run]:
    """One run a seed, at the learning rate chosen on the others."""
    return [by_rate[rate][seed] for seed, rate in enumerate(best_rates(by_rate, value))]


def reward_claims(runs: Runs, start: Sequence[Measured]) -> list[Claim]:
    """G4 and G5."""
    spo, ours = runs["SPO"], runs["GradSPO"]
    best_spo, best_ours = at_best(spo), at_best(ours)
    equal = "at equally many generated candidates"
    chosen = ", ".join(
        f"{name} {', '.join(f'{written(r)}' for r in sorted(set(best_rates(by))))}"
        for name, by in (("SPO", spo), ("GradSPO", ours))
    )
    return [
        everywhere(
            "E3: both raise the reward of the pretrained model",
            {
                f"{name}, learning rate {written(rate)}": minus(rewards(by[rate]), [m.reward for m in start])
                for name, by in (("SPO", spo), ("GradSPO", ours))
                for rate in CURVE
            },
            source="abstract",
            how="mean reward of 1,024 samples, after - before",
            unit="reward",
        ),
        directional(
            "E3: GradSPO's reward beats SPO's, each at its best learning rate",
            minus(rewards(best_ours), rewards(best_spo)),
            source="abstract: beats the baselines at equal data",
            how=f"GradSPO - SPO {equal}, the learning rate chosen on the other seeds ({chosen})",
            unit="reward",
        ),
        directional(
            "E3: GradSPO's best round beats SPO's, each at its best learning rate",
            minus([*map(peak, at_best(ours, peak))], [*map(peak, at_best(spo, peak))]),
            source="abstract: beats the baselines at equal data",
            how=f"GradSPO - SPO {equal}, as if each were stopped at its best round; the learning rate chosen on the "
            "other seeds",
            unit="reward",
        ),
        *(
            directional(
                f"E3: GradSPO's reward beats SPO's at learning rate {written(rate)}",
                minus(rewards(ours[rate]), rewards(spo[rate])),
                source="abstract: beats the baselines at equal data",
                how=f"GradSPO - SPO {equal}",
                unit="reward",
            )
            for rate in CURVE
        ),
        at_same_drift(runs),
        directional(
            "E3: GradSPO stays closer to the prompt than SPO, each at its best learning rate",
            [a.measured.distance - b.measured.distance for a, b in zip(best_spo, best_ours, strict=True)],
            source="abstract: semantic faithfulness",
            how="mean squared distance to the prompt's mean in 8 numbers, SPO - GradSPO",
        ),
        directional(
            f"E3: GradSPO falls less from its best round than SPO (learning rate {written(CURVE[-1])})",
            [a.fall - b.fall for a, b in zip(spo[CURVE[-1]], ours[CURVE[-1]], strict=True)],
            source="abstract: more stable training",
            how="best reward after any round - reward after the last, SPO - GradSPO",
            unit="reward",
        ),
        directional(
            f"E3: GradSPO ends less far off than SPO (learning rate {written(TOO_LARGE)})",
            minus(magnitudes(spo[TOO_LARGE]), magnitudes(ours[TOO_LARGE])),
            source="abstract: more stable training",
            how="log10 of minus the reward, SPO - GradSPO",
            unit="powers of ten",
        ),
        everywhere(
            f"E3: at learning rate {written(TOO_LARGE)} both run away",
            {
                name: minus(magnitudes(by[TOO_LARGE]), magnitudes(by[CURVE[-1]]))
                for name, by in (("SPO", spo), ("GradSPO", ours))
            },
            source="derived here: outside the clip nothing pulls back",
            how=f"log10 of minus the reward, there - at {written(CURVE[-1])}",
            unit="powers of ten",
        ),
    ]


def at_same_drift(runs: Runs) -> Claim:
    """Reward at equal drift, over the learning rates below the runaway."""
    statement = "E3: GradSPO's reward beats SPO's at the same drift"
    source = "abstract: beats the baselines"

    def points(name: str) -> dict[float, tuple[list[float], list[float]]]:
        return {
            rate: ([run.measured.drift for run in runs[name][rate]], rewards(runs[name][rate]))
            for rate in CURVE
        }

    try:
        differences = at_matched_kl(points("GradSPO"), points("SPO"))
    except ValueError as error:
        return not_measured(statement, source=source, how=str(error))
    how = (
        "mean difference over the KL that both cover at learning rates "
        f"{', '.join(f'{written(r)}' for r in CURVE)}, by linear interpolation"
    )
    return directional(statement, differences, source=source, how=how, unit="reward")


PARTS = (
    ("averaging the noise", "GradSPO", OWN_NOISE),
    ("sampling from averaged weights", "GradSPO", PRESENT_SAMPLER),
    ("the anchor at averaged weights", "GradSPO", PRESENT_ANCHOR),
    ("the clip", "GradSPO", NO_CLIP),
    ("its time weight, in place of SPO's,", "GradSPO", SPO_WEIGHTS),
    ("sampling from averaged weights, in SPO,", SPO_EMA, "SPO"),
)
"""(part, with it, without it)"""


def ablation_claims(runs: Runs) -> list[Claim]:
    """What the parts do: nothing where the clip is idle, and something elsewhere?"""
    low = ABLATED[0]
    result = [
        within(
            f"E4: without a clip, {part} changes nothing in a whole run (learning rate {written(PLAIN_RATE)})",
            minus(rewards(runs[NO_CLIP][PLAIN_RATE]), rewards(runs[without][PLAIN_RATE])),
            INERT_TOLERANCE,
            source="derived here",
            how="reward with it - reward without it",
            unit="reward",
        )
        for part, without in ((PARTS[0][0], PLAIN_NOISE), (PARTS[2][0], PLAIN_ANCHOR))
    ]
    result += [
        within(
            f"E4: with the clip, {part} changes nothing at learning rate {written(low)}",
            minus(rewards(runs[with_it][low]), rewards(runs[without][low])),
            INERT_TOLERANCE,
            source="derived here, as far as the clip is idle",
            how="reward with it - reward without it; no pair has both sides clipped there, but "
            f"{100 * mean([sides_clipped(run) for run in runs[with_it][low]]):.2g} % of the sides are",
            unit="reward",
        )
        for part, with_it, without in (PARTS[0], PARTS[2])
    ]
    for rate in ABLATED[1:]:
        result += [
            directional(
                f"E4: {part} raises the reward (learning rate {written(rate)})",
                minus(rewards(runs[with_it][rate]), rewards(runs[without][rate])),
                source="abstract: simplified loss, noise reduction",
                how="reward with it - reward without it",
                unit="reward",
            )
            for part, with_it, without in PARTS
        ]
    return result


def experiment(runs: Runs, start: Sequence[Measured]) -> Part:
    """Claims, numbers and figures of E3 and E4."""
    rows: list[list[str | float]] = [["pretrained", "", *map(mean, zip(*start, strict=True)), "", "", "", ""]]
    rows += [
        [
            name,
            f"{written(rate)}",
            *map(mean, zip(*(run.measured for run in by), strict=True)),
            mean([run.fall for run in by]),
            mean([100 * sides_clipped(run) for run in by]),
            mean([100 * clipped_overall(run) for run in by]),
            mean([run.updates for run in by]),
        ]
        for name, by_rate in runs.items()
        for rate, by in by_rate.items()
    ]
    columns = [
        "method",
        "learning rate",
        "reward",
        "drift (nats)",
        "distance to the prompt",
        "fall from the best round",
        "sides clipped (%)",
        "both clipped (%)",
        "updates",
    ]
    return Part(
        claims=reward_claims(runs, start) + ablation_claims(runs),
        tables=[Table("E3, E4: means over seeds", columns, rows)],
        plots=[reward_plot(runs, start), ablation_plot(runs)],
    )


@plots.styled
def reward_plot(runs: Runs, start: Sequence[Measured]) -> Plot:
    """Reward against learning rate and against drift."""
    figure, (left, right) = plots.panels(2, width=5.0, height=4.2)
    for name in ("SPO", "GradSPO"):
        by_rate, colour, marker = runs[name], COLOURS[name], MARKERS[name]
        columns = [rewards(by_rate[rate]) for rate in CURVE]
        plots.curve(left, CURVE, columns, label=name, colour=colour, marker=marker)
        drifts = {
            rate: ([run.measured.drift for run in by_rate[rate]], rewards(by_rate[rate])) for rate in CURVE
        }
        plots.frontier(right, drifts, label=name, colour=colour, marker=marker)
    left.set_xscale("log")
    left.set_xticks(CURVE, [written(rate) for rate in CURVE])
    left.set_xticks([], minor=True)
    left.set_xlabel("learning rate")
    left.set_title("Reward by learning rate")
    left.legend(loc="lower left")
    right.set_xlabel("drift: KL of the sampling path (nats)")
    right.set_title("Reward against drift")
    for ax in (left, right):
        ax.set_ylabel("mean reward (best possible: 0)")
    fallen = ", ".join(f"{name} {mean(rewards(runs[name][TOO_LARGE])):.0f}" for name in ("SPO", "GradSPO"))
    return Plot(
        "gradspo_rewards",
        f"E3: reward after equally many candidates; the pretrained model has {mean([m.reward for m in start]):.2f}. Off the "
        f"scale at learning rate {written(TOO_LARGE)}: {fallen}. Means of {len(start)} seeds with 95 % intervals",
        figure,
    )


@plots.styled
def ablation_plot(runs: Runs) -> Plot:
    """Reward with a part minus reward without it, a panel a learning rate."""
    figure, axes = plots.panels(len(ABLATED), width=3.9, height=3.6)
    names = [part.removesuffix(",").replace(", in place of SPO's", "") for part, *_ in PARTS]
    for ax, rate in zip(axes, ABLATED, strict=True):
        differences = [minus(rewards(runs[a][rate]), rewards(runs[b][rate])) for _, a, b in PARTS]
        middle, half = zip(*map(plots.centre, differences), strict=True)
        places = range(len(PARTS))
        ax.axvline(0, color=plots.QUIET, linewidth=1.0)
        ax.errorbar(middle, places, xerr=half, fmt="o", color=plots.BLUE, elinewidth=1.4, markersize=7)
        ax.set_yticks(list(places), names if ax is axes[0] else [""] * len(names))
        ax.invert_yaxis()
        ax.set_title(f"learning rate {written(rate)}")
        ax.set_xlabel("reward with it - without it")
    return Plot(
        "gradspo_ablations",
        "E4: what each part adds to the reward at equally many candidates (right of 0: it helps). "
        f"Means of {len(runs['SPO'][CURVE[0]])} seeds with 95 % intervals",
        figure,
    )
