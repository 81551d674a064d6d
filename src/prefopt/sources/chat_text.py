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

ROLES = frozenset({*ROLE_OF, *ROLE_OF.values(), "developer", "function", "ipython"})
LIKE_MESSAGES = re.compile(r"""\s*\[\s*\{\s*"role"\s*:\s*"(?:user|assistant|system|tool)"\s*,""")

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
    if text.lstrip()[:1] not in ("[", '"'):  # a single object may well be an answer in JSON
        return None
    try:
        value = json.loads(text)
        value = json.loads(value) if isinstance(value, str) else value  # written twice
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list) and value and all(is_message(m) and says_something(m) for m in value):
        return value
    return None


def says_something(message: Mapping[str, Any]) -> bool:
    """Whether a mapping has what messages have, and not only a key called role or from."""
    role = message.get("role", message.get("from"))
    said = message.get("content") if "role" in message else message.get("value")
    return role in ROLES and (isinstance(said, str | list) or bool(message.get("tool_calls")))


def is_broken_json(text: str) -> bool:
    """Whether a text begins as messages in JSON do, and cannot be read as JSON; it may have been cut.

    Example:
        >>> is_broken_json('[{"role": "user", "content": "Hi')
        True
    """
    if LIKE_MESSAGES.match(text) is None:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return True
    return False


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
