"""Pictures and videos within texts and messages of a row: taken out, and a mark put in their places.

{"type": "image"}, with "image", "path", "url" or "base64" or bare       blocks of TRL's and transformers' messages
{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}  OpenAI's
{"type": "video"}, with "video", "path" or "url"; {"type": "video_url"}   videos of TRL's, transformers' and servers' messages
<image>, <|image_pad|>, <video>, ...                                      placeholders of datasets and models
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.media import Medium, marks_of
from prefopt.modalities.vision_language.prompts import MARK, VIDEO_MARK
from prefopt.modalities.vision_language.video.rows import VideoColumns
from prefopt.modalities.vision_language.video.videos import Video
from prefopt.sources import cells
from prefopt.sources.chat_text import messages_in
from prefopt.sources.pictures import as_ref, problem

TEXTS = (
    "prompt",
    "instruction",
    "input",
    "question",
    "conversations",
    "messages",
    "chosen",
    "rejected",
    "completion",
)
PLACEHOLDERS = {
    MARK: (
        "<|vision_start|><|image_pad|><|vision_end|>",
        "<image>",
        "<|image_pad|>",
        "<start_of_image>",
        "<IMG_CONTEXT>",
        "<|image|>",
        "[IMG]",
    ),
    VIDEO_MARK: ("<|vision_start|><|video_pad|><|vision_end|>", "<video>", "<|video_pad|>", "<|video|>"),
}
BLOCKS = {"image": MARK, "image_url": MARK, "video": VIDEO_MARK, "video_url": VIDEO_MARK}
"""Kinds of blocks."""


def with_marks(
    row: Mapping[str, Any], videos: VideoColumns, kinds: frozenset[str]
) -> tuple[dict[str, Any], tuple[Medium, ...]]:
    """The row with marks in place of pictures and videos, and those that stood in its messages.

    Args:
        row: its texts.
        videos: reads videos, and knows where relative paths start.
        kinds: marks of what its columns hold. Placeholders are marks only where there is something of their kind: elsewhere
            they are words.

    Raises:
        UnusableItem: a block holds nothing that can be read.
    """
    found: list[Medium] = []
    out = dict(row)
    prompt = next((name for name in TEXTS if row.get(name) is not None), None)
    for name in TEXTS:
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, str) and (spelled := messages_in(value)) is not None:
            value = spelled
        if isinstance(value, Mapping):
            value = [value]
        if isinstance(value, list):
            before = len(found)
            value = [
                marked(message, found, videos) if isinstance(message, Mapping) else message
                for message in value
            ]
            if name != prompt and (name, prompt) == ("rejected", "chosen"):
                del found[before:]  # the same conversation's pictures, told a second time
        elif isinstance(value, str) and kinds and name == prompt:
            value = placed(value, kinds)
        out[name] = value
    kinds |= frozenset(marks_of(found))
    if kinds:
        out = {
            name: in_messages(value, kinds) if isinstance(value, list) and name in TEXTS else value
            for name, value in out.items()
        }
    return out, tuple(found)


def placed(text: str, kinds: frozenset[str]) -> str:
    """A text with marks where placeholders of these kinds stand; LLaVA's data writes <image> for a video, too."""
    for mark, placeholders in PLACEHOLDERS.items():
        for placeholder in placeholders if mark in kinds else ():
            text = text.replace(placeholder, mark)
    if kinds == {VIDEO_MARK} and VIDEO_MARK not in text:
        text = text.replace("<image>", VIDEO_MARK)
    return text


def in_messages(messages: list[Any], kinds: frozenset[str]) -> list[Any]:
    """Messages with marks where placeholders stand in what the user says."""

    def changed(message: Any) -> Any:
        if not isinstance(message, Mapping):
            return message
        role = message.get("role", message.get("from"))
        key = "content" if "content" in message else "value"
        content = message.get(key)
        if role not in ("user", "human"):
            return message
        if isinstance(content, str):
            return {**message, key: placed(content, kinds)}
        if isinstance(content, list):
            parts = [
                {**part, "text": placed(part["text"], kinds)}
                if isinstance(part, Mapping) and isinstance(part.get("text"), str)
                else part
                for part in content
            ]
            return {**message, key: parts}
        return message

    return [changed(message) for message in messages]


def marked(message: Mapping[str, Any], found: list[Medium], videos: VideoColumns) -> Mapping[str, Any]:
    """A message with marks in place of its blocks of images and videos, which are added to `found`."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts: list[Any] = []
    for part in content:
        mark = BLOCKS.get(str(part.get("type"))) if isinstance(part, Mapping) else None
        if mark is None:
            parts.append(part)
            continue
        medium = picture_in(part, videos.folder) if mark == MARK else video_in(part, videos)
        if medium is not None:
            found.append(medium)
        parts.append({"type": "text", "text": mark})
    return {**message, "content": parts}


def video_in(block: Mapping[str, Any], videos: VideoColumns) -> Video | None:
    """The video of a block; None where it only says that one stands here."""
    keys = ("video", "path", "url", "video_url")
    value = next((block[key] for key in keys if block.get(key) is not None), None)
    if isinstance(value, Mapping) and "url" in value:
        value = value["url"]
    return None if value is None else videos.video(value, "video block")


def picture_in(block: Mapping[str, Any], folder: Path) -> Picture | None:
    """The picture of an image block; None where it only says that one stands here."""
    value = next(
        (block[key] for key in ("image", "path", "url", "base64", "image_url") if block.get(key) is not None),
        None,
    )
    if value is None:
        return None
    if isinstance(value, Mapping) and "url" in value:
        value = value["url"]
    if isinstance(value, str) and (value.startswith("data:image/") or block.get("base64") == value):
        _, _, encoded = value.rpartition(",")
        try:
            value = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise UnusableItem(
                f"an image block holds {cells.shown(value)}, which is not base64", "broken_image"
            ) from None
    ref = as_ref(value, "image block", folder)
    if error := problem(ref, thorough=False):
        raise error
    return Picture(ref)
