"""S1 and S5 of `prefopt reproduce ssapo`: is the follower exact, does it obey the theorems, and how fast is it?

Shapes: N pairs, K pieces. Symbols as in `sources/worst_case.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from prefopt import objectives
from prefopt.reproduce import plots
from prefopt.reproduce.core import (
    Part,
    Plot,
    Table,
    Ticker,
    directional,
    silent,
    within,
)
from prefopt.sources.gap_losses import (
    Array,
    Pieces,
    exact_margin,
    tangents_margin,
    tangents_probability,
)
from prefopt.sources.worst_case import Space, follower, worst_case

RADII = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
LOWS = (-1e1, -1e2, -1e3, -1e4, -1e5, -1e6)
PIECES, GROUP = 6, 100  # the paper's


def lp_value(value_N: Array, pieces: Pieces, low: float, high: float, epsilon: float) -> float:
    """The follower's value by a solver: Theorem 3.3 as a linear program, solved by HiGHS.

    Variables are shares s and movements down and up q+, q-, each (N, K), all >= 0.

    Raises:
        RuntimeError: the solver did not finish.
    """
    from scipy.optimize import linprog
    from scipy.sparse import block_array, diags_array, eye_array, kron

    n, k = len(value_N), len(pieces.slope_K)
    slope, x = np.tile(pieces.slope_K, n), np.repeat(value_N, k)
    gain = np.concatenate([np.tile(pieces.intercept_K, n) + slope * x, -slope, slope]) / n
    one = eye_array(n * k)
    stay_in_window = block_array([[diags_array(low - x), one, -one], [diags_array(x - high), -one, one]])
    budget = np.concatenate([np.zeros(n * k), np.ones(2 * n * k)])[None] / n
    whole = kron(eye_array(n), np.concatenate([np.ones(k)])[None])
    found = linprog(
        -gain,
        A_ub=block_array([[budget], [stay_in_window]]),
        b_ub=np.concatenate([[epsilon], np.zeros(2 * n * k)]),
        A_eq=block_array([[whole, np.zeros((n, 2 * n * k))]]),
        b_eq=np.ones(n),
        method="highs",
    )
    if found.status != 0:
        raise RuntimeError(f"HiGHS stopped with status {found.status}: {found.message}")
    return -float(found.fun)


def pieces_of(space: Space, k: int, low: float, high: float) -> Pieces:
    """The tangents that `worst_case` uses for K pieces."""
    if space == "probability":
        return tangents_probability(k)
    return tangents_margin(np.array([(low + high) / 2]) if k == 1 else np.linspace(low, high, k))


def against_solver(seed: int) -> tuple[float, float]:
    """Largest |greedy - LP| and |greedy - dual| over random small cases in both spaces, every radius."""
    rng = np.random.default_rng(seed)
    lp, dual = 0.0, 0.0
    spaces: tuple[Space, ...] = ("margin", "probability")
    for space in spaces:
        n, k = int(rng.integers(2, 13)), int(rng.integers(1, 8))
        xi_N = rng.normal(size=n) * rng.choice([0.1, 1.0, 3.0])
        for epsilon in RADII:
            found = worst_case(xi_N, epsilon=epsilon, space=space, pieces=k)
            value_N = xi_N if space == "margin" else expit(xi_N)
            solved = lp_value(
                value_N, pieces_of(space, k, found.low, found.high), found.low, found.high, epsilon
            )
            lp = max(lp, abs(found.worst_value - solved))
            dual = max(dual, abs(found.worst_value - found.dual_value))
    return lp, dual


def theorems(seed: int, pairs: int = 200) -> dict[str, float]:
    """Violations of what must be so, with the exact loss in margin space; 0 where it is."""
    rng = np.random.default_rng(seed)
    xi_N = rng.normal(1.0, 1.5, size=pairs)
    low, high = float(xi_N.min()) - 1, float(xi_N.max()) + 1
    mean = float(exact_margin(xi_N).mean())
    radii = np.linspace(0, 4, 41)
    values = np.array([worst_case(xi_N, epsilon=float(e)).worst_value for e in radii])
    steps = np.diff(values)
    far = [worst_case(xi_N, epsilon=0.3, low=a, high=high).worst_value for a in LOWS]
    nested = [
        follower(xi_N, tangents_margin(np.linspace(low, high, 2**j + 1)), low, high, 0.3).worst_value
        for j in range(1, 9)
    ]
    groups = [worst_case(xi_N, epsilon=0.3, group_size=g).worst_value for g in (10, 50, pairs)]
    return {
        "mean": abs(values[0] - mean),
        "falls": max(0.0, -float(steps.min())),
        "bends": max(0.0, float(np.diff(steps).max())),
        "above": max(0.0, float((values - mean - radii).max()), max(far) - mean - 0.3),
        "limit": abs(far[-1] - mean - 0.3),
        "limit_falls": max(0.0, *(a - b for a, b in pairwise(far))),
        "nested_falls": max(0.0, *(a - b for a, b in pairwise(nested))),
        "nested_gap": abs(nested[-1] - worst_case(xi_N, epsilon=0.3).worst_value),
        "groups": max(0.0, *(g - groups[-1] for g in groups)),
    }


def leaders(seed: int, pairs: int = 200) -> dict[str, float]:
    """What each leader makes of the moved mass, by gradients with respect to the gaps.

    Returns:
        weights: largest difference of the literal Algorithm 1 from DPO.
        discarded: largest gradient of a wholly moved pair under the released leader (0: discarded).
        shift: mean pull of wholly moved pairs under `shift`, minus DPO's.
    """
    rng = np.random.default_rng(seed)
    xi_N = np.abs(rng.normal(1.0, 1.5, size=pairs))

    def pull(objective: Any, space: Space, epsilon: float) -> tuple[Array, Array]:
        found = worst_case(
            xi_N, epsilon=epsilon, space=space, pieces=PIECES if space == "probability" else None
        )
        u_N = torch.tensor(xi_N, requires_grad=True)
        columns = {
            "robust_moved": torch.from_numpy(found.moved_N),
            "robust_shift": torch.from_numpy(found.shift_N),
        }
        loss = objective(u_N, torch.zeros(pairs, dtype=torch.float64), **columns).sum()
        (gradient_N,) = torch.autograd.grad(loss, u_N)
        return -gradient_N.numpy(), found.moved_N == 1

    dpo_N = expit(-xi_N)
    weights_N, _ = pull(objectives.get("ssapo", beta=1.0, leader="weights"), "margin", 0.3)
    released = objectives.get("ssapo", beta=1.0, leader="prob_atoms", floor="clamp", pieces=PIECES)
    released_N, gone_N = pull(released, "probability", 0.05)
    shift_N, moved_N = pull(objectives.get("ssapo", beta=1.0), "margin", 0.3)
    return {
        "weights": float(np.abs(weights_N - dpo_N).max()),
        "discarded": float(np.abs(released_N[gone_N]).max()),
        "shift": float((shift_N - dpo_N)[moved_N].mean()),
    }


# -- S5 --------------------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Least processor time of several runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def timings(seed: int, sizes: Sequence[int]) -> dict[str, float]:
    """Processor seconds of the exact solution by number of pairs, and of the LP on one of the paper's groups."""
    xi_N = np.abs(np.random.default_rng(seed).normal(1.0, 1.5, size=max(sizes)))
    found = {str(n): seconds(partial(worst_case, xi_N[:n], epsilon=0.1)) for n in sizes}
    group_N, pieces = expit(xi_N[:GROUP]), tangents_probability(PIECES)
    return found | {"lp": seconds(partial(lp_value, group_N, pieces, 0.0, 1.0, 0.01), repeats=3)}


