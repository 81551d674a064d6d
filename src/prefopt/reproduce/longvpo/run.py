"""`prefopt reproduce longvpo`: "From Anchored Cues to Self-Reasoning for Long-Form Video Preference Optimization" in miniature.

Huang, Li, Jia, Li, Meng, Song, Chen, Li, Wang (NeurIPS 2025, arXiv 2602.02341):

    films, long_video   the film world: a model of short films learns to read long ones; what each part of the recipe is worth
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prefopt.reproduce.core import Asked, Part
from prefopt.reproduce.longvpo import long_video
from prefopt.reproduce.longvpo.films import JOBS, NAMES, QUICK, Size, Trained, prepare, train

NOTES = (
    "a world of moving shapes and a model of 0.2 million parameters that reads single clips without a mistake, so chosen answers hold "
    "no noise, and are three tokens long: both favour learning from chosen answers alone",
)


def experiments(asked: Asked) -> Iterator[Part]:
    """One experiment: all arms on films."""
    size, seeds = QUICK if asked.quick else Size(), range(asked.seeds)
    start = time.monotonic()
    asked.in_processes("film worlds: models and clips (cached)", prepare, [(seed, size) for seed in seeds])
    yield Part(uncounted=time.monotonic() - start)
    # arms of a seed follow each other: clips are looked at once a process
    jobs = [(name, seed, size) for seed in seeds for name in JOBS]
    found: dict[str, list[Trained]] = {name: [] for name in NAMES}
    for results in asked.in_processes("film worlds: arms", train, jobs):
        for name, result in results.items():
            found[name].append(result)
    yield long_video.experiment(found)
    yield Part(settings={"sizes": {name: getattr(size, name) for name in Size.__slots__}})
