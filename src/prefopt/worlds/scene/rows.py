"""Rows of preference data that are made of scenes and of a model's samples under their conditions.

Legend of shape suffixes: B pictures, N samples a condition, C = 3 channels, H = W = 16 rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prefopt.worlds.pixels import as_png
from prefopt.worlds.scene.detector import SceneDetector
from prefopt.worlds.scene.task import Scenes

Row = dict[str, Any]

TRIES = (1.125, 2, 4, 8)
"""Pictures a row, in turn, until enough have sides that differ; most have."""


def of_conditions(scenes: Scenes, samples_BCHW: Tensor, detector: SceneDetector, split: str) -> list[Row]:
    """One picture under its true condition and under the one that is seen in a sample, where they differ."""
    true_BHW, seen_BHW = detector.labels(scenes.classes_BHW), detector.detect(samples_BCHW)
    score_B = detector.agreement(true_BHW, seen_BHW).tolist()
    true_BCHW, seen_BCHW = detector.draw(true_BHW), detector.draw(seen_BHW)
    return [
        {
            "id": f"{split}-{k}",
            "prompt": caption,
            "image": as_png(scenes.images_BCHW[k]),
            "chosen_condition": as_png(true_BCHW[k]),
            "rejected_condition": as_png(seen_BCHW[k]),
            "score": score_B[k],
            "source": f"world:scene/{detector.kind}",
        }
        for k, caption in enumerate(scenes.captions)
        if not torch.equal(true_BHW[k], seen_BHW[k])
    ]


def of_singles(scenes: Scenes, detector: SceneDetector, split: str) -> list[Row]:
    """One picture under its true condition."""
    true_BCHW = detector.draw(detector.labels(scenes.classes_BHW))
    return [
        {
            "id": f"{split}-{k}",
            "prompt": caption,
            "image": as_png(scenes.images_BCHW[k]),
            "condition": as_png(true_BCHW[k]),
            "source": f"world:scene/{detector.kind}",
        }
        for k, caption in enumerate(scenes.captions)
    ]


def of_images(scenes: Scenes, samples_BNCHW: Tensor, detector: SceneDetector, split: str) -> list[Row]:
    """The samples that agree best and worst with their true condition, where these two agree differently well."""
    true_BHW = detector.labels(scenes.classes_BHW)
    n = samples_BNCHW.shape[1]
    seen = detector.detect(samples_BNCHW.flatten(0, 1))
    scores_BN = detector.agreement(true_BHW.repeat_interleave(n, 0), seen).unflatten(0, (-1, n))
    best, worst = scores_BN.argmax(1).tolist(), scores_BN.argmin(1).tolist()
    true_BCHW = detector.draw(true_BHW)
    return [
        {
            "id": f"{split}-{k}",
            "prompt": caption,
            "condition": as_png(true_BCHW[k]),
            "chosen_image": as_png(samples_BNCHW[k, best[k]]),
            "rejected_image": as_png(samples_BNCHW[k, worst[k]]),
            "score_chosen": float(scores_BN[k, best[k]]),
            "score_rejected": float(scores_BN[k, worst[k]]),
            "source": f"world:scene/{detector.kind}/pairs",
        }
        for k, caption in enumerate(scenes.captions)
        if scores_BN[k, best[k]] > scores_BN[k, worst[k]]
    ]


def enough(n: int, made: Callable[[int], list[Row]]) -> list[Row]:
    """The first `n` rows that a number of pictures gives, some of which may give none.

    Args:
        n: rows.
        made: gives the rows of that many pictures, in their order.

    Raises:
        ValueError: even many pictures give fewer.
    """
    rows: list[Row] = []
    counts = [int(n * pictures) for pictures in TRIES]
    for count in counts:
        rows = made(count)
        if len(rows) >= n:
            return rows[:n]
    raise ValueError(
        f"{n} rows asked for, and {counts[-1]} pictures gave {len(rows)} whose two sides differ: this model "
        "follows its conditions too well, or ignores them in too like a way. Take fewer rows, or another number of "
        "consistency_steps or control_steps"
    )