# -- together --------------------------------------------------------------------------------------------------


def exactness(seeds: range, ticker: Ticker = silent) -> Part:
    """S1."""
    tick = ticker("ssapo S1: exactness", len(seeds))
    solver, theory, pulls = [], [], []
    for seed in seeds:
        solver.append(against_solver(seed))
        theory.append(theorems(seed))
        pulls.append(leaders(seed))
        tick()

    def errors(*names: str) -> list[float]:
        return [max(t[name] for name in names) for t in theory]

    exact = f"exact loss, 200 random gaps a seed, {len(seeds)} seeds"
    result = Part()
    result.claims += [
        within(
            "S1: one sort finds the value of the follower's linear program",
            [lp for lp, _ in solver],
            1e-8,
            source="Theorem 3.3; closed form derived here",
            how="|greedy - HiGHS|, both spaces, 2 to 12 pairs, 1 to 7 pieces, 7 radii",
        ),
        within(
            "S1: primal and dual values agree",
            [dual for _, dual in solver],
            1e-9,
            source="derived here",
            how="|greedy - dual| on the same cases",
        ),
        within(
            "S1: radius 0 gives the observed loss; the value never falls with the radius and is concave",
            errors("mean", "falls", "bends"),
            1e-10,
            source="derived here",
            how=f"largest violation over 41 radii from 0 to 4; {exact}",
        ),
        within(
            "S1: the adversary adds at most epsilon to the loss",
            errors("above"),
            1e-10,
            source="Theorem 2.4",
            how=f"worst - mean - epsilon where positive; {exact}",
        ),
        within(
            "S1: it adds all of epsilon as the window grows",
            errors("limit", "limit_falls"),
            1e-5,
            source="Lemma 3.1",
            how=f"|worst - mean - epsilon| at low = -1e6, and any fall on the way there from -10; {exact}",
        ),
        within(
            "S1: with nested knots the piecewise value rises",
            errors("nested_falls"),
            1e-12,
            source="Prop. 3.2",
            how=f"largest fall from 3 to 257 knots; {exact}",
        ),
        within(
            "S1: ... to that of the exact loss",
            errors("nested_gap"),
            1e-4,
            source="Prop. 3.2",
            how=f"difference at 257 knots; {exact}",
        ),
        within(
            "S1: groups with a budget each are never worse than all pairs together",
            errors("groups"),
            1e-12,
            source="Sec. 4.1, App. F.3",
            how=f"groups of 10 and 50 - all 200; {exact}",
        ),
        within(
            "S1: Algorithm 1 to the letter is DPO",
            [p["weights"] for p in pulls],
            1e-12,
            source="Algorithm 1 and the follower's constraint sum_k s_ik = 1",
            how="largest difference of gradients",
        ),
        within(
            "S1: the released leader discards the mass that the adversary moves",
            [p["discarded"] for p in pulls],
            0.0,
            source="released code",
            how="largest gradient of a wholly moved pair, probability space, epsilon 0.05",
        ),
        directional(
            "S1: with leader `shift` moved pairs pull harder than in DPO",
            [p["shift"] for p in pulls],
            source="Sec. 3, our reading",
            how="mean gradient of wholly moved pairs - DPO's, epsilon 0.3",
        ),
    ]
    result.settings["S1"] = {"seeds": len(seeds), "radii": RADII, "lows": LOWS, "solver": "scipy HiGHS"}
    return result


