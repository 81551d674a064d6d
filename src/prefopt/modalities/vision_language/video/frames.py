"""Frames of a clip as images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefopt.sources.videos import ClipRef, decode

if TYPE_CHECKING:
    from PIL import Image


def images_of(clip: ClipRef) -> list[Image.Image]:
    """The chosen frames as 8-bit RGB, upright, in order.

    Args:
        clip: with its frames chosen.

    Raises:
        UnusableItem: they cannot be decoded.
    """
    from PIL import Image

    return [Image.fromarray(pixels_HW3) for pixels_HW3 in decode(clip).pixels_FHW3]
