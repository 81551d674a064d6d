"""Contrast pictures made of a picture's own pixels, as 8-bit files."""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from prefopt.modalities.vision_language.building.album import Album
from prefopt.modalities.vision_language.contrasts import NOISE_STEP, Picture, alpha_bar
from prefopt.sources.pictures import decode

if TYPE_CHECKING:
    from PIL import Image

PixelChange = Literal["black", "crop", "mask", "noise"]
PIXEL_CHANGES: tuple[PixelChange, ...] = ("black", "crop", "mask", "noise")
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of pixels in [0, 1], by channel: CLIP's, with which LLaVA normalises."""


def changed(picture: Picture, change: PixelChange, seed: int, album: Album) -> Picture:
    """A picture made of another, as a file of the album named by content, change and seed.

    Args:
        picture: as it is in the data.
        change: see `contrasts`.
        seed: of the change.
        album: where it is kept.

    Raises:
        UnusableItem: the picture cannot be decoded.
    """
    made = Picture(picture.ref, change, seed)
    if album.file(made.digest).exists():
        return album.made(made.digest)
    image = noised(decode(picture.ref), made.digest) if change == "noise" else made.image()
    return album.keep(image, made.digest)


def noised(image: Image.Image, name: str) -> Image.Image:
    """Step 500 of 1000 of forward diffusion, as CHiP and POVID noise a model's input, brought back to 8 bits.

    The noise is that of each pixel of the file, and what leaves [0, 255] is cut off. Training with contrast_image=noise noises
    the model's own input, exactly.

    Args:
        image: 8-bit RGB.
        name: draws the noise.
    """
    import numpy as np
    from PIL import Image

    digest = blake2b(name.encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(digest, "little"))
    mean_3, std_3 = np.array(MEAN), np.array(STD)
    seen_HW3 = (np.array(image) / 255 - mean_3) / std_3
    kept = alpha_bar(NOISE_STEP)
    seen_HW3 = math.sqrt(kept) * seen_HW3 + math.sqrt(1 - kept) * random.standard_normal(seen_HW3.shape)
    levels_HW3 = np.clip(seen_HW3 * std_3 + mean_3, 0, 1) * 255
    return Image.fromarray(levels_HW3.round().astype(np.uint8))
