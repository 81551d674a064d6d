"""What a condition shows beside its words: pictures and videos, in the order of their places in the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.prompts import MARK, VIDEO_MARK
from prefopt.modalities.vision_language.video.videos import Video

Medium = Picture | Video


def pictures_of(condition: Mapping[str, Any]) -> tuple[Medium, ...]:
    """The pictures and videos of a condition, in the order of their places in the prompt."""
    return tuple(condition.get("pictures") or ())


def marks_of(media: Iterable[Medium]) -> str:
    """The marks of their places."""
    return "".join(VIDEO_MARK if isinstance(medium, Video) else MARK for medium in media)
