"""`prefopt reproduce lpo`: a diffusion model as latent judge, and LPO with it, in the picture world.

"Diffusion Model as a Noise-Aware Latent Reward Model for Step-Level Preference Optimization", Zhang et al. (NeurIPS
2025, arXiv 2502.01051). Two experiments with the library's own trainer, collector, likelihoods and objectives:

    E1  judges, accuracy  how often is a latent judge right at each noise level, and a pixel judge?
    E2  cost                  what do LPO, SPO and Diffusion-DPO cost to the same exact reward?

    world                     data of a seed, runs, and what they cost
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefopt.reproduce.core import Asked, Part
from prefopt.reproduce.lpo import accuracy, cost
from prefopt.reproduce.lpo.cost import DPO, LPO, SPO
from prefopt.reproduce.lpo.judges import LRM, PIXEL, SCRATCH, rank, train_lrm, train_pixel
from prefopt.reproduce.lpo.world import FULL, GUIDANCE, QUICK, Size, prepare, quiet

NOTES = (
    "A world's own model, pretrained on captions that are often wrong, is policy, reference and start of the latent "
    "judge; the pixel judge's convolutions were trained on the same captioned pictures by CLIP's loss. Pretraining is "
    "in no cost and not in the seconds",
    "Judges and Diffusion-DPO learn from the same comparisons of rendered pictures, which are better than the model's own "
    "samples: for Diffusion-DPO this is kinder than Pick-a-Pic",
    "Costs: processor time of one thread, and operations of all networks, a backward pass as two forward passes; "
    "encoding the training pictures (once, cached) and drawing pictures to measure are in neither",
    "Processor time differs from run to run, and so may a close verdict on it; all else repeats",
)


RANK = "ranking"
FIRST, THEN = (DPO, PIXEL, SCRATCH, LRM), (SPO, LPO, RANK)
"""What needs no judge, and what needs one; the longest first."""


def part(what: str, seed: int, size: Size, root: Path) -> Any:
    """One job of a seed."""
    quiet()
    if what == LRM:
        return train_lrm(seed, size, root)
    if what in (PIXEL, SCRATCH):
        return train_pixel(seed, size, root, what)
    return rank(seed, size, root) if what == RANK else cost.train(what, seed, size, root)


def experiments(asked: Asked) -> Iterator[Part]:
    """E1 and E2; each seed has pictures and a pretrained model of its own. A model that is not cached takes two minutes."""
    size, seeds = QUICK if asked.quick else FULL, range(asked.seeds)
    found: dict[str, list[Any]] = {}
    with TemporaryDirectory() as folder:
        root, start = Path(folder), time.monotonic()
        jobs = [(seed, size, root) for seed in seeds]
        asked.in_processes("lpo: worlds (pretrained once, then cached)", prepare, jobs)
        yield Part(uncounted=time.monotonic() - start)
        for stage, title in ((FIRST, "lpo: judges and Diffusion-DPO"), (THEN, "lpo: LPO, SPO, accuracy")):
            parts = [(what, seed, size, root) for what in stage for seed in seeds]
            for (what, *_), result in zip(parts, asked.in_processes(title, part, parts), strict=True):
                found.setdefault(what, []).append(result)
    yield accuracy.experiment(found[RANK])
    yield cost.experiment(
        {name: found[name] for name in (LPO, SPO, DPO)}, {LPO: found[LRM], SPO: found[PIXEL]}
    )
    sizes = {name: getattr(size, name) for name in Size.__slots__}
    yield Part(settings={"all": {"seeds": asked.seeds, "guidance_scale": GUIDANCE, **sizes}})
