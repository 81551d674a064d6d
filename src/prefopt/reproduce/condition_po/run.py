"""`prefopt reproduce condition_po`: preferences between conditions, not images, in the scene world.

"CPO: Condition Preference Optimization for Controllable Image Generation", Lyu, Li, Liu, Chen (NeurIPS 2025, arXiv
2511.04753). Two experiments with the library's own trainer, likelihood and objectives:

    C1, C2      contrast  how clearly does the starting model tell condition pairs and image pairs apart, by noise level?
    C3, C4, C5  finetune  what do the same steps of five methods do to control and quality?

    world                 rows of a seed, and runs
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from prefopt.reproduce.condition_po import contrast, finetune
from prefopt.reproduce.condition_po.finetune import START, VARIANTS
from prefopt.reproduce.condition_po.world import Size, prepare, quick, quiet
from prefopt.reproduce.core import Asked, Part

NOTES = (
    "One world and one starting model, tuned with the consistency reward before (condition PO is a second stage); it is "
    "cached, as are its samples, and neither is in the seconds. Seeds vary the pictures that rows are made of, noise and "
    "order of training, and the noise of the drawn pictures; the held-out conditions are the same",
    "Only abstract, figures, tables and released code of the paper were at hand. Settings are those of the specification's "
    "pilot in a world alike (beta, margin, lambda, learning rate; one seed), not tuned here: the paper's beta 5000 and margin "
    "0.01 belong to errors of another size. All methods take the same learning rate, steps and batch",
    "Image pairs are the best and the worst of three samples by the training detector, which is exact here and kind to them; "
    "all is judged by another detector. 'image DPO, same loss' is the sigmoid form with its diffusion term and smoothing on "
    "image pairs, so that only the pairs differ",
    "Frechet distances are of 48 pooled pixels and of few pictures, biased upwards alike for all",
    "Changed after a first run: the rise of the Frechet distance that would not matter was 0.1, a twentieth of the pilot's "
    "start and a third of this one's; now it is a twentieth of this one's",
)

CONTRAST = "contrast"


def part(what: str, seed: int, size: Size) -> Any:
    """One job of a seed."""
    quiet()
    return contrast.measure(seed, size) if what == CONTRAST else finetune.train(what, seed, size)


def experiments(asked: Asked) -> Iterator[Part]:
    """C1 to C5. A model and samples that are not cached take some minutes."""
    if asked.quick:
        asked = asked.at_most(1)
    size, seeds = (quick if asked.quick else Size)(asked.seeds), range(asked.seeds)
    start = time.monotonic()
    alone = replace(asked, workers=1)  # a process less to start
    alone.in_processes("condition_po: model (pretrained once, then cached)", prepare, [(None, size)])
    asked.in_processes(
        "condition_po: samples for rows (cached)", prepare, [(kind, size) for kind in contrast.KINDS]
    )
    yield Part(uncounted=time.monotonic() - start)
    jobs = [(what, seed, size) for what in (CONTRAST, *VARIANTS, START) for seed in seeds]
    found: dict[str, list[Any]] = {what: [] for what in (START, *VARIANTS, CONTRAST)}
    for (what, *_), result in zip(
        jobs, asked.in_processes("condition_po: contrast and fine-tunes", part, jobs), strict=True
    ):
        found[what].append(result)
    yield contrast.experiment(found.pop(CONTRAST))
    yield finetune.experiment(found)
    yield Part(settings={"all": {name: getattr(size, name) for name in Size.__slots__}})
