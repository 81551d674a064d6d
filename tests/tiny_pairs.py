"""Small made-up motions: a program each, which its caption names, and noise; of different lengths."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from prefopt.motion.stats import MotionStats

FRAMES, WIDTH = 10, 6
PROGRAMS = [" ".join(p) for p in itertools.product(("walks", "turns"), ("left", "right"), ("once", "twice"))]


class Pairs(NamedTuple):
    """Matching captions and motions."""

    captions: list[str]
    features_NFD: Tensor
    lengths_N: Tensor
    programs: list[int]


def pairs(count: int, seed: int) -> Pairs:
    """Of PROGRAMS by turns, in units whose mean and deviation are far from 0 and 1; NaN behind each end."""
    patterns = torch.randn(len(PROGRAMS), FRAMES, WIDTH, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    programs = [n % len(PROGRAMS) for n in range(count)]
    z = patterns[programs] + 0.3 * torch.randn(count, FRAMES, WIDTH, generator=generator)
    lengths = torch.randint(FRAMES // 2, FRAMES + 1, (count,), generator=generator)
    features = 50 * z + 1000
    features[torch.arange(FRAMES) >= lengths[:, None]] = torch.nan
    who = ("a person", "someone")
    captions = [f"{who[n // len(PROGRAMS) % 2]} {PROGRAMS[k]}" for n, k in enumerate(programs)]
    return Pairs(captions, features, lengths, programs)


def stats() -> MotionStats:
    """Those of `pairs`."""
    return MotionStats.of("stick", [1000.0] * WIDTH, [50.0] * WIDTH, fps=8, name="tiny")
