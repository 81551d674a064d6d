"""Similarity of grey maps: SSIM, multi-scale SSIM, and the error of depth.

Legend: B images, H W in pixels, S scales.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, the finest first (Wang, Simoncelli and Bovik 2003)."""
LEAST_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
"""Pixels of a side from which the window fits into the coarsest scale: 176, as for torchmetrics."""


def structural_similarity(a_BHW: Tensor, b_BHW: Tensor) -> Tensor:
    """Multi-scale SSIM where the sides allow it (176 pixels or more), plain SSIM of smaller maps.

    Args:
        a_BHW, b_BHW: (B, H, W) in [0, 1], sides of at least 6 pixels.

    Returns:
        (B,), 1 where alike. Only maps of a size may be compared with each other: the two measures differ.

    Raises:
        ValueError: other shapes or values, or maps that are too small.
    """
    multi = min(a_BHW.shape[-2:]) >= LEAST_SIDE
    return multi_scale_ssim(a_BHW, b_BHW) if multi else ssim(a_BHW, b_BHW)


def ssim(a_BHW: Tensor, b_BHW: Tensor) -> Tensor:
    """Mean structural similarity (Wang et al. 2004): Gaussian window of 11, sigma 1.5, range of the data 1.

    The mean is over all places; maps are mirrored at their borders, as torchmetrics does.

    Args:
        a_BHW, b_BHW: (B, H, W) in [0, 1].

    Returns:
        (B,) in [-1, 1], in double precision.

    Raises:
        ValueError: other shapes or values, or maps that are too small.
    """
    check_maps(a_BHW, b_BHW)
    return _ssim_parts(a_BHW.double(), b_BHW.double())[0]


def multi_scale_ssim(a_BHW: Tensor, b_BHW: Tensor) -> Tensor:
    """SSIM over five scales, each half of the one before: contrast and structure at all, luminance at the coarsest.

    A mean below 0 counts as 0, since it is raised to a broken power.

    Args:
        a_BHW, b_BHW: (B, H, W) in [0, 1], sides of at least 176 pixels.

    Returns:
        (B,) in [0, 1], in double precision.

    Raises:
        ValueError: other shapes or values, or maps that are too small.
    """
    check_maps(a_BHW, b_BHW)
    if min(a_BHW.shape[-2:]) < LEAST_SIDE:
        raise ValueError(
            f"maps of {a_BHW.shape[-2]} x {a_BHW.shape[-1]} pixels are too small for {len(SCALE_WEIGHTS)} scales: "
            f"needed sides of {LEAST_SIDE} or more; `ssim` takes smaller ones"
        )
    a_BHW, b_BHW = a_BHW.double(), b_BHW.double()
    terms = []
    for scale in range(len(SCALE_WEIGHTS)):
        whole_B, structure_B = _ssim_parts(a_BHW, b_BHW)
        last = scale == len(SCALE_WEIGHTS) - 1
        terms.append(whole_B if last else structure_B)
        a_BHW, b_BHW = F.avg_pool2d(a_BHW, 2), F.avg_pool2d(b_BHW, 2)
    weight_S = torch.tensor(SCALE_WEIGHTS, dtype=torch.float64, device=a_BHW.device)
    return (torch.stack(terms, -1).clamp(min=0) ** weight_S).prod(-1)


def depth_rmse(a_BHW: Tensor, b_BHW: Tensor) -> Tensor:
    """Root of the mean squared difference of each image, on maps of 0 to 255; a set's is the mean over its images.

    Args:
        a_BHW, b_BHW: (B, H, W) in 0..255.

    Returns:
        (B,) levels, in double precision.

    Raises:
        ValueError: other shapes.
    """
    _check_shapes(a_BHW, b_BHW)
    return (a_BHW.double() - b_BHW.double()).square().mean((1, 2)).sqrt()


def check_maps(a_BHW: Tensor, b_BHW: Tensor) -> None:
    """Raise a ValueError unless two batches of maps are of one shape, large enough, and lie in [0, 1]."""
    _check_shapes(a_BHW, b_BHW)
    if min(a_BHW.shape[-2:]) <= WINDOW // 2:
        raise ValueError(
            f"maps of {a_BHW.shape[-2]} x {a_BHW.shape[-1]} pixels are too small for a window of {WINDOW}: needed sides of "
            f"{WINDOW // 2 + 1} or more"
        )
    for maps in (a_BHW, b_BHW):
        if maps.numel() and not (maps.min() >= -1e-4 and maps.max() <= 1 + 1e-4):  # NaN fails too
            raise ValueError(
                f"maps have values from {maps.min():.3g} to {maps.max():.3g}; needed [0, 1]: divide bytes by 255"
            )


def _check_shapes(a_BHW: Tensor, b_BHW: Tensor) -> None:
    if a_BHW.shape != b_BHW.shape or a_BHW.ndim != 3:
        raise ValueError(
            f"maps of the shapes {tuple(a_BHW.shape)} and {tuple(b_BHW.shape)}: needed (B, H, W) twice"
        )


def _ssim_parts(a_BHW: Tensor, b_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) means of SSIM over all places, and of its factor of contrast and structure where the whole window fits in."""
    c1, c2 = K1**2, K2**2
    offset = torch.arange(WINDOW, dtype=a_BHW.dtype, device=a_BHW.device) - WINDOW // 2
    window_W = torch.softmax(-(offset**2) / (2 * SIGMA**2), 0)
    edge = WINDOW // 2

    def blurred(maps_BHW: Tensor) -> Tensor:
        maps_BHW = F.pad(maps_BHW, (edge, edge, edge, edge), mode="reflect")
        rows = F.conv2d(maps_BHW[:, None], window_W.view(1, 1, -1, 1))
        return F.conv2d(rows, window_W.view(1, 1, 1, -1))[:, 0]

    mean_a, mean_b = blurred(a_BHW), blurred(b_BHW)
    var_a = (blurred(a_BHW**2) - mean_a**2).clamp(min=0)
    var_b = (blurred(b_BHW**2) - mean_b**2).clamp(min=0)
    cov = blurred(a_BHW * b_BHW) - mean_a * mean_b
    structure = (2 * cov + c2) / (var_a + var_b + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    inner_BHW = structure[:, edge:-edge, edge:-edge]
    return (structure * luminance).mean((1, 2)), inner_BHW.mean((1, 2))
