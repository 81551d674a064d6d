"""What a processor makes of a video: the tokens that stand for it in a text, and the tensors that the model reads.

A clip is prepared alone, once, whatever video it stands in, and has the same resolution in all of them; the tensors of a
video are those of its clips, one behind the other. Its text is written anew for each video by the processor itself, since it
numbers frames or tells their times. Clips that are prepared to another size begin a video of their own in the text. Where a
model adds something to each video as a whole (LLaVA-OneVision does), the clips of one are prepared together.

Legend: F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.kept import AROUND, Kept, name_of, told_settings
from prefopt.modalities.vision_language.video.preparing import preparer_of
from prefopt.modalities.vision_language.video.videos import Video
from prefopt.sources.videos import ClipRef, Footage, decode, probe, times_of

ClipUnit = tuple[ClipRef, ...]
"""Clips that are prepared together; mostly one."""
CLOCK = 1_000_000
"""Ticks a second of the times that processors are told: they divide a frame's number by a rate."""
GRID = "video_grid_thw"
KEPT_CLIPS, KEPT_TEXTS = 65_536, 256
"""Of which what was found out is kept in memory."""
PIXELS = ("pixel_values_videos", "pixel_values")


@dataclass(frozen=True)
class Shape:
    """What a clip's tensors look like, which is all that its text depends on.

    Attributes:
        time: steps that the model sees: frames, or pairs of them.
        rest: sides of one step.
        grid: whether the model counts patches in a grid.
    """

    time: int
    rest: tuple[int, ...]
    grid: bool

    @property
    def inputs(self) -> dict[str, Any]:
        """Tensors of this shape, which take no memory."""
        if self.grid:
            return {GRID: torch.tensor([[self.time, *self.rest]])}
        empty = torch.zeros(1).expand(1, self.time, *self.rest)
        return dict.fromkeys(PIXELS, empty)


