"""Prompts with pictures as text: where pictures stand, the chat template, the placeholders that a processor expands.

Within prefopt a picture's place in a text is `MARK`, a character that no text has. Rows are brought to that form when they are
read; here it becomes what the model's template or tokenizer wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

MARK = "\ufdd0"
"""A noncharacter of Unicode, for use within a program."""

Messages = Sequence[Mapping[str, Any]]


def in_blocks(messages: Messages) -> list[dict[str, Any]]:
    """Messages whose contents are lists of text and image blocks, as templates of vision-language models read them."""
    return [{**message, "content": blocks(message.get("content"))} for message in messages]


def in_strings(messages: Messages, placeholder: str) -> list[dict[str, Any]]:
    """Messages whose contents are texts with placeholders, for templates that know no blocks."""
    return [
        {
            **message,
            "content": None
            if (text := joined(message.get("content"))) is None
            else text.replace(MARK, placeholder),
        }
        for message in messages
    ]


def blocks(content: Any) -> Any:
    """A message's content as blocks; None stays None."""
    if content is None:
        return None
    parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
    out: list[dict[str, Any]] = []
    for text in parts:
        for n, piece in enumerate(text.split(MARK)):
            if n:
                out.append({"type": "image"})
            if piece:
                out.append({"type": "text", "text": piece})
    return out


def joined(content: Any) -> str | None:
    """A message's content as one text."""
    if content is None or isinstance(content, str):
        return content
    return "\n".join(part.get("text") or "" for part in content)


def takes_blocks(tokenizer: Any, placeholder: str) -> bool:
    """Whether a chat template renders blocks: found by rendering a message."""
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "word"}]}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
        return False
    return placeholder in text and "word" in text and "'type'" not in text


def shown(text: str) -> str:
    """A text for a reader."""
    return text.replace(MARK, "[image]")


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


def marks(prompt: str | Messages) -> int:
    """Pictures that a prompt has a place for."""
    if isinstance(prompt, str):
        return prompt.count(MARK)
    return sum((joined(message.get("content")) or "").count(MARK) for message in prompt)
