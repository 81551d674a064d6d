"""Pictures as a model sees them: an image of the data, or one made of it to contrast with it.

    crop    a random rectangle of 1 to 20 % of the area (mDPO, arXiv 2406.11839)
    black   every pixel black
    mask    30 % of the cells of a grid blackened (OPA-DPO, arXiv 2501.09695)
    noise   step 500 of 1000 of forward diffusion, on the model's normalised input (CHiP, POVID)
    blank   the model's normalised input made zero: no image at all (V-DPO)

All draws follow from a seed and the image's content, so that a reference's scores can be cached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from prefopt.sources.pictures import ImageRef, decode

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

Change = Literal["crop", "black", "mask", "noise", "blank"]
CHANGES: tuple[Change, ...] = ("crop", "black", "mask", "noise", "blank")
CROP_AREA = (0.01, 0.2)
MASK_SHARE = 0.3
MASK_CELLS = 24
"""Cells of a side of the grid: 336 pixels in patches of 14, LLaVA-1.5's."""
NOISE_STEP, NOISE_STEPS = 500, 1000
LEAST = 1e-6
"""In place of zero pixels: some models take an image that is zero everywhere for padding."""


@dataclass(frozen=True)
class Picture:
    """One image of a condition.

    Attributes:
        ref: where the image is.
        change: what is made of it; None: it is seen as it is.
        seed: of the change.
    """

    ref: ImageRef
    change: Change | None = None
    seed: int = 0

    @property
    def digest(self) -> str:
        """Names content and change."""
        return self.ref.digest if self.change is None else f"{self.ref.digest}-{self.change}-{self.seed}"

    def __str__(self) -> str:
        return self.digest

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image that the processor is given."""
        if self.change != "crop":
            return self.ref.size
        left, top, right, bottom = crop_box(self.ref.size, self._random())
        return right - left, bottom - top

    def _random(self) -> np.random.Generator:
        import numpy as np

        name = blake2b(f"{self.ref.digest} {self.change} {self.seed}".encode(), digest_size=8)
        return np.random.default_rng(int.from_bytes(name.digest(), "little"))

    def image(self) -> Image.Image:
        """8-bit RGB, changed where the change is one of pixels."""
        image = decode(self.ref)
        match self.change:
            case "crop":
                return image.crop(crop_box(image.size, self._random()))
            case "black":
                return masked(image, 1.0, self._random())
            case "mask":
                return masked(image, MASK_SHARE, self._random())
        return image

    def seen(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a processor made of the image, changed where the change is one of normalised pixels."""
        if self.change not in ("noise", "blank"):
            return tensors
        import torch

        seed = int(self._random().integers(2**63))

        def changed(name: str, value: Tensor) -> Tensor:
            if not (name.startswith("pixel_values") and value.is_floating_point()):
                return value
            if self.change == "blank":
                return torch.full_like(value, LEAST)
            generator = torch.Generator().manual_seed(seed)
            kept = alpha_bar(NOISE_STEP)
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            return math.sqrt(kept) * value + math.sqrt(1 - kept) * noise

        return {name: changed(name, value) for name, value in tensors.items()}


def crop_box(size: tuple[int, int], random: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a rectangle of a small share of the area, of the image's own proportions.

    Args:
        size: width and height in pixels.
        random: draws share and place.
    """
    width, height = size
    side = math.sqrt(random.uniform(*CROP_AREA))
    across, down = max(1, round(side * width)), max(1, round(side * height))
    left = int(random.integers(width - across + 1))
    top = int(random.integers(height - down + 1))
    return left, top, left + across, top + down


def masked(image: Image.Image, share: float, random: np.random.Generator) -> Image.Image:
    """An image with a share of the cells of a grid blackened."""
    import numpy as np
    from PIL import Image

    pixels_HW3 = np.array(image)
    height, width = pixels_HW3.shape[:2]
    rows, columns = min(MASK_CELLS, height), min(MASK_CELLS, width)
    hidden = np.zeros(rows * columns, bool)
    hidden[random.permutation(rows * columns)[: round(share * rows * columns)]] = True
    cells_HW = hidden.reshape(rows, columns)[
        np.ix_(np.arange(height) * rows // height, np.arange(width) * columns // width)
    ]
    pixels_HW3[cells_HW] = 0
    return Image.fromarray(pixels_HW3)


def alpha_bar(step: int) -> float:
    """Share of the image's variance that is left after so many steps of noise (the authors' schedule).

    b_t = sigma(u_t) (0.005 - 1e-5) + 1e-5, u from -6 to 6 over 1000 steps; alpha_bar is the product of 1 - b.

    >>> round(alpha_bar(500), 4)
    0.7448
    """
    import numpy as np

    u = np.linspace(-6, 6, NOISE_STEPS)
    b = (0.005 - 1e-5) / (1 + np.exp(-u)) + 1e-5
    return float(np.prod(1 - b[: step + 1]))


def altered(pictures: Any, change: Change, seed: int) -> tuple[Picture, ...]:
    """The same pictures, each changed."""
    return tuple(Picture(picture.ref, change, seed) for picture in pictures)
