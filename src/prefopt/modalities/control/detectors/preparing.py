"""Images for a model of transformers, in torch and with gradients: rounded to bytes, resized, cut, normalised.

What to do is what the checkpoint's own image processor says, and is held against that processor: for each size of images, the
first image goes through both, and pixels that differ by more than rounding are an error. So a processor that does something
else is refused, not imitated badly. Legend: B images, C = 3, H W in pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prefopt.modalities.image.preprocessing import MODES

CLOSE = 2.0
"""Levels of 0..255 that two ways of resizing may differ by; each rounds twice."""


class Preparation:
    """From images in [0, 1] to the pixel values of a checkpoint.

    Rounding, which has no gradient, passes it on as it is.

    Args:
        source: folder or hub id.

    Raises:
        ValueError: no image processor there, or one that cannot be had without torchvision.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.processor: Any = image_processor(source)
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """(B, 3, height, width) in single precision.

        Raises:
            ValueError: the processor does what is not known here.
        """
        size = (images_BCHW.shape[2], images_BCHW.shape[3])
        if size not in self._sizes:
            self._sizes[size] = self._resized(size)
            self._check(images_BCHW[:1].detach(), self._sizes[size])
        return self._prepared(images_BCHW, self._sizes[size])

    def _prepared(self, images_BCHW: Tensor, resized: tuple[int, int]) -> Tensor:
        processor = self.processor
        x_BCHW = _bytes(images_BCHW.float() * 255)
        for size in ((x_BCHW.shape[2], resized[1]), resized):  # as Pillow: rows, then columns
            if size != tuple(x_BCHW.shape[2:]):
                x_BCHW = _bytes(
                    F.interpolate(
                        x_BCHW, size, mode=MODES[int(processor.resample)], align_corners=False, antialias=True
                    )
                )
        if getattr(processor, "do_center_crop", False):
            height, width = processor.crop_size["height"], processor.crop_size["width"]
            top, left = (x_BCHW.shape[2] - height) // 2, (x_BCHW.shape[3] - width) // 2
            x_BCHW = x_BCHW[:, :, max(top, 0) : top + height, max(left, 0) : left + width]
        x_BCHW = x_BCHW / 255
        if getattr(processor, "do_normalize", False):
            mean_C11, std_C11 = (
                torch.tensor(values, dtype=torch.float32, device=x_BCHW.device)[:, None, None]
                for values in (processor.image_mean, processor.image_std)
            )
            x_BCHW = (x_BCHW - mean_C11) / std_C11
        return x_BCHW

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size to which the processor resizes images of a size, before anything is cut off."""
        if not getattr(self.processor, "do_resize", True):
            return size
        resample = getattr(self.processor, "resample", None)
        if resample is None or int(resample) not in MODES:
            raise ValueError(
                f"{self.source} resizes images by Pillow's filter {resample}; needed 2 or 3 (bilinear, bicubic): set "
                "resample in its preprocessor_config.json"
            )
        blank = np.zeros((*size, 3), dtype=np.uint8)
        plain = self.processor(blank, do_normalize=False, do_center_crop=False, do_pad=False)
        height, width = np.asarray(plain["pixel_values"][0]).shape[-2:]
        return int(height), int(width)

    def _check(self, image_1CHW: Tensor, resized: tuple[int, int]) -> None:
        """Hold what is done here to one image against the processor."""
        levels_HWC = (image_1CHW[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        theirs = torch.as_tensor(np.asarray(self.processor(levels_HWC)["pixel_values"][0])).float()
        ours = self._prepared(image_1CHW, resized)[0].cpu()
        std = self.processor.image_std if getattr(self.processor, "do_normalize", False) else [1.0] * 3
        gap = None
        if theirs.shape == ours.shape:
            gap = ((theirs - ours) * torch.tensor(std)[:, None, None] * 255).abs().max().item()
        if gap is None or not gap <= CLOSE:
            what = f"sizes {tuple(ours.shape)}" if gap is None else f"pixels up to {gap:.3g} levels off"
            raise ValueError(
                f"the image processor of {self.source}, a {type(self.processor).__name__}, does more than resizing, cutting "
                f"and normalising, which is all that is done here ({what}, against {tuple(theirs.shape)}): give a checkpoint "
                "with a plain one, or a detector of your own as FILE.py:NAME"
            )


def image_processor(source: str) -> Any:
    """A checkpoint's image processor, the one that needs no torchvision.

    Raises:
        ValueError: there is none.
    """
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    except (OSError, ImportError, ValueError) as error:
        raise ValueError(
            f"{source} has no image processor that can be used here ({' '.join(str(error).split())[:200]}): needed a "
            "preprocessor_config.json of a class of transformers beside the weights, which save_pretrained of its "
            "processor writes"
        ) from None


def _bytes(x_BCHW: Tensor) -> Tensor:
    """Rounded and cut as bytes are; the gradient of what comes in."""
    return x_BCHW.detach().round().clamp(0, 255) + (x_BCHW - x_BCHW.detach())
