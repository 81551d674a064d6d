"""Latents, prompt embeddings and control images of a run, computed once and kept on disk.

Legend: N items, H W in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.modalities.image.models.pipelines import LoadedPipeline
from prefopt.modalities.image.store import CachedImages
from prefopt.shards import ShardCache
from prefopt.sources.pictures import Crop, ImageRef, decode, geometry

BATCH = 64
SHARD_ITEMS = 64  # about 50 MB at 512 pixels
COLOURS = 256  # a coloured picture of no more is a map: its colours are names, and no colour between two means anything
LEVELS = 64  # a grey one of no more is a map too (class ids, edges); depth has more, and may be mixed


class CachedControls(CachedImages):
    """What a control model is trained on, by content key; see `CachedImages`."""

    def __init__(self, loaded: LoadedPipeline, resolution: int, crop: Crop, **options: Any) -> None:
        super().__init__(loaded, resolution, crop, **options)
        place = {"resolution": resolution, "crop": crop, "version": 2}
        self.identity = {**self.identity, "controls": place}
        self._controls = ShardCache("controls", place, dtype=np.uint8)
        self._held = {"": np.zeros(3 * resolution**2, np.uint8)}
        self._fresh: dict[str, np.ndarray] = {}

    def keep(self, made: Mapping[str, np.ndarray], for_good: bool = False) -> None:
        """Hold (3, H, W) 8-bit control images that were made in this run, in memory alone.

        Args:
            made: by key.
            for_good: or until the next ones come.
        """
        levels = {key: image.ravel() for key, image in made.items()}
        if for_good:
            self._held |= levels
        else:
            self._fresh = levels

    def add_controls(self, refs: Mapping[str, ImageRef]) -> tuple[int, dict[str, UnusableItem]]:
        """Resize control images that the cache lacks; returns how many, and what is wrong with those that cannot be decoded.

        Raises:
            UnusableItem: a file has gone since it was looked at.
        """

        def read(ref: ImageRef) -> np.ndarray:
            return as_control(ref, self.resolution, self.crop).ravel()

        return self.fill(
            self._controls, refs, read, list, batch=BATCH, shard_items=SHARD_ITEMS, label="Control images"
        )

    def controls(self, keys: Sequence[str]) -> Tensor:
        """(N, 3, H, W) float32 in [0, 1]; the empty key gives a black image."""
        levels = np.stack([self._levels(key) for key in keys])
        return torch.from_numpy(levels).view(-1, 3, self.resolution, self.resolution).float() / 255

    def _levels(self, key: str) -> np.ndarray:
        for made in (self._fresh, self._held):
            if key in made:
                return made[key]
        return self._controls[key]


def as_control(ref: ImageRef, resolution: int, crop: Crop) -> np.ndarray:
    """(3, H, W) uint8: resized and cut as `to_pixels` does to the image, maps of few colours by the nearest pixel.

    Raises:
        UnusableItem: it cannot be decoded.
    """
    from PIL import Image

    picture = decode(ref)
    new, (left, top) = geometry(picture.size, resolution, crop)
    if picture.size != new:
        how = Image.Resampling.NEAREST if is_map(picture) else Image.Resampling.BILINEAR
        picture = picture.resize(new, how)
    cut = picture.crop((left, top, left + resolution, top + resolution))
    return np.asarray(cut, dtype=np.uint8).transpose(2, 0, 1)


def is_map(picture: Any) -> bool:
    """Whether what lies between two of an RGB picture's colours means nothing: few colours, or very few levels of grey."""
    colours = picture.getcolors(COLOURS)
    if colours is None:
        return False
    grey = all(red == green == blue for _, (red, green, blue) in colours)
    return not grey or len(colours) <= LEVELS