class Clips:
    """A processor, clip by clip.

    Args:
        processor: of the model.
        image_token_id, video_token_id: of tokens at whose places the model puts features; None: it knows no videos.
    """

    def __init__(self, processor: Any, image_token_id: int, video_token_id: int | None) -> None:
        self.processor = processor
        self.placeholder: str = processor.video_token
        words = processor.tokenizer.get_vocab()
        around = set(AROUND) <= set(words)
        self.place = f"{AROUND[0]}{self.placeholder}{AROUND[1]}" if around else self.placeholder
        self._prepare = preparer_of(processor)
        self._shapes: dict[tuple[int, int, int], Shape] = {}
        self._counts: dict[Shape, int] = {}
        self._kept = Kept[dict[str, Tensor]]()
        self._tokens = {
            token: processor.tokenizer.convert_ids_to_tokens(token)
            for token in (image_token_id, video_token_id)
            if token is not None
        }
        self.image_token_id, self.video_token_id = image_token_id, video_token_id
        # asked for again and again where videos are put together anew: each time would look at the file
        self._probe: Callable[[ClipRef], Footage] = lru_cache(KEPT_CLIPS)(probe)
        self._times_of: Callable[[ClipRef], tuple[float, ...]] = lru_cache(KEPT_CLIPS)(times_of)
        # both answers of an example stand behind the same video, and other clips of the same lengths are told alike
        self._expansion = lru_cache(KEPT_TEXTS)(self._expanded)
        self._told = lru_cache(KEPT_TEXTS)(self._asked)
        self._token: int | None = None
        self._additive: bool | None = None

    @property
    def note(self) -> str | None:
        """What is to be told of how frames are prepared."""
        return self._prepare.note

    @property
    def settings(self) -> str:
        """Digest of all that frames' tensors depend on beside the frames."""
        part = self.processor.video_processor
        told = part.to_dict() if hasattr(part, "to_dict") else dict(part)
        return told_settings({**told, "by": self._prepare.note or "torchvision"})

    # -- text ------------------------------------------------------------------------------------------------

    def token(self, video: Video) -> int:
        """Id of the token that stands for features of a video: the model's own for videos, or that for images."""
        if self._token is None:
            text = self._written(self._shape(video.clips[:1]), (video.clips[0],), 0.0)
            held = {token: text.count(word) for token, word in self._tokens.items()}
            self._token = max(held, key=lambda token: held[token])
        return self._token

    @property
    def as_images(self) -> bool:
        """Whether frames are images to the model; known once a text was written."""
        return self._token == self.image_token_id

    def expansion(self, video: Video) -> str:
        """What stands in a text for this video, in place of the placeholder."""
        return self._expansion(video)

    def _expanded(self, video: Video) -> str:
        self.token(video)
        begun = 0.0
        parts = []
        for _, group in groupby(video.clips, key=lambda clip: self._shape((clip,)).rest):
            clips = tuple(group)
            parts.append(self._written(self._joined(clips), clips, begun))
            begun += sum(self._probe(clip).duration_s for clip in clips)
        before, after = self.place.split(self.placeholder)
        return f"{after}{before}".join(parts)

    def units(self, video: Video) -> list[ClipUnit]:
        """The clips of a video as they are prepared."""
        if len(video.clips) == 1:
            return [video.clips]
        if self._additive is None:
            first, second = video.clips[:2]
            alone = sum(self._count(Video((clip,))) for clip in (first, second))
            self._additive = self._count(Video((first, second))) == alone
        return [(clip,) for clip in video.clips] if self._additive else [video.clips]

    def tokens(self, unit: ClipUnit) -> int:
        """Tokens that stand for features of a unit."""
        if len(unit) > 1:
            return self._count(Video(unit))
        shape = self._shape(unit)
        if shape not in self._counts:
            self._counts[shape] = self._count(Video(unit))
        return self._counts[shape]

    def grids(self, video: Video) -> Tensor | None:
        """(groups, 3) patches along time, height and width of each video in the text, where the model counts them."""
        found = [
            self._joined(tuple(group))
            for _, group in groupby(video.clips, key=lambda clip: self._shape((clip,)).rest)
        ]
        return torch.cat([shape.inputs[GRID] for shape in found]) if found[0].grid else None

    def _count(self, video: Video) -> int:
        return self.expansion(video).count(self._tokens[self.token(video)])

    def _joined(self, clips: ClipUnit) -> Shape:
        shapes = [self._shape((clip,)) for clip in clips]
        return Shape(sum(shape.time for shape in shapes), shapes[0].rest, shapes[0].grid)

    def _written(self, shape: Shape, clips: ClipUnit, begun: float) -> str:
        """The processor's own words for tensors of a shape."""
        seconds: list[float] = []
        end = begun
        for clip in clips:
            seconds += [end + time for time in self._even(self._times_of(clip))]
            end += self._probe(clip).duration_s
        total = max(len(seconds), round((end - begun) * CLOCK))
        return self._told(shape, total, end, tuple(round(time * CLOCK) for time in seconds))

    def _asked(self, shape: Shape, total: int, duration_s: float, ticks: tuple[int, ...]) -> str:
        from transformers.video_utils import VideoMetadata

        metadata = VideoMetadata(
            total_num_frames=total, fps=CLOCK, duration=duration_s, frames_indices=list(ticks)
        )
        told = {**shape.inputs, "video_metadata": [metadata]}
        return str(self.processor.replace_video_token(told, video_idx=0))

    def _even(self, seconds: Sequence[float]) -> list[float]:
        """Times of a clip's frames, the last repeated to fill the model's last step, as its pixels are."""
        step = self._prepare.step
        return [*seconds, *[seconds[-1]] * (-len(seconds) % step)]

    # -- tensors ---------------------------------------------------------------------------------------------

    def _shape(self, unit: ClipUnit) -> Shape:
        """Shape of one clip's tensors; prepares one clip of each size and number of frames."""
        (clip,) = unit
        facts = self._probe(clip)
        key = (facts.width, facts.height, len(clip.frames or ()))
        if key not in self._shapes:
            tensors = self.processed(unit)
            if GRID in tensors:
                time, *rest = tensors[GRID][0].tolist()
                self._shapes[key] = Shape(time, tuple(rest), grid=True)
            else:
                (pixels,) = (tensors[name] for name in PIXELS if name in tensors)
                sides = tuple(pixels.shape)
                self._shapes[key] = Shape(key[2], sides[-3:], grid=False)
        return self._shapes[key]

    def processed(self, unit: ClipUnit) -> dict[str, Tensor]:
        """Tensors of clips as the model reads them, by its names.

        Raises:
            UnusableItem: frames cannot be decoded, or the processor refuses them.
        """
        key = name_of(unit)
        found = self._kept.get(key)
        if found is None:
            made = self._made(unit)
            found = self._kept.put(key, made, made)
        return dict(found)

    def _made(self, unit: ClipUnit) -> dict[str, Tensor]:
        import numpy as np

        shown = [decode(clip) for clip in unit]
        pixels_FHW3 = np.concatenate([one.pixels_FHW3 for one in shown])
        try:
            return self._prepare(pixels_FHW3)
        except (ValueError, TypeError, IndexError, RuntimeError, ZeroDivisionError) as error:
            names = ", ".join(clip.name for clip in unit)
            raise UnusableItem(
                f"{names}: {type(self.processor).__name__} refuses its frames ({' '.join(str(error).split())[:200]})",
                "unusable_video",
            ) from None
