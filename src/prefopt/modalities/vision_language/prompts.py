"""Prompts with pictures as text: where pictures stand, the chat template, the placeholders that a processor expands.

Within prefopt a picture's place in a text is `MARK`, a character that no text has, and a video's `VIDEO_MARK`. Rows are brought to
that form when they are read; here it becomes what the model's template or tokenizer wants.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

MARK, VIDEO_MARK = "\ufdd0", "\ufdd1"
"""Noncharacters of Unicode, for use within a program."""
KINDS = {MARK: "image", VIDEO_MARK: "video"}
"""What stands at a mark, as templates and messages name it."""

MARKED = re.compile(f"([{MARK}{VIDEO_MARK}])")

Messages = Sequence[Mapping[str, Any]]


def in_blocks(messages: Messages) -> list[dict[str, Any]]:
    """Messages whose contents are lists of text and image blocks, as templates of vision-language models read them."""
    return [{**message, "content": blocks(message.get("content"))} for message in messages]


def in_strings(messages: Messages, places: Mapping[str, str]) -> list[dict[str, Any]]:
    """Messages whose contents are texts with placeholders, for templates that know no blocks; `places` by mark."""
    return [
        {
            **message,
            "content": None if (text := joined(message.get("content"))) is None else placed_in(text, places),
        }
        for message in messages
    ]


def placed_in(text: str, places: Mapping[str, str]) -> str:
    """A text with placeholders for marks."""
    for mark, place in places.items():
        text = text.replace(mark, place)
    return text


def blocks(content: Any) -> Any:
    """A message's content as blocks; None stays None."""
    if content is None:
        return None
    parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
    out: list[dict[str, Any]] = []
    for text in parts:
        for piece in MARKED.split(text):
            if piece in KINDS:
                out.append({"type": KINDS[piece]})
            elif piece:
                out.append({"type": "text", "text": piece})
    return out


def joined(content: Any) -> str | None:
    """A message's content as one text."""
    if content is None or isinstance(content, str):
        return content
    return "\n".join(part.get("text") or "" for part in content)


def takes_blocks(tokenizer: Any, placeholder: str, kind: str = "image") -> bool:
    """Whether a chat template renders blocks of a kind: found by rendering a message."""
    messages = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": "word"}]}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
        return False
    return placeholder in text and "word" in text and "'type'" not in text


def shown(text: str) -> str:
    """A text for a reader."""
    return placed_in(text, {mark: f"[{kind}]" for mark, kind in KINDS.items()})


def shown_messages(prompt: str | Messages) -> Any:
    """A prompt for a reader."""
    if isinstance(prompt, str):
        return shown(prompt)
    return [{**message, "content": shown(joined(message.get("content")) or "")} for message in prompt]


def readable(prompt: str | Messages) -> str:
    """A prompt as one text for a reader."""
    if isinstance(prompt, str):
        return shown(prompt).strip()
    said = [(str(message["role"]), shown(joined(message.get("content")) or "").strip()) for message in prompt]
    return said[0][1] if len(said) == 1 else "\n".join(f"{role}: {text}" for role, text in said)


def marks(prompt: str | Messages) -> str:
    """The marks of a prompt in their order, and nothing else of it."""
    texts = [prompt] if isinstance(prompt, str) else [joined(m.get("content")) or "" for m in prompt]
    return "".join(mark for text in texts for mark in MARKED.findall(text))
