"""How closely a set of images follows its control images, by the measure of each kind of condition.

Legend: H W in pixels, N people.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefopt.metrics.edges import edge_counts, scores_of
from prefopt.metrics.pose import keypoint_ap, pose_hit_rate
from prefopt.metrics.segmentation import IGNORED, Confusion
from prefopt.metrics.similarity import depth_rmse, structural_similarity
from prefopt.modalities.control.detectors.base import METRICS, Labels, Metric

HEADLINE: dict[Metric, tuple[str, bool]] = {
    "miou": ("miou", True),
    "edge_f1": ("edge_f1", True),
    "ssim": ("ssim", True),
    "rmse": ("rmse", False),
    "pose": ("keypoint_ap", True),
}
"""Of each metric, which of its numbers tables show, and whether higher is better."""


def fidelity(metric: Metric, true_labels: Labels, found_labels: Labels) -> dict[str, float]:
    """Fidelity of a set: what the images show against what they should.

    Args:
        metric: of the detector.
        true_labels: a tensor or a list with one label an image, in which images may differ in size.
        found_labels: as many.

    Returns:
        By metric:

        - miou: `miou` and `pixel_accuracy` over all pixels of the set, in [0, 1]. It is not the mean of images' IoU.
        - edge_f1: `edge_f1`, `precision`, `recall` over all pixels of the set, in [0, 1].
        - ssim: `ssim`, mean over images; multi-scale from sides of 176 pixels on.
        - rmse: `rmse`, mean over images, of maps of 0 to 255.
        - pose: `keypoint_ap` (COCO) and `pose_hit_rate` (the release's), in [0, 1].

    Raises:
        ValueError: unknown metric, no images, another number of them, or labels of another kind.

    Example:
        >>> fidelity("miou", torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]))
        {'miou': 0.25, 'pixel_accuracy': 0.5}
    """
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} is not one of: {', '.join(METRICS)}")
    if len(true_labels) != len(found_labels) or not len(true_labels):
        raise ValueError(
            f"labels of {len(true_labels)} true and {len(found_labels)} found images: needed as many of each, at least one"
        )
    true, found = list(true_labels), list(found_labels)
    match metric:
        case "miou":
            return _segmentation(true, found)
        case "edge_f1":
            counts_3 = torch.stack([edge_counts(*_pair(a, b)) for a, b in zip(true, found, strict=True)]).sum(
                0
            )
            scores = scores_of(counts_3)
            return {"edge_f1": scores.f1, "precision": scores.precision, "recall": scores.recall}
        case "ssim":
            return {
                "ssim": _mean([structural_similarity(*_pair(a, b)) for a, b in zip(true, found, strict=True)])
            }
        case "rmse":
            levels = [[255 * x for x in _pair(a, b)] for a, b in zip(true, found, strict=True)]
            return {"rmse": _mean([depth_rmse(*pair) for pair in levels])}
        case "pose":
            return {"keypoint_ap": keypoint_ap(true, found), "pose_hit_rate": pose_hit_rate(true, found)}
    raise AssertionError(metric)


def _segmentation(true: Sequence[Tensor], found: Sequence[Tensor]) -> dict[str, float]:
    present = torch.cat([x.unique().cpu() for x in (*true, *found)])
    present = present[present != IGNORED]
    confusion = Confusion(int(present.max()) + 1 if len(present) else 1)
    for a_HW, b_HW in zip(true, found, strict=True):
        confusion.add(a_HW, b_HW)
    return {"miou": confusion.mean_iou(), "pixel_accuracy": confusion.pixel_accuracy()}


def _pair(a_HW: Tensor, b_HW: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps as batches of one, on one device."""
    if a_HW.shape != b_HW.shape or a_HW.ndim != 2:
        raise ValueError(
            f"labels of the shapes {tuple(a_HW.shape)} and {tuple(b_HW.shape)}: needed maps of one size, (H, W)"
        )
    return a_HW.detach().cpu()[None], b_HW.detach().cpu()[None]


def _mean(parts: Sequence[Tensor]) -> float:
    return float(torch.cat(list(parts)).mean())
