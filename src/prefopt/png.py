"""Pictures of numbers as 8-bit levels, and as files.

Shapes: C = 3 channels, H W in pixels.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def as_levels(picture_CHW: Tensor) -> np.ndarray[Any, Any]:
    """(H, W, 3) uint8 of a picture in [0, 1]; what lies outside is cut off."""
    levels: np.ndarray[Any, Any] = (
        picture_CHW.detach().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
    )
    return levels


def as_png(levels_HWC: np.ndarray[Any, Any]) -> bytes:
    """A file of 8-bit pixels, without loss."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(levels_HWC).save(file, format="PNG")
    return file.getvalue()
