"""Grey maps as control images, three equal channels, and what detectors of such maps share.

Legend: B images, C = 3, H W in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prefopt.modalities.control.detectors.base import Labels
from prefopt.modalities.image.scorers import check_images

GREY = 0.02  # channels further apart than five levels are a colour, which JPEG does not make of grey


def draw_maps(labels: Labels) -> Tensor:
    """(B, 3, H, W) of (B, H, W) maps in [0, 1].

    Raises:
        ValueError: labels that are no such maps.
    """
    maps_BHW = as_maps(labels)
    return maps_BHW[:, None].expand(-1, 3, -1, -1).contiguous()


def read_maps(conditions_BCHW: Tensor) -> Tensor:
    """(B, H, W) maps in [0, 1] of grey control images.

    Raises:
        ValueError: images with colours, which are no such maps.
    """
    check_images(conditions_BCHW)
    low, high = conditions_BCHW.amin(1), conditions_BCHW.amax(1)
    if conditions_BCHW.numel() and (high - low).max() > GREY:
        raise ValueError(
            f"a control image of grey values has colours: its channels differ by up to {(high - low).max():.2g}. Needed "
            "three equal channels; a coloured picture of depth shows no single number a pixel"
        )
    return conditions_BCHW.mean(1).clamp(0, 1)


def as_maps(labels: Labels) -> Tensor:
    """The labels as (B, H, W) floats.

    Raises:
        ValueError: they are something else.
    """
    if not isinstance(labels, Tensor) or labels.ndim != 3 or not labels.is_floating_point():
        what = (
            f"a {type(labels).__name__}"
            if not isinstance(labels, Tensor)
            else f"{labels.dtype} of the shape {tuple(labels.shape)}"
        )
        raise ValueError(f"labels are {what}; needed maps, (B, H, W) floats in [0, 1]")
    if labels.numel() and not (labels.min() >= -1e-4 and labels.max() <= 1 + 1e-4):
        raise ValueError(f"maps have values from {labels.min():.3g} to {labels.max():.3g}; needed [0, 1]")
    return labels


def check_same(images_BCHW: Tensor, labels_BHW: Tensor) -> None:
    """Raise a ValueError unless labels are of the number and size of the images."""
    wanted = (len(images_BCHW), *images_BCHW.shape[2:])
    if tuple(labels_BHW.shape) != wanted:
        raise ValueError(
            f"labels of the shape {tuple(labels_BHW.shape)} for images of the shape {tuple(images_BCHW.shape)}: needed "
            f"{wanted}"
        )


def stretched(maps_BHW: Tensor) -> Tensor:
    """Each map from its least to its greatest value as [0, 1]; a flat one, which says nothing, as zeros."""
    low_B11, high_B11 = maps_BHW.amin((1, 2), keepdim=True), maps_BHW.amax((1, 2), keepdim=True)
    range_B11 = high_B11 - low_B11
    flat_B11 = range_B11 <= 1e-6 * torch.maximum(low_B11.abs(), high_B11.abs())
    return torch.where(flat_B11, 0.0, (maps_BHW - low_B11) / range_B11.masked_fill(flat_B11, 1.0))
