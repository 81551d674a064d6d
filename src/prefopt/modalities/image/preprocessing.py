"""Images for a CLIP-like model, as tensors and without torchvision: resize, crop, normalise.

Gives what the checkpoint's own processor gives for the same images in bytes: rounding included, so that an image and the
file it was saved to get the same score. Shapes: B images, C = 3, H, W.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of filters that torch has with the same anti-aliasing."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImagePreprocessing:
    """From images in [0, 1] to pixel values.

    Attributes:
        size: (height, width) to resize to, a number for the short side, None for no resizing.
        crop: (height, width) to cut from the centre; None: nothing.
        mode: of the interpolation.
        mean, std: of each channel.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    mode: str = "bicubic"
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """Pixel values, (B, 3, height, width), in single precision."""
        x_BCHW = _bytes(images_BCHW.float() * 255)
        if self.size is not None:
            height, width = self._resized(*x_BCHW.shape[2:])
            for size in ((x_BCHW.shape[2], width), (height, width)):  # as Pillow: rows, then columns
                if size != tuple(x_BCHW.shape[2:]):
                    x_BCHW = _bytes(
                        F.interpolate(x_BCHW, size, mode=self.mode, align_corners=False, antialias=True)
                    )
        if self.crop is not None:
            (height, width), (h, w) = x_BCHW.shape[2:], self.crop
            if h > height or w > width:
                raise ValueError(
                    f"images are {height} x {width} after resizing, smaller than the crop {h} x {w}"
                )
            top, left = (height - h) // 2, (width - w) // 2
            x_BCHW = x_BCHW[:, :, top : top + h, left : left + w]
        mean_C11, std_C11 = (
            torch.tensor(v, device=x_BCHW.device)[:, None, None] for v in (self.mean, self.std)
        )
        return (x_BCHW / 255 - mean_C11) / std_C11

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.size, int):
            assert self.size is not None
            return self.size
        short, long = sorted((height, width))
        other = int(self.size * long / short)  # rounded down, as transformers does
        return (self.size, other) if height <= width else (other, self.size)

    @classmethod
    def of(cls, source: str, image_size: int = 224) -> ImagePreprocessing:
        """As a checkpoint's `preprocessor_config.json` (or `processor_config.json`) says.

        Args:
            source: folder or hub id.
            image_size: of the model; with CLIP's mean and deviation used where the checkpoint says nothing, which a
                warning tells.
        """
        from transformers.image_processing_base import ImageProcessingMixin

        try:
            values, _ = ImageProcessingMixin.get_image_processor_dict(source)
        except OSError:
            warnings.warn(
                f"{source} has no preprocessor_config.json: images are resized to {image_size} and normalised as CLIP "
                "was trained",
                stacklevel=2,
            )
            return cls(image_size, (image_size, image_size))
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImagePreprocessing:
        """From the values of a preprocessor configuration; what is absent is as for CLIP.

        Raises:
            ValueError: a size, filter or scale that is not known here.
        """
        size: tuple[int, int] | int | None = None
        if values.get("do_resize", True):
            size = _size(values.get("size", 224), "size")
        crop = None
        if values.get("do_center_crop", True):
            given = _size(values.get("crop_size", 224), "crop_size")
            crop = (given, given) if isinstance(given, int) else given
        mode = values.get("resample", 3)
        scale = values.get("rescale_factor", 1 / 255)
        if mode not in MODES or not values.get("do_rescale", True) or abs(scale * 255 - 1) > 1e-6:
            raise ValueError(
                f"the preprocessor has resample {mode}, do_rescale {values.get('do_rescale', True)} and rescale_factor "
                f"{scale:g}; needed resample 2 or 3 (bilinear, bicubic) and bytes scaled by 1/255"
            )
        mean, std = tuple(values.get("image_mean", CLIP_MEAN)), tuple(values.get("image_std", CLIP_STD))
        if not values.get("do_normalize", True):
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        return cls(size, crop, MODES[mode], mean, std)


def _bytes(x_BCHW: Tensor) -> Tensor:
    """Rounded and cut as bytes are, still as floats; cubic filters overshoot."""
    return x_BCHW.round().clamp(0, 255)


def _size(value: Any, name: str) -> tuple[int, int] | int:
    """A size in any of the forms that configurations had over the years."""
    if isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        given = {k: v for k, v in value.items() if v is not None}
        if set(given) == {"shortest_edge"}:
            return int(given["shortest_edge"])
        if set(given) == {"height", "width"}:
            return int(given["height"]), int(given["width"])
    raise ValueError(
        f"the preprocessor has {name} {value!r}; needed a number, shortest_edge, or height and width"
    )
