"""Runs of `prefopt reproduce sopo` in the motion world that never were, with numbers for which all claims are true."""

from __future__ import annotations

from prefopt.reproduce.sopo.alignment import Runs
from prefopt.reproduce.sopo.motions import (
    ARMS,
    BASE,
    DSOPO,
    NAIVE,
    NO_VETO,
    OFFLINE,
    OFFLINE_DATA,
    ONLINE,
    REUSED,
    SFT,
    SFT_LONGER,
    SOPO,
    USOPO,
    Start,
    Trained,
    at_quantile,
    with_candidates,
)
from prefopt.worlds.motion.measures import Accuracy, Measures

SEEDS = 3
# R@1, MM-Dist, FID, pass, side, direction, right way, share kept, seconds, seconds of drawing
TRUE: dict[str, tuple[float, ...]] = {
    BASE: (0.35, 0.94, 0.14, 0.12, 0.75, 0.40, 0.75, 0, 0, 0),
    SFT: (0.40, 0.84, 0.15, 0.17, 0.94, 0.46, 0.88, 0, 4, 0),
    SFT_LONGER: (0.41, 0.83, 0.17, 0.18, 0.96, 0.50, 0.89, 0, 16, 0),
    OFFLINE: (0.28, 1.02, 0.30, 0.05, 0.70, 0.35, 0.70, 1, 15, 6),
    OFFLINE_DATA: (0.09, 1.27, 0.85, 0.02, 0.60, 0.30, 0.60, 1, 15, 6),
    ONLINE: (0.36, 0.93, 0.16, 0.12, 0.76, 0.41, 0.76, 1, 20, 14),
    NAIVE: (0.37, 0.92, 0.20, 0.13, 0.77, 0.42, 0.77, 1, 30, 18),
    DSOPO: (0.38, 0.88, 0.12, 0.14, 0.80, 0.45, 0.80, 1, 20, 14),
    NO_VETO: (0.39, 0.87, 0.12, 0.14, 0.80, 0.45, 0.80, 1, 20, 14),
    USOPO: (0.41, 0.83, 0.14, 0.17, 0.95, 0.50, 0.89, 0.45, 20, 14),
    SOPO: (0.42, 0.82, 0.12, 0.19, 0.97, 0.55, 0.90, 0.45, 20, 14),
    at_quantile(0.1): (0.41, 0.83, 0.14, 0.19, 0.97, 0.55, 0.90, 0.1, 20, 14),
    at_quantile(0.25): (0.42, 0.82, 0.13, 0.19, 0.97, 0.55, 0.90, 0.25, 20, 14),
    at_quantile(0.75): (0.41, 0.85, 0.12, 0.19, 0.97, 0.55, 0.90, 0.75, 20, 14),
    at_quantile(1.0): (0.38, 0.87, 0.11, 0.19, 0.97, 0.55, 0.90, 1.0, 20, 14),
    with_candidates(1): (0.38, 0.88, 0.11, 0.19, 0.97, 0.55, 0.90, 0.4, 13, 7),
    with_candidates(4): (0.42, 0.81, 0.11, 0.19, 0.97, 0.55, 0.90, 0.5, 40, 32),
    REUSED: (0.42, 0.83, 0.11, 0.19, 0.97, 0.55, 0.90, 0.45, 9, 3.5),
}
LOSERS = {1: 0.76, 2: 0.7, 4: 0.66, 8: 0.62}


def measures(numbers: tuple[float, ...]) -> Measures:
    r_1, mm_dist, fid, passed, side, direction, way = numbers[:7]
    return Measures(
        passed=passed, attr=0.6, words={"side": side, "direction": direction}, right_way=way,
        r_precision=(r_1, r_1 + 0.1, r_1 + 0.2), mm_dist=mm_dist, fid=fid, diversity=1.3, reward=0.7, motions=640,
    )  # fmt: skip


def runs_of(
    numbers: dict[str, tuple[float, ...]] = TRUE,
    swapped: float = 0.99,
    losers: dict[int, float] = LOSERS,
) -> Runs:
    """Arms' numbers, the same with every seed but for a wobble."""

    def wobbled(row: tuple[float, ...], seed: int) -> tuple[float, ...]:
        return tuple(x * (1 + 1e-4 * seed) for x in row)

    def run(row: tuple[float, ...]) -> Trained:
        logs = {"sopo/kept": row[7], "collect/rejected_reward": 0.7, "collect/network_calls": 20.0}
        return Trained(measures(row), row[8], row[9], logs if row[9] else {})

    accuracy = Accuracy(0.99, 0.5, swapped, {}, 640)
    starts = [Start(measures(numbers[BASE]), accuracy, losers) for _ in range(SEEDS)]
    found = {name: [run(wobbled(numbers[name], seed)) for seed in range(SEEDS)] for name in ARMS}
    return Runs(starts, found)