def speed(seeds: range, sizes: Sequence[int], ticker: Ticker = silent) -> Part:
    """S5; processor times, which no two runs repeat."""
    tick = ticker("ssapo S5: speed", len(seeds))
    found = []
    for seed in seeds:
        found.append(timings(seed, sizes))
        tick()
    most = str(max(sizes))
    result = Part()
    result.claims += [
        within(
            f"S5: {max(sizes):,} pairs take under a second",
            [f[most] for f in found],
            1.0,
            source="derived here",
            how="processor time, one group, exact loss; best of 5",
            unit="s",
        ),
        directional(
            f"S5: all pairs at once, exactly, cost less a pair than groups of {GROUP} by a solver",
            [float(np.log10((f["lp"] / GROUP) / (f[most] / max(sizes)))) for f in found],
            source="Table 4: 45, 206 and 630 minutes for groups of 100, 200 and 300",
            how=f"log10 of processor time a pair, HiGHS on one group of {GROUP} with {PIECES} pieces - exact on {most}",
            unit="powers of ten",
        ),
    ]
    result.tables.append(
        Table(
            "S5: processor time of the follower",
            ["solver", "pairs", "mean (ms)", "least (ms)", "most (ms)"],
            [
                [
                    "HiGHS" if key == "lp" else "exact",
                    GROUP if key == "lp" else int(key),
                    *(1000 * of([f[key] for f in found]) for of in (fmean, min, max)),
                ]
                for key in found[0]
            ],
        )
    )
    result.plots.append(follower_plot(found, sizes))
    result.settings["S5"] = {
        "seeds": len(seeds),
        "pairs": list(sizes),
        "clock": "processor time, best of 5 (LP: 3)",
    }
    return result


@plots.styled
def follower_plot(found: Sequence[dict[str, float]], sizes: Sequence[int]) -> Plot:
    """Worst value by radius, processor time by number of pairs."""
    figure, axes = plots.panels(2)
    xi_N = np.random.default_rng(0).normal(1.0, 1.5, size=200)
    radii = np.linspace(0, 3, 61)
    for low, colour in ((None, plots.BLUE), (-10.0, plots.GREEN), (-1000.0, plots.ORANGE)):
        values = [worst_case(xi_N, epsilon=float(e), low=low).worst_value for e in radii]
        label = "lower end: smallest gap - 1" if low is None else f"lower end: {low:g}"
        axes[0].plot(radii, values, color=colour, label=label)
    mean = float(exact_margin(xi_N).mean())
    axes[0].plot(radii, mean + radii, "--", color=plots.QUIET, linewidth=1.3, label="mean + ε (Lemma 3.1)")
    axes[0].set_title("Worst mean loss")
    axes[0].set_xlabel("radius ε (units of the gap)")
    axes[0].set_ylabel("nats")
    axes[0].legend()
    plots.curve(
        axes[1],
        sizes,
        [[1000 * f[str(n)] for f in found] for n in sizes],
        label="exact, all at once",
        colour=plots.BLUE,
    )
    solver = [1000 * f["lp"] for f in found]
    plots.curve(axes[1], [GROUP], [solver], label="HiGHS, one group", colour=plots.VERMILION, marker="s")
    axes[1].set_title("Processor time")
    axes[1].set_xlabel("pairs")
    axes[1].set_ylabel("ms")
    axes[1].set_xscale("log")
    axes[1].set_yscale("log")
    axes[1].legend()
    return Plot(
        "ssapo_follower",
        f"S1, S5: worst mean loss of 200 gaps by radius; processor time of the follower, {len(found)} seeds",
        figure,
    )
