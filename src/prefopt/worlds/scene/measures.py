"""What a set of pictures is measured by: how well it follows its conditions, and how far it is from real pictures.

Legend of shape suffixes: B pictures, C = 3 channels, H = W = 16 rows and columns, D features, R resamples,
X sums that a measure is made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from prefopt.metrics.frechet import frechet_distance
from prefopt.worlds.base import Estimate
from prefopt.worlds.scene.detector import SceneDetector, overlaps
from prefopt.worlds.scene.task import Scenes

REAL_PICTURES = 2048
"""That samples are compared with by their Frechet distance."""
RESAMPLES = 1000
POOL = 4
"""Side in pixels of the patches whose means are compared."""
LEVELS = 255


class Fidelity(NamedTuple):
    """How well a model's pictures follow what they were asked for.

    Attributes:
        metric: what `control` is: miou, edge_f1 (more is better) or rmse (in levels of 255, less is better).
        control: of the maps that are seen in the pictures against the conditions; bootstrap over pictures.
        style: share of the pictures in the prompt's style; normal interval.
        frechet: distance to real pictures in pooled pixels; depends on the number of pictures.
        pictures: how many.
    """

    metric: str
    control: Estimate
    style: Estimate
    frechet: float
    pictures: int


class Sums(NamedTuple):
    """A measure of a set as a function of sums over its pictures."""

    parts_BX: Tensor
    measure: Callable[[Tensor], Tensor]


def fidelity(
    images_BCHW: Tensor, scenes: Scenes, judge: SceneDetector, style_B: Tensor, real_BCHW: Tensor
) -> Fidelity:
    """How well pictures follow the conditions of scenes.

    Args:
        images_BCHW: picture k under the condition of scene k, in [0, 1].
        scenes: what was asked for.
        judge: sees what is there.
        style_B: whether picture k has its prompt's style.
        real_BCHW: pictures of the kind that they should be.
    """
    n, share = len(images_BCHW), style_B.float()
    mean, half = share.mean().item(), 1.96 * share.std().item() / math.sqrt(n)
    seen_BHW, wanted_BHW = judge.detect(images_BCHW), judge.labels(scenes.classes_BHW)
    return Fidelity(
        metric=judge.metric,
        control=estimate(sums_of(judge, seen_BHW, wanted_BHW)),
        style=Estimate(mean, mean - half, mean + half),
        frechet=frechet_distance(pooled(images_BCHW), pooled(real_BCHW)),
        pictures=n,
    )


def sums_of(detector: SceneDetector, seen_BHW: Tensor, wanted_BHW: Tensor) -> Sums:
    """The parts of the detector's metric.

    miou: over the classes that are in either map of any picture, of pixels counted over the whole set. edge_f1: of the
    edge pixels of the whole set. rmse: mean over pictures, in levels of 255.
    """
    if detector.metric == "miou":
        parts_BX = torch.cat(overlaps(seen_BHW, wanted_BHW), 1)

        def measure(sums_RX: Tensor) -> Tensor:
            inter, union = sums_RX.chunk(2, 1)
            return (inter / union.clamp(min=1)).sum(1) / (union > 0).sum(1)

    elif detector.metric == "edge_f1":
        both, either = (seen_BHW & wanted_BHW).sum((1, 2)), seen_BHW.sum((1, 2)) + wanted_BHW.sum((1, 2))
        parts_BX, measure = torch.stack((2 * both, either), 1), _ratio
    else:
        rmse_B = LEVELS * (seen_BHW - wanted_BHW).square().mean((1, 2)).sqrt()
        parts_BX, measure = torch.stack((rmse_B, torch.ones_like(rmse_B)), 1), _ratio
    return Sums(parts_BX.double(), measure)


def _ratio(sums_RX: Tensor) -> Tensor:
    return sums_RX[:, 0] / sums_RX[:, 1].clamp(min=1)


def estimate(sums: Sums, seed: int = 0) -> Estimate:
    """The measure of the set, with a 95 % interval: percentiles of the bootstrap over pictures."""
    n = len(sums.parts_BX)
    generator = torch.Generator().manual_seed(seed)
    drawn_RB = torch.randint(n, (RESAMPLES, n), generator=generator)
    counts_RB = torch.zeros(RESAMPLES, n, dtype=torch.float64).scatter_add_(
        1, drawn_RB, torch.ones(RESAMPLES, n, dtype=torch.float64)
    )
    resampled_R = sums.measure(counts_RB @ sums.parts_BX)
    low, high = resampled_R.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(sums.measure(sums.parts_BX.sum(0, keepdim=True)).item(), low, high)


def pooled(images_BCHW: Tensor) -> Tensor:
    """(B, 48) means of 4 x 4 patches, of pixels in [-1, 1]."""
    return torch.nn.functional.avg_pool2d(2 * images_BCHW - 1, POOL).flatten(1)
