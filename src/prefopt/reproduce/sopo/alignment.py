"""What the arms of `motions.py` come to: E2, E3, E6 and E7 as claims, tables and a figure. E4 and E5 are in `sweeps.py`.

Differences of R-precision and of shares are in points, those of MM-Dist and FID in the evaluator's units; all are signed so that above 0
agrees with the claim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, not_measured, within
from prefopt.reproduce.paired import minus
from prefopt.reproduce.sopo.motions import (
    BASE,
    DSOPO,
    METHODS,
    NAIVE,
    NO_VETO,
    OFFLINE,
    OFFLINE_DATA,
    ONLINE,
    REUSE,
    REUSED,
    SFT,
    SFT_LONGER,
    SOPO,
    USOPO,
    Start,
    Trained,
)
from prefopt.worlds.motion.measures import Measures

Found = Mapping[str, Sequence[Trained]]
"""Arm -> one a seed."""

CONTROL = "no claim: the control that the paper has not"
COST = "Sec. 4.3 and Tab. 1: sampling is the cost"
TOLD = 0.9
"""Share of captions with sides exchanged that the reward must tell from right ones, or what is said of sides is void."""
VETOED = 0.4
"""Share of losers that are vetoed at least, where the veto is said to matter."""
KEPT_GAIN = 2 / 3
"""Of SoPo's gain, what reused candidates must keep."""
MOSTLY = 0.5

READ: dict[str, tuple[Callable[[Measures], float], str, float]] = {
    "R@1": (lambda m: 100 * m.r_precision[0], "points", 1.0),
    "R@2": (lambda m: 100 * m.r_precision[1], "points", 1.0),
    "R@3": (lambda m: 100 * m.r_precision[2], "points", 1.0),
    "MM-Dist": (lambda m: m.mm_dist, "", -1.0),
    "FID": (lambda m: m.fid, "", -1.0),
    "pass": (lambda m: 100 * m.passed, "points", 1.0),
    "attr": (lambda m: 100 * m.attr, "points", 1.0),
    "reward": (lambda m: m.reward, "", 1.0),
    "right way": (lambda m: 100 * m.right_way, "points", 1.0),
    "side": (lambda m: 100 * m.words["side"], "points", 1.0),
    "direction": (lambda m: 100 * m.words["direction"], "points", 1.0),
}
"""Measure -> how it is read, its unit, and 1 where more is better, -1 where less is."""


class Runs:
    """All that was measured, by arm.

    Args:
        starts: the base, one a seed.
        found: every arm.
    """

    def __init__(self, starts: Sequence[Start], found: Found) -> None:
        self.starts, self.found = starts, found

    def values(self, measure: str, arm: str) -> list[float]:
        """One a seed."""
        read = READ[measure][0]
        return [read(run.measures) for run in (self.starts if arm == BASE else self.found[arm])]

    def better(self, measure: str, over: str, under: str) -> list[float]:
        """By how much one arm is better than another, one a seed."""
        sign = READ[measure][2]
        return [sign * d for d in minus(self.values(measure, over), self.values(measure, under))]

    def claim(self, statement: str, measure: str, over: str, under: str, source: str) -> Claim:
        """That one arm is better than another."""
        how = f"{measure}, {over} - {under}" if READ[measure][2] > 0 else f"{measure}, {under} - {over}"
        return directional(
            statement, self.better(measure, over, under), source=source, how=how, unit=READ[measure][1]
        )

    def mean_row(self, arm: str, measures: Sequence[str]) -> list[str | float]:
        """Arm, and means over seeds with intervals."""
        return [arm, *(told(self.values(measure, arm), READ[measure][1]) for measure in measures)]


def told(numbers: Sequence[float], unit: str = "") -> str:
    """Mean with half its interval.

    >>> told([1.0, 1.0])
    '1.000'
    """
    digits = 1 if unit == "points" else 3
    middle, half = plots.centre(numbers)
    return f"{middle:.{digits}f} +- {half:.{digits}f}" if half else f"{middle:.{digits}f}"


# -- claims --------------------------------------------------------------------------------------------------


