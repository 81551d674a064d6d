"""Pictures within texts and messages of a row: taken out, and a mark put in their places.

{"type": "image"}, with "image", "path", "url" or "base64" or bare       blocks of TRL's and transformers' messages
{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}  OpenAI's
<image>, <|image_pad|>, ...                                               placeholders of datasets and models
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.contrasts import Picture
from prefopt.modalities.vision_language.prompts import MARK
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
PLACEHOLDERS = (
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<image>",
    "<|image_pad|>",
    "<start_of_image>",
    "<IMG_CONTEXT>",
    "<|image|>",
    "[IMG]",
)


def with_marks(
    row: Mapping[str, Any], folder: Path, has_pictures: bool
) -> tuple[dict[str, Any], tuple[Picture, ...]]:
    """The row with marks in place of pictures, and the pictures that stood in its messages.

    Args:
        row: its texts.
        folder: where relative paths start.
        has_pictures: whether it has columns of pictures. Placeholders are marks only where there are pictures: elsewhere they
            are words.

    Raises:
        UnusableItem: a block holds no picture that can be read.
    """
    found: list[Picture] = []
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
                marked(message, found, folder) if isinstance(message, Mapping) else message
                for message in value
            ]
            if name != prompt and (name, prompt) == ("rejected", "chosen"):
                del found[before:]  # the same conversation's pictures, told a second time
        elif isinstance(value, str) and has_pictures and name == prompt:
            value = placed(value)
        out[name] = value
    if has_pictures or found:
        out = {
            name: in_messages(value) if isinstance(value, list) and name in TEXTS else value
            for name, value in out.items()
        }
    return out, tuple(found)


def placed(text: str) -> str:
    """A text with marks where placeholders stand."""
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, MARK)
    return text


def in_messages(messages: list[Any]) -> list[Any]:
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
            return {**message, key: placed(content)}
        if isinstance(content, list):
            parts = [
                {**part, "text": placed(part["text"])}
                if isinstance(part, Mapping) and isinstance(part.get("text"), str)
                else part
                for part in content
            ]
            return {**message, key: parts}
        return message

    return [changed(message) for message in messages]


def marked(message: Mapping[str, Any], found: list[Picture], folder: Path) -> Mapping[str, Any]:
    """A message with marks in place of its image blocks, whose pictures are added to `found`."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in ("image", "image_url"):
            parts.append(part)
            continue
        picture = picture_in(part, folder)
        if picture is not None:
            found.append(picture)
        parts.append({"type": "text", "text": MARK})
    return {**message, "content": parts}


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
