"""`prefopt reproduce symmpo`: "Theory-Consistent Symmetric Multimodal Preference Optimization" in miniature.

Liu, Song, Li, Wei, Zheng, Yin, Nie (NeurIPS 2025, arXiv 2506.11712):

    A  partition  a world of a few images and answers, exact: whose minimum is the ideal policy?
    B  captions, hallucination  the caption world: what do methods of two images do to what a model says is there?
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prefopt.reproduce.core import Asked, Part
from prefopt.reproduce.symmpo import hallucination
from prefopt.reproduce.symmpo.captions import ARMS, QUICK, START, SWEEP, Size, Trained, prepare, train
from prefopt.reproduce.symmpo.partition import STEPS, partition_functions

NOTES = (
    "A fits a table of probabilities to exact preferences, so it speaks of where a loss has its minimum, and not of what "
    "a model learns from finite data on the way there",
)
EXACT_SEEDS = 5
"""A seed of A takes two seconds, so it has never fewer."""
SWEPT_SEEDS = 1


def experiments(asked: Asked) -> Iterator[Part]:
    """A and B."""
    exact = asked.seeds if asked.quick else max(asked.seeds, EXACT_SEEDS)
    yield partition_functions(range(exact), 20 if asked.quick else STEPS, asked.ticker)
    size, seeds = QUICK if asked.quick else Size(), range(asked.seeds)
    start = time.monotonic()
    asked.in_processes("caption worlds: models and rows (cached)", prepare, [(seed, size) for seed in seeds])
    yield Part(uncounted=time.monotonic() - start)
    # arms of a seed follow each other: what they are measured on is made once
    jobs = [
        (name, seed, size)
        for seed in seeds
        for name in (START, *ARMS, *(SWEEP if seed < SWEPT_SEEDS else ()))
    ]
    found: dict[str, list[Trained]] = {name: [] for name in (START, *ARMS, *SWEEP)}
    for (name, *_), result in zip(jobs, asked.in_processes("caption worlds: arms", train, jobs), strict=True):
        found[name].append(result)
    yield hallucination.experiment(found)
    yield Part(settings={"B, sizes": {name: getattr(size, name) for name in Size.__slots__}})
