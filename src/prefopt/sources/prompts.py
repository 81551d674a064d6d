"""Prompts without comparisons, for those who sample answers to them: texts or conversations, each under its own name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.sources.cells import is_empty, shown
from prefopt.sources.files import Rows, load_rows
from prefopt.sources.layouts import KNOWN, prompt_columns

NamedPrompt = tuple[str, dict[str, Any]]
"""A name, and the condition that a row gives: `prompt`, and whatever goes with it."""


def load_text_prompts(source: str, limit: int | None = None) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows with a prompt, by name.

    Args:
        source: file with a column `prompt` (text or messages) or those of `layouts.KNOWN`, and `id` perhaps; a .txt
            file, one prompt a line; a hub id.
        limit: take only the first so many.

    Returns:
        (name, row); names are the column `id`, or "prompt-1", "prompt-2", ... by line or row number.

    Raises:
        OSError: the source cannot be read.
        ValueError: no column of prompts, a row without one, or an id twice.

    Example:
        >>> load_text_prompts([{"prompt": "Hi"}])    # type: ignore[arg-type]
        [('prompt-1', {'prompt': 'Hi'})]
    """
    return prompts_in(load_rows(source, lines="prompt"), limit)


def prompts_in(rows: Rows, limit: int | None = None) -> list[tuple[str, Mapping[str, Any]]]:
    """The same of rows that are already there.

    Raises:
        ValueError: no column of prompts, a row without one, or an id twice.
    """
    columns = prompt_columns(rows.columns)
    if not columns.parts:
        raise ValueError(
            f"{rows.source} has the columns {', '.join(rows.columns)}; needed prompt (text or messages), or one of "
            f"{', '.join(known[0] for known in KNOWN[1:])}"
        )
    arrow = rows.kind in ("datasets", "parquet")
    found: dict[str, Mapping[str, Any]] = {}
    for number, row in rows:
        try:
            prompt = columns.read(row, arrow)
            if not prompt or is_empty(prompt):
                raise UnusableItem(
                    f"{columns.parts[0]} is {shown(prompt)}; needed text or a list of messages"
                )
            prompt = columns.with_system(prompt, row)
        except UnusableItem as error:
            raise ValueError(f"{rows.source}, {rows.place} {number}: {error}") from None
        name = str(row["id"]) if row.get("id") is not None else f"prompt-{number}"
        if name in found:
            raise ValueError(
                f"{rows.source}, {rows.place} {number}: the id {name!r} is there twice; make ids unique"
            )
        found[name] = {**row, "prompt": prompt}
        if len(found) == limit:
            break
    return list(found.items())
