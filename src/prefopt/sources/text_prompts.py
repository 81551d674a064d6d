"""Prompts without comparisons, for those who sample answers to them: texts or conversations, each under its own name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.sources.files import load_rows


def load_text_prompts(source: str, limit: int | None = None) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows with a prompt, by name.

    Args:
        source: file with a column `prompt` (text or messages), or `id` too; a .txt file, one prompt a line; a hub id.
        limit: take only the first so many.

    Returns:
        (name, row); names are the column `id`, or "prompt-1", "prompt-2", ... by line or row number.

    Raises:
        OSError: the source cannot be read.
        ValueError: no column `prompt`, a row without one, or an id twice.

    Example:
        >>> load_text_prompts([{"prompt": "Hi"}])    # type: ignore[arg-type]
        [('prompt-1', {'prompt': 'Hi'})]
    """
    rows = load_rows(source, lines="prompt")
    if "prompt" not in rows.columns:
        raise ValueError(
            f"{source} has the columns {', '.join(rows.columns)}; needed prompt (text or messages)"
        )
    found: dict[str, Mapping[str, Any]] = {}
    for number, row in rows:
        prompt = row.get("prompt")
        if not prompt or not isinstance(prompt, str | list):
            raise ValueError(
                f"{source}, {rows.place} {number}: prompt is {prompt!r}; needed text or a list of messages"
            )
        name = str(row["id"]) if row.get("id") is not None else f"prompt-{number}"
        if name in found:
            raise ValueError(
                f"{source}, {rows.place} {number}: the id {name!r} is there twice; make ids unique"
            )
        found[name] = row
        if len(found) == limit:
            break
    return list(found.items())
