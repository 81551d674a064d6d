"""A video as a film strip: one frame of each clip in order, the anchor in a frame of its own colour."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from prefopt.modalities.vision_language.video.videos import Video
from prefopt.sources.videos import ClipRef, decode, frame_indices

if TYPE_CHECKING:
    from PIL import Image

HEIGHT = 96
"""Most pixels of a frame in a strip; of smaller ones each pixel becomes as many as fit."""
MOST = 12
"""Frames of a strip."""
EDGE = 3
GAP, ANCHOR = (255, 255, 255), (230, 159, 0)


def strip_of(video: Video, anchor: ClipRef | None = None) -> Image.Image:
    """A picture of a video.

    Args:
        video: one clip is shown in several frames, of several clips one each.
        anchor: to be marked; None: none is.
    """
    from PIL import Image

    shown = [(one_frame(clip), clip == anchor) for clip in chosen(video)]
    height = max(frame.height for frame, _ in shown) + 2 * EDGE
    width = sum(frame.width + 2 * EDGE for frame, _ in shown)
    strip = Image.new("RGB", (width, height), GAP)
    left = 0
    for frame, marked in shown:
        if marked:
            strip.paste(ANCHOR, (left, 0, left + frame.width + 2 * EDGE, frame.height + 2 * EDGE))
        strip.paste(frame, (left + EDGE, EDGE))
        left += frame.width + 2 * EDGE
    return strip


def chosen(video: Video) -> list[ClipRef]:
    """Clips of one frame each, in order."""
    if len(video.clips) == 1:
        frames = video.clips[0].frames or ()
        return [
            replace(video.clips[0], frames=(frames[k],))
            for k in frame_indices(len(frames), min(MOST, len(frames)))
        ]
    clips = [video.clips[k] for k in frame_indices(len(video.clips), min(MOST, len(video.clips)))]
    return clips


def one_frame(clip: ClipRef) -> Image.Image:
    """The frame in the middle of a clip, as high as `HEIGHT` or a little less."""
    from PIL import Image

    frames = clip.frames or ()
    pixels_FHW3 = decode(replace(clip, frames=(frames[len(frames) // 2],))).pixels_FHW3
    image = Image.fromarray(pixels_FHW3[0])
    if image.height > HEIGHT:
        return image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT))
    times = HEIGHT // image.height
    return image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
