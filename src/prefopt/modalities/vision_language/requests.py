"""What a vision-language model is asked: images, videos and a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prefopt.modalities.vision_language.video.videos import Video
from prefopt.sources.pictures import ImageRef


@dataclass(frozen=True)
class Request:
    """One question, answered by itself.

    Attributes:
        images: shown before the prompt; none for a question of text alone.
        prompt: the user's words, without placeholders of images and videos.
        videos: shown before the images, their frames chosen.
    """

    images: list[ImageRef]
    prompt: str
    videos: tuple[Video, ...] = ()


Answerer = Callable[[Sequence[Request]], list[str]]
"""Answers to requests, in their order."""