def of_methods(runs: Runs) -> list[Claim]:
    """E2: SoPo beside what it is compared with, and beside the control."""
    table = {BASE: "Tab. 1", OFFLINE: "Tab. 5", ONLINE: "Tab. 5", NAIVE: "Tab. 5"}
    return [
        *(
            runs.claim(f"E2: SoPo is better than {'the base' if other == BASE else other} in {measure}", measure, SOPO, other, source)
            for measure in ("R@1", "MM-Dist")
            for other, source in table.items()
        ),
        runs.claim("E2: SoPo improves FID over the base", "FID", SOPO, BASE, "Tab. 1"),
        runs.claim("E2: more of SoPo's motions do all that their captions say", "pass", SOPO, BASE, "Tab. 1, by exact rules"),
        runs.claim("E2: offline DPO is worse than the base", "R@1", BASE, OFFLINE, "Tab. 5"),
        runs.claim("E2: online DPO is better than the base", "R@1", ONLINE, BASE, "Tab. 5"),
        runs.claim("E2: the naive combination is better than online DPO", "R@1", NAIVE, ONLINE, "Tab. 5"),
        runs.claim("E2: SoPo is better than its control in R@1", "R@1", SOPO, SFT, CONTROL),
        runs.claim("E2: SoPo is better than its control in MM-Dist", "MM-Dist", SOPO, SFT, CONTROL),
        runs.claim("E2: SoPo is better than its control in FID", "FID", SOPO, SFT, CONTROL),
        runs.claim("E2: more of SoPo's motions do all that is said than of its control's", "pass", SOPO, SFT, CONTROL),
        runs.claim("E2: SoPo is better than a longer, still cheaper control in MM-Dist", "MM-Dist", SOPO, SFT_LONGER, CONTROL),
        runs.claim("E2: SoPo is better than a longer, still cheaper control in FID", "FID", SOPO, SFT_LONGER, CONTROL),
    ]  # fmt: skip


def of_parts(runs: Runs) -> list[Claim]:
    """E3: what the veto and the weight are worth."""
    vetoed = [1 - run.logs["sopo/kept"] - VETOED for run in runs.found[SOPO]]
    return [
        directional(
            f"E3: the veto is active, on {VETOED:.0%} of the examples at least", vetoed,
            source="Sec. 4.2", how=f"share of losers vetoed in {SOPO} - {VETOED:g}", unit="share",
        ),
        runs.claim("E3: the veto helps: USoPo is better than DSoPo in R@1", "R@1", USOPO, DSOPO, "Tab. 4"),
        runs.claim("E3: USoPo is better than DSoPo in MM-Dist", "MM-Dist", USOPO, DSOPO, "Tab. 4"),
        runs.claim("E3: SoPo is better than DSoPo in R@1", "R@1", SOPO, DSOPO, "Tab. 4"),
        runs.claim("E3: SoPo is better than DSoPo in MM-Dist", "MM-Dist", SOPO, DSOPO, "Tab. 4"),
        runs.claim("E3: the weight helps where there is a veto, in R@1", "R@1", SOPO, USOPO, "Tab. 4"),
        runs.claim("E3: the weight helps where there is a veto, in FID", "FID", SOPO, USOPO, "Tab. 4"),
        runs.claim("E3: the weight helps where there is no veto, in R@1", "R@1", NO_VETO, DSOPO, "Tab. 4"),
    ]  # fmt: skip


def of_sides(runs: Runs) -> list[Claim]:
    """E6: left and right; void where the reward does not tell them apart."""
    wrong = [1 - start.reward.swapped for start in runs.starts]
    gate = within(
        f"E6: the reward tells captions from those with sides exchanged, {TOLD:.0%} at least", wrong, 1 - TOLD,
        source="App. A.3", how="share of true motions that the reward gives to the exchanged caption", unit="share",
    )  # fmt: skip
    asked = [
        ("E6: SoPo raises the share of right arms", "side", BASE, "App. A.3"),
        ("E6: SoPo raises the share of right directions", "direction", BASE, "App. A.3"),
        ("E6: the evaluator, too, finds more motions nearer to their captions than to exchanged ones", "right way", BASE, "App. A.3"),
        ("E6: SoPo raises the share of right arms more than its control", "side", SFT, CONTROL),
        ("E6: SoPo raises the share of right directions more than its control", "direction", SFT, CONTROL),
    ]  # fmt: skip
    if max(wrong) > 1 - TOLD:
        void = f"void: the reward is right on {1 - max(wrong):.0%} of the captions with sides exchanged"
        return [
            gate,
            *(not_measured(statement, source=source, how=void) for statement, _, _, source in asked),
        ]
    return [
        gate,
        *(runs.claim(statement, measure, SOPO, other, source) for statement, measure, other, source in asked),
    ]


def of_cost(runs: Runs) -> list[Claim]:
    """E7: where the time goes, and what reusing candidates saves and costs."""
    sopo, reused = runs.found[SOPO], runs.found[REUSED]
    gain = runs.better("MM-Dist", SOPO, BASE)
    kept = runs.better("MM-Dist", REUSED, BASE)
    return [
        directional(
            "E7: most of the time goes into drawing candidates", [r.drawing / r.seconds - MOSTLY for r in sopo],
            source=COST, how=f"share of processor time for drawing and scoring in {SOPO} - {MOSTLY:g}", unit="share",
        ),
        directional(
            f"E7: candidates used {REUSE} times make a run twice as cheap",
            [s.seconds / 2 - r.seconds for s, r in zip(sopo, reused, strict=True)],
            source="no claim: an option of ours", how=f"processor time, half of {SOPO} - {REUSED}", unit="s",
        ),
        directional(
            f"E7: candidates used {REUSE} times keep {KEPT_GAIN:.0%} of the gain", [k - KEPT_GAIN * g for k, g in zip(kept, gain, strict=True)],
            source="no claim: an option of ours", how=f"fall of MM-Dist, {REUSED} - {KEPT_GAIN:.2g} times that of {SOPO}",
        ),
        directional(
            "E7: the control is at least four times as cheap",
            [s.seconds / 4 - c.seconds for s, c in zip(sopo, runs.found[SFT], strict=True)],
            source=CONTROL, how=f"processor time, a quarter of {SOPO} - {SFT}", unit="s",
        ),
    ]  # fmt: skip


