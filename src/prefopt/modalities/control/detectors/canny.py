"""Edges by Canny's detector: OpenCV's, and one in torch through which gradients pass.

    find("canny")                 as ControlNet's own annotator: of the colours, thresholds 100 and 200 of 0..255
    find("canny_torch:0.1,0.2")   grey, Gaussian 5 x 5 of sigma 1, thresholds of [0, 1]

Both take gradients by Sobel's kernels without a factor, so that a threshold of 0.1 here is one of 25.5 there.
Legend: B images, C = 3, H W in pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from prefopt.metrics.edges import edge_f1
from prefopt.modalities.control.detectors.base import Labels, Metric
from prefopt.modalities.control.detectors.maps import as_maps, check_same, draw_maps, read_maps
from prefopt.modalities.image.scorers import check_images

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601), as OpenCV has them."""
DIAGONAL = math.tan(math.radians(22.5))


class _Edges:
    """What both detectors share: edges are maps of zeros and ones."""

    metric: Metric = "edge_f1"

    def draw(self, labels: Labels) -> Tensor:
        """White edges on black."""
        return draw_maps(labels)

    def read(self, conditions_BCHW: Tensor) -> Tensor:
        """(B, H, W) ones where a control image is lighter than half."""
        return (read_maps(conditions_BCHW) > 0.5).float()

    def agreement(self, labels_a: Labels, labels_b: Labels) -> Tensor:
        """(B,) F1 over the pixels of each image."""
        return edge_f1(as_maps(labels_a), as_maps(labels_b))


class Canny(_Edges):
    """OpenCV's detector; no gradient passes through it.

    Args:
        low, high: thresholds of the gradient, on 0..255.

    Raises:
        ValueError: thresholds that are not 0 <= low <= high, or OpenCV is not installed.
    """

    def __init__(self, low: float = 100, high: float = 200) -> None:
        _check_thresholds(low, high)
        try:
            import cv2  # noqa: F401
        except ImportError:
            raise ValueError(
                "the detector canny needs OpenCV: pip install 'prefopt[control]' (opencv-python-headless); or use "
                "canny_torch, which needs nothing more"
            ) from None
        self.low, self.high = low, high
        self.name = f"canny:{low:g},{high:g}"

    def detect(self, images_BCHW: Tensor) -> Tensor:
        """(B, H, W) floats, 1 on edges, of images in [0, 1], which are rounded to bytes."""
        import cv2
        import numpy as np

        check_images(images_BCHW)
        bytes_BHWC = (images_BCHW.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        found = [cv2.Canny(np.ascontiguousarray(image), self.low, self.high) > 0 for image in bytes_BHWC]
        shape = (len(images_BCHW), *images_BCHW.shape[2:])
        edges = np.stack(found) if found else np.zeros(shape)
        return torch.from_numpy(edges).float().to(images_BCHW.device)


class TorchCanny(_Edges):
    """The same steps in torch: grey, blur, Sobel, thinning, and thresholds with hysteresis.

    Args:
        low, high: thresholds of the gradient, of images in [0, 1].

    Raises:
        ValueError: thresholds that are not 0 <= low <= high.
    """

    def __init__(self, low: float = 0.1, high: float = 0.2) -> None:
        _check_thresholds(low, high)
        if high > 8:
            raise ValueError(
                f"thresholds are {low:g} and {high:g}; needed those of images in [0, 1], whose gradients reach about 4: "
                "divide thresholds of 0..255 by 255"
            )
        self.low, self.high = low, high
        self.name = f"canny_torch:{low:g},{high:g}"

    @torch.no_grad()
    def detect(self, images_BCHW: Tensor) -> Tensor:
        """(B, H, W) floats, 1 on edges, of images in [0, 1]."""
        from scipy.ndimage import label

        check_images(images_BCHW)
        thin_BHW = thin_edges(images_BCHW.float()).cpu()
        edges_BHW = torch.zeros_like(thin_BHW)
        for thin_HW, edges_HW in zip(thin_BHW, edges_BHW, strict=True):
            # hysteresis: lines of weak edges that touch a strong one somewhere
            line_HW = torch.from_numpy(label((thin_HW > self.low).numpy(), structure=[[1] * 3] * 3)[0])
            strong = line_HW[thin_HW > self.high].unique()
            edges_HW.copy_(torch.isin(line_HW, strong))
        return edges_BHW.to(images_BCHW.device)

    def loss(self, images_BCHW: Tensor, labels: Labels) -> Tensor:
        """(B,) mean squared difference of thinned edge strength, at most 1, and the label.

        Which pixels are local maxima is taken as given, as the stage of thinning has no gradient.
        """
        labels_BHW = as_maps(labels)
        check_same(images_BCHW, labels_BHW)
        strength_BHW = thin_edges(images_BCHW.float()).clamp(max=1)
        return (strength_BHW - labels_BHW.to(strength_BHW)).square().mean((1, 2))


def thin_edges(images_BCHW: Tensor) -> Tensor:
    """(B, H, W) size of the gradient where it is greatest across the edge, elsewhere 0; of images in [0, 1].

    Grey and blur are rounded to levels of 255, as OpenCV does, so that rounding of sums decides nowhere which of two equal
    neighbours is the edge. Gradients pass as if there were no rounding.
    """
    if min(images_BCHW.shape[2:]) < 3:
        raise ValueError(
            f"images of {images_BCHW.shape[2]} x {images_BCHW.shape[3]} pixels have no edges: needed 3 or more a side"
        )
    share_C11 = images_BCHW.new_tensor(GREY)[:, None, None]
    grey_B1HW = _levels((255 * images_BCHW * share_C11).sum(1, keepdim=True))
    window_5 = torch.softmax(-(torch.arange(-2.0, 3.0, device=grey_B1HW.device) ** 2) / 2, 0)
    blur_1155 = torch.outer(window_5, window_5)[None, None]
    grey_B1HW = _levels(F.conv2d(F.pad(grey_B1HW, (2, 2, 2, 2), mode="reflect"), blur_1155))
    smooth_3, step_3 = grey_B1HW.new_tensor([1.0, 2.0, 1.0]), grey_B1HW.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth_3, step_3), torch.outer(step_3, smooth_3)])[:, None]
    x_BHW, y_BHW = F.conv2d(F.pad(grey_B1HW, (1, 1, 1, 1), mode="replicate"), kernels).unbind(1)
    square_BHW = x_BHW.square() + y_BHW.square()
    # the root of 0 has no finite gradient
    size_BHW = torch.where(square_BHW > 0, square_BHW.clamp(min=1e-6).sqrt(), 0.0)
    return size_BHW / 255 * _maxima(square_BHW.detach(), x_BHW.detach(), y_BHW.detach())


