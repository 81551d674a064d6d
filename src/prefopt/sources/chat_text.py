"""Conversations that arrive as something else: JSON written into a text, Python's repr of a list, ShareGPT's names.

Nothing here imports torch: readers of files use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

ROLE_OF = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "model": "assistant", "bing": "assistant", "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
"""ShareGPT's `from`, as templates call it."""

PYTHON_REPR = re.compile(
    r"""\s*(?:array\(|\[|\()+\s*\{\s*'(?:role|content|from|value)'\s*:|\s*\{\s*'role'\s*:\s*'"""
)


def messages_in(text: str) -> list[dict[str, Any]] | None:
    """The messages that a text spells as JSON, or None where it is anything else.

    Example:
        >>> messages_in('[{"role": "user", "content": "Hi"}]')
        [{'role': 'user', 'content': 'Hi'}]
        >>> messages_in("[1, 2]") is None
        True
    """
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    value = [value] if isinstance(value, dict) else value
    if isinstance(value, list) and value and all(map(is_message, value)):
        return value
    return None


def is_message(value: Any) -> bool:
    """Whether a value is a message by its keys, in whichever of the two spellings."""
    return isinstance(value, Mapping) and (
        isinstance(value.get("role"), str) or (isinstance(value.get("from"), str) and "value" in value)
    )


def is_python_repr(text: str) -> bool:
    """Whether a text is what Python prints of a list of messages: written by `str`, and not readable for certain.

    Example:
        >>> is_python_repr("[{'role': 'user', 'content': 'Hi'}]")
        True
    """
    return PYTHON_REPR.match(text) is not None


def with_role(message: Any) -> Any:
    """A message of ShareGPT under the names that templates read; anything else as it is.

    Example:
        >>> with_role({"from": "human", "value": "Hi"})
        {'role': 'user', 'content': 'Hi'}
    """
    if not is_message(message) or "role" in message:
        return message
    rest = {key: x for key, x in message.items() if key not in ("from", "value")}
    return {"role": ROLE_OF.get(message["from"], message["from"]), "content": message["value"], **rest}


def without_nones(value: Any) -> Any:
    """A nested value without the keys that hold None."""
    if isinstance(value, Mapping):
        return {key: without_nones(x) for key, x in value.items() if x is not None}
    return [without_nones(x) for x in value] if isinstance(value, list) else value
