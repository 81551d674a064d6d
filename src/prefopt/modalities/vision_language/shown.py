"""What a batch of prompts shows: its distinct pictures and clips, and what the model is given of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prefopt.modalities.vision_language.expanding import AnyUnit, Expander
from prefopt.modalities.vision_language.images import merged_of
from prefopt.modalities.vision_language.kept import name_of
from prefopt.modalities.vision_language.media import Medium
from prefopt.modalities.vision_language.streams import CHUNK_BYTES, Stream, Streams, in_chunks
from prefopt.modalities.vision_language.video.videos import Video

if TYPE_CHECKING:
    from prefopt.modalities.vision_language.feature_cache import FeatureCache

GRIDS = ("image_grid_thw", "video_grid_thw")
CALLED_WITH = {"image": "pixel_values", "video": "pixel_values_videos"}
"""What makes a model ask for features of a kind."""


class Shown:
    """Distinct units of a batch.

    Args:
        expander: the model's processor.
        cache: where features come from; None: from the model.
        media: of each item.

    Attributes:
        units: each once.
        numbers: of each item: which units it shows, in the order of their tokens.
        tokens_of: tokens of each unit.
    """

    def __init__(
        self, expander: Expander, cache: FeatureCache | None, media: Sequence[Sequence[Medium]]
    ) -> None:
        self.expander, self.cache = expander, cache
        self.units: list[AnyUnit] = []
        number: dict[str, int] = {}
        self.numbers: list[list[int]] = []
        for of_item in media:
            own = []
            for unit in expander.units(of_item):
                name = name_of(unit)
                if name not in number:
                    number[name] = len(self.units)
                    self.units.append(unit)
                own.append(number[name])
            self.numbers.append(own)
        self.tokens_of = [expander.tokens(unit) for unit in self.units]

    def streams(self, order: Sequence[int]) -> Streams:
        """What the model is given, and where it goes.

        Args:
            order: which unit each of those in the rows is, row by row.
        """
        found = Streams()
        for kind in CALLED_WITH:
            own = [
                n for n, unit in enumerate(self.units) if self.expander.in_videos(unit) == (kind == "video")
            ]
            if not own:
                continue
            place = {n: k for k, n in enumerate(own)}
            units = [self.units[n] for n in own]
            tokens_of = tuple(self.tokens_of[n] for n in own)
            places = tuple(place[n] for n in order if n in place)
            if self.cache is None:
                clips = any(self.expander.is_clip(unit) for unit in units)
                chunks = in_chunks(list(map(self.expander.tensors, units)), CHUNK_BYTES if clips else None)
                found[kind] = Stream(chunks, tokens_of, places)
            else:
                features_FSD = self.cache.features(units)
                found[kind] = Stream((), tokens_of, places, features_FSD, self.cache.forms[kind])
        return found

    def grids(self, media: Sequence[Medium]) -> dict[str, Tensor]:
        """Patches along time, height and width of what one item shows, for models that count positions by them."""
        found: dict[str, list[Tensor]] = {name: [] for name in GRIDS}
        videos = [medium for medium in media if isinstance(medium, Video)]
        for video in videos:
            grid = self.expander.clips.grids(video)
            if grid is not None:
                found["video_grid_thw"].append(grid)
        for unit in self.expander.units([medium for medium in media if not isinstance(medium, Video)]):
            grid = self._grid(unit)
            if grid is not None:
                found["image_grid_thw"].append(grid)
        return {name: torch.cat(grids) for name, grids in found.items() if grids}

    def _grid(self, unit: AnyUnit) -> Tensor | None:
        if self.cache is not None:
            return self.cache.grid(unit)
        return self.expander.tensors(unit).get("image_grid_thw")

    def whole(self, media: Sequence[Sequence[Medium]]) -> dict[str, Tensor]:
        """What the model is given where it puts features in their places itself: each unit as often as it is shown."""
        found: dict[str, Tensor] = {}
        shown = [unit for of_item in media for unit in self.expander.units(of_item)]
        for kind in CALLED_WITH:
            own = [unit for unit in shown if self.expander.in_videos(unit) == (kind == "video")]
            found |= merged_of(list(map(self.expander.tensors, own)))
        grids = [self.grids(of_item) for of_item in media]
        for name in GRIDS:
            if name in found:  # of a video's clips together, since its positions are counted by them
                found[name] = torch.cat([grid[name] for grid in grids if name in grid])
        return found
