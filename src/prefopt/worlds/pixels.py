"""Pictures of worlds as tensors and as files: float32 in [0, 1], 8 bits a channel where they are stored."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt import png

SIDE = 16
"""Rows and columns in pixels, where a world does not say otherwise."""


def as_batch(images: Any, side: int = SIDE) -> Tensor:
    """Pictures as a (B, 3, side, side) tensor.

    Args:
        images: that tensor; or a sequence of PIL images, of `{"bytes": PNG}` as `datasets` has them, or of
            (3, side, side) tensors in [0, 1].
        side: of the world's pictures, in pixels.

    Raises:
        ValueError: another shape.
    """
    if not isinstance(images, Tensor):
        each = [_as_tensor(image) for image in images]
        for image in each:
            _check_size(image.shape, side)
        images = torch.stack(each) if each else torch.zeros(0, 3, side, side)
    elif images.ndim != 4:
        raise ValueError(f"needed (B, 3, {side}, {side}) pictures; given {tuple(images.shape)}")
    else:
        _check_size(images.shape[1:], side)
    if not images.is_floating_point():
        return images.float() / 255
    return images if images.dtype == torch.float64 else images.float()


def _check_size(shape: Sequence[int], side: int) -> None:
    if tuple(shape) != (3, side, side):
        raise ValueError(
            f"a picture of this world is (3, {side}, {side}); given {tuple(shape)}. Generate at the model's own size"
        )


def _as_tensor(image: Any) -> Tensor:
    if isinstance(image, Tensor):
        return image
    from PIL import Image

    if isinstance(image, dict):
        image = Image.open(io.BytesIO(image["bytes"]) if image.get("bytes") else image["path"])
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def as_png(image_CHW: Tensor) -> dict[str, Any]:
    """A picture as `datasets.Image` stores it: `{"bytes": PNG, "path": None}`. 8 bits a channel."""
    return {"bytes": png.as_png(png.as_levels(image_CHW)), "path": None}
