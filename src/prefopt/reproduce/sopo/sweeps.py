"""E4 and E5: what tau and the number of candidates do, as claims, tables and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefopt.reproduce import plots
from prefopt.reproduce.core import Claim, Part, Plot, Table, directional, everywhere, within
from prefopt.reproduce.sopo.alignment import Runs, told
from prefopt.reproduce.sopo.motions import (
    BASE,
    CANDIDATES,
    DRAWN,
    MOST,
    QUANTILES,
    SFT,
    SOPO,
    at_quantile,
    with_candidates,
)

MIDDLE, TWO = DRAWN["tau_quantile"], DRAWN["candidates"]
BY_TAU: Mapping[float, str] = {q: SOPO if q == MIDDLE else at_quantile(q) for q in QUANTILES}
BY_K: Mapping[int, str] = {k: SOPO if k == TWO else with_candidates(k) for k in CANDIDATES}
"""Arm of each setting."""
PART = 1 / 3
"""Of the gain of two candidates over the base, what four may add at most where the gain is said to saturate."""
SHOWN = ("R@1", "MM-Dist", "FID", "pass")


def of_tau(runs: Runs) -> list[Claim]:
    """E4. What is compared was fixed beforehand: the middle with each end, and the two that are not the default."""
    ends = {f"{q:.0%}": runs.better("MM-Dist", SOPO, BY_TAU[q]) for q in (QUANTILES[0], QUANTILES[-1])}
    return [
        everywhere("E4: alignment is best at neither end of tau", ends, source="Tab. 4",
                   how=f"MM-Dist, the end's - that of tau at {MIDDLE:.0%}"),
        runs.claim("E4: a lower tau aligns better than a higher one", "MM-Dist", BY_TAU[0.25], BY_TAU[0.75], "Tab. 4"),
        runs.claim("E4: a higher tau has a better FID than a lower one", "FID", BY_TAU[0.75], BY_TAU[0.25], "Tab. 4"),
        runs.claim("E4: the highest tau has a better FID than the lowest", "FID", BY_TAU[QUANTILES[-1]], BY_TAU[QUANTILES[0]], "Tab. 4"),
    ]  # fmt: skip


def of_candidates(runs: Runs) -> list[Claim]:
    """E5."""
    rises = [
        max(0.0, *(start.losers[b] - start.losers[a] for a, b in zip(grid(), grid()[1:], strict=False)))
        for start in runs.starts
    ]
    gain = runs.better("MM-Dist", SOPO, BASE)
    more = runs.better("MM-Dist", BY_K[4], SOPO)
    return [
        within(f"E5: of more candidates the loser is worse (K = {', '.join(map(str, grid()))})", rises, 0.0,
               source="Eq. 10", how="largest rise of the mean reward of losers from one K to the next"),
        runs.claim("E5: two candidates align better than one", "MM-Dist", SOPO, BY_K[1], "Tab. 4"),
        directional(f"E5: four add less than {PART:.0%} of what two have gained", [PART * g - m for g, m in zip(gain, more, strict=True)],
                    source="Tab. 4", how=f"fall of MM-Dist, {PART:.2g} times that of K = 2 - what K = 4 adds"),
    ]  # fmt: skip


def grid() -> list[int]:
    """Numbers of candidates whose losers are compared."""
    return [*CANDIDATES, MOST]


def experiment(runs: Runs) -> Part:
    """Claims, numbers and a figure."""

    def table(title: str, arms: Mapping[str, str], extra: Sequence[str] = ()) -> Table:
        rows = []
        for label, arm in {BASE: BASE, SFT: SFT, **arms}.items():
            logs = [] if arm in (BASE, SFT) else [run.logs for run in runs.found[arm]]
            rows.append([
                label, *runs.mean_row(arm, SHOWN)[1:],
                *(told([log[name] for log in logs]) if logs else "-" for name in ("sopo/kept", *extra)),
                "-" if arm == BASE else told([run.seconds for run in runs.found[arm]], "points"),
            ])  # fmt: skip
        titles = {"collect/rejected_reward": "reward of losers"}
        return Table(title, ["arm", *SHOWN, "kept", *(titles[name] for name in extra), "seconds"], rows)

    lost = {k: [start.losers[k] for start in runs.starts] for k in grid()}
    return Part(
        claims=[*of_tau(runs), *of_candidates(runs)],
        tables=[
            table("E4: SoPo by tau, a quantile of the base's losers", {f"{q:.0%}": arm for q, arm in BY_TAU.items()}),
            table("E5: SoPo by the number of candidates", {f"K = {k}": arm for k, arm in BY_K.items()}, ["collect/rejected_reward"]),
            Table(
                "E5: mean reward of the base's losers, the first K of the same candidates",
                [f"K = {k}" for k in lost],
                [[told(numbers) for numbers in lost.values()]],
            ),
        ],
        plots=[picture(runs)],
    )  # fmt: skip


@plots.styled
def picture(runs: Runs) -> Plot:
    """Alignment and FID by tau; alignment by candidates."""
    figure, (by_tau, fids, by_k) = plots.panels(3, width=4.2, height=3.8)
    for ax, measure in ((by_tau, "MM-Dist"), (fids, "FID")):
        columns = [runs.values(measure, arm) for arm in BY_TAU.values()]
        plots.curve(ax, [100 * q for q in BY_TAU], columns, label=SOPO, colour=plots.GREEN)
        ax.set_xlabel("share of the base's losers below tau (%)")
    plots.curve(
        by_k,
        list(BY_K),
        [runs.values("MM-Dist", arm) for arm in BY_K.values()],
        label=SOPO,
        colour=plots.GREEN,
    )
    by_k.set_xlabel("candidates K")
    by_k.set_xticks(list(BY_K))
    for ax, measure in ((by_tau, "MM-Dist"), (fids, "FID"), (by_k, "MM-Dist")):
        for arm, colour in ((BASE, plots.QUIET), (SFT, plots.BLUE)):
            ax.axhline(plots.centre(runs.values(measure, arm))[0], color=colour, linestyle="--", label=arm)
        ax.set_ylabel(f"{measure} (less is better)")
    by_tau.set_title("Alignment by tau")
    fids.set_title("FID by tau")
    by_k.set_title("Alignment by candidates")
    by_tau.legend()
    return Plot(
        "sopo_sweeps",
        f"E4 and E5: SoPo with other tau and other K; bands: 95 % intervals of the mean over {len(runs.starts)} seeds",
        figure,
    )