# -- what is shown -------------------------------------------------------------------------------------------

ORDER = (BASE, SFT, SFT_LONGER, OFFLINE, OFFLINE_DATA, ONLINE, NAIVE, DSOPO, NO_VETO, USOPO, SOPO)
"""Rows of tables."""
MAIN = ("R@1", "R@2", "R@3", "MM-Dist", "FID", "pass", "attr", "reward")
SIDES = ("side", "direction", "right way")


def experiment(runs: Runs) -> Part:
    """Claims of E2, E3, E6 and E7, numbers and a figure."""
    seeds = len(runs.starts)
    costs: list[Sequence[str | float]] = []
    for arm in (*ORDER[1:], REUSED):
        all_ = runs.found[arm]
        costs.append([
            arm, told([r.seconds for r in all_], "points"), told([r.drawing for r in all_], "points"),
            told([100 * r.drawing / r.seconds for r in all_], "points"),
            told(runs.values("MM-Dist", arm)),
        ])  # fmt: skip
    accuracy = runs.starts[0].reward
    return Part(
        claims=[*of_methods(runs), *of_parts(runs), *of_sides(runs), *of_cost(runs)],
        tables=[
            Table(
                f"E2 and E3: {seeds} seeds, means with 95 % intervals; R@k, pass and attr in percent",
                ["arm", *MAIN, "kept", "seconds"],
                [
                    [
                        *runs.mean_row(arm, MAIN),
                        "-" if arm not in METHODS or "sopo/kept" not in runs.found[arm][0].logs
                        else told([r.logs["sopo/kept"] for r in runs.found[arm]]),
                        "-" if arm == BASE else told([r.seconds for r in runs.found[arm]], "points"),
                    ]
                    for arm in ORDER
                ],
            ),
            Table(
                f"E6: percent right; the reward itself is right on {accuracy.swapped:.1%} of captions with sides exchanged",
                ["arm", *SIDES],
                [runs.mean_row(arm, SIDES) for arm in ORDER],
            ),
            Table(
                "E7: processor seconds of all updates",
                ["arm", "seconds", "for drawing", "percent", "MM-Dist"],
                costs,
            ),
        ],
        plots=[picture(runs)],
    )  # fmt: skip


LOOKS: dict[str, tuple[str, str]] = {
    BASE: (plots.QUIET, "*"),
    SFT: (plots.BLUE, "s"),
    SFT_LONGER: (plots.BLUE, ">"),
    OFFLINE: (plots.VERMILION, "v"),
    OFFLINE_DATA: (plots.VERMILION, "X"),
    ONLINE: (plots.ORANGE, "^"),
    NAIVE: (plots.ORANGE, "P"),
    DSOPO: (plots.SKY, "D"),
    NO_VETO: (plots.SKY, "p"),
    USOPO: (plots.PURPLE, "h"),
    SOPO: (plots.GREEN, "o"),
}
"""Colour and marker of an arm."""


@plots.styled
def picture(runs: Runs) -> Plot:
    """Alignment against realism: all arms, and those near the base again."""
    figure, axes = plots.panels(2, width=5.6, height=4.4)
    near = [arm for arm in ORDER if arm not in (OFFLINE, OFFLINE_DATA, ONLINE, NAIVE)]
    for ax, arms in zip(axes, (ORDER, near), strict=True):
        for arm in arms:
            (x, dx), (y, dy) = (plots.centre(runs.values(measure, arm)) for measure in ("MM-Dist", "FID"))
            colour, marker = LOOKS[arm]
            ax.errorbar(
                x, y, xerr=dx, yerr=dy, color=colour, marker=marker, markersize=9, markeredgecolor="white",
                linestyle="none", elinewidth=1.1, label=arm,
            )  # fmt: skip
        ax.set_xlabel("MM-Dist (less: motions are nearer to their captions)")
    axes[0].set_ylabel("FID (less: motions look like true ones)")
    axes[0].set_title("All arms")
    axes[0].legend()
    axes[1].set_title("Without those of samples alone")
    return Plot(
        "sopo_methods",
        f"E2 and E3: alignment and realism after training; bars: 95 % intervals of the mean over {len(runs.starts)} seeds",
        figure,
    )
