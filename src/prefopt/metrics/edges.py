"""Agreement of edges: F1 over pixels, of single images and of a set.

Legend: B images, H W in pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class EdgeScores(NamedTuple):
    """How well edges were found, each in [0, 1]."""

    f1: float
    precision: float
    recall: float


def edge_f1(true_BHW: Tensor, found_BHW: Tensor) -> Tensor:
    """F1 = 2 TP / (2 TP + FP + FN) over the pixels of each image.

    Args:
        true_BHW, found_BHW: (B, H, W), bool or numbers; an edge is what is above 1/2.

    Returns:
        (B,) in double precision; 1 where neither has an edge.

    Raises:
        ValueError: other shapes.

    Example:
        >>> edge_f1(torch.eye(4)[None], torch.eye(4)[None].flip(1)).tolist()
        [0.0]
    """
    tp_B, fp_B, fn_B = _counts(true_BHW, found_BHW).unbind(-1)
    return _ratio(2 * tp_B, 2 * tp_B + fp_B + fn_B)


def edge_scores(true_BHW: Tensor, found_BHW: Tensor) -> EdgeScores:
    """F1, precision and recall over all pixels of a set.

    Args:
        true_BHW, found_BHW: as `edge_f1` takes them.

    Raises:
        ValueError: other shapes.
    """
    return scores_of(edge_counts(true_BHW, found_BHW))


def edge_counts(true_BHW: Tensor, found_BHW: Tensor) -> Tensor:
    """(3,) true positives, false positives, false negatives over all pixels; those of several batches add up."""
    return _counts(true_BHW, found_BHW).sum(0)


def scores_of(counts_3: Tensor) -> EdgeScores:
    """F1, precision and recall from the counts of `edge_counts`."""
    tp, fp, fn = counts_3.double().unbind()
    parts = (_ratio(2 * tp, 2 * tp + fp + fn), _ratio(tp, tp + fp), _ratio(tp, tp + fn))
    return EdgeScores(*(float(part) for part in parts))


def _counts(true_BHW: Tensor, found_BHW: Tensor) -> Tensor:
    """(B, 3) true positives, false positives, false negatives."""
    if true_BHW.shape != found_BHW.shape or true_BHW.ndim != 3:
        raise ValueError(
            f"edges of the shapes {tuple(true_BHW.shape)} and {tuple(found_BHW.shape)}: needed (B, H, W) twice"
        )
    true, found = true_BHW > 0.5, found_BHW > 0.5
    sets = (true & found, ~true & found, true & ~found)
    return torch.stack([pixels.sum((1, 2)) for pixels in sets], -1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole in double precision, 1 where there is nothing."""
    return torch.where(whole > 0, part.double() / whole.double().clamp(min=1), 1.0)
