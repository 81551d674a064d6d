"""`prefopt reproduce sopo`: winners from data, losers sampled now, in a plane and in the motion world.

"SoPo: Text-to-Motion Generation Using Semi-Online Preference Optimization", Tan, Wang, Geng, Zhou (NeurIPS 2025, arXiv 2412.05095),
with the library's own objective, collector and trainer:

    E1              plane, exact         points in a plane, exact densities: what offline and online DPO miss
    E2, E3, E6, E7  motions, alignment   what SoPo, its parts, what it is compared with and the control make of a small model of motions
    E4, E5          motions, sweeps      tau and the number of candidates
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from prefopt.reproduce.core import Asked, Part
from prefopt.reproduce.sopo import alignment, exact, plane, sweeps
from prefopt.reproduce.sopo.motions import (
    ARMS,
    BASE,
    DRAWN,
    QUICK,
    SHARED,
    Size,
    Trained,
    jobs,
    prepare,
    train,
)

STEPS, QUICK_STEPS = 300, 20
"""Updates of a method in the plane."""
NOTES = (
    "All seeds start from one pretrained model and share reward, evaluator and motions: what varies is the training (order, timesteps, "
    "noise, samples), so a verdict says nothing of other models",
    "SFT on the same motions is the control that the paper has not; it is in every table",
    "The fixed pairs of offline DPO are drawn by the model and ranked by the reward, best against worst of two, as MoDiPO does; "
    '"winners from data" has the data\'s motion against the worst of them',
    "Processor time differs from run to run, and so may a close verdict on it; all else repeats. Evaluations and the pretraining are in "
    "no time",
)


def experiments(asked: Asked) -> Iterator[Part]:
    """E1, then the motion world; its models take some minutes unless they are cached."""
    size, steps = (QUICK, QUICK_STEPS) if asked.quick else (Size(), STEPS)
    seeds = range(asked.seeds)
    yield exact.experiment(
        asked.in_processes("sopo: points in a plane", plane.one_seed, [(seed, steps) for seed in seeds]),
        steps,
    )
    start = time.monotonic()
    asked.in_processes("sopo: the motion world's models (cached)", prepare, [(size,)])
    yield Part(uncounted=time.monotonic() - start)
    found: dict[str, list[Any]] = {name: [] for name in (BASE, *ARMS)}
    todo = jobs(seeds, size)
    for (name, *_), result in zip(
        todo, asked.in_processes("sopo: runs on motions", train, todo), strict=True
    ):
        found[name].append(result)
    trained: dict[str, list[Trained]] = {name: found[name] for name in ARMS}
    runs = alignment.Runs(found[BASE], trained)
    yield alignment.experiment(runs)
    yield sweeps.experiment(runs)
    settings = {
        "seeds": asked.seeds,
        "all": SHARED,
        "but the control": DRAWN,
        "arms": ARMS,
        **{name: getattr(size, name) for name in Size.__slots__},
    }
    yield Part(settings={"E2-E7": settings})