def _levels(x: Tensor) -> Tensor:
    """Rounded, to numbers that are exactly whole; the gradient of what comes in."""
    return x.detach().round() + (x - x.detach())


def _maxima(size_BHW: Tensor, x_BHW: Tensor, y_BHW: Tensor) -> Tensor:
    """Where the gradient is greater than on both sides, in the nearest of four directions.

    Of two equals in a row or column the first counts, and on a diagonal neither, as in OpenCV.
    """
    around = F.pad(size_BHW, (1, 1, 1, 1))
    height, width = size_BHW.shape[1:]

    def at(down: int, right: int) -> Tensor:
        return around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    flat = y_BHW.abs() < DIAGONAL * x_BHW.abs()
    steep = x_BHW.abs() < DIAGONAL * y_BHW.abs()
    falling = x_BHW * y_BHW >= 0
    horizontal = (size_BHW > at(0, -1)) & (size_BHW >= at(0, 1))
    vertical = (size_BHW > at(-1, 0)) & (size_BHW >= at(1, 0))
    down_right = (size_BHW > at(-1, -1)) & (size_BHW > at(1, 1))
    down_left = (size_BHW > at(-1, 1)) & (size_BHW > at(1, -1))
    diagonal = torch.where(falling, down_right, down_left)
    return torch.where(flat, horizontal, torch.where(steep, vertical, diagonal))


def _check_thresholds(low: float, high: float) -> None:
    if not 0 <= low <= high or not math.isfinite(high):
        raise ValueError(f"thresholds are {low:g} and {high:g}; needed 0 <= low <= high")
