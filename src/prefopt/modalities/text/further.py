"""Further answers of a pair's row, under the pair's own prompt: what triple preference optimization reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefopt.comparisons import UnusableItem
from prefopt.objectives import Branch
from prefopt.sources import cells
from prefopt.sources.files import Rows

FURTHER = ("reference",)
"""Answers under a pair's own prompt that objectives may read as branches; also the names of their columns."""


def further_answers(branches: Mapping[str, Branch]) -> dict[str, str]:
    """Columns of the `FURTHER` answers that an objective reads, by the names of its branches."""
    return {name: branch.sample for name, branch in branches.items() if branch.sample in FURTHER}


def check_further(rows: Rows, further: Mapping[str, str]) -> None:
    """Raise ValueError where rows lack the column of a further answer."""
    if missing := [column for column in further.values() if column not in rows.columns]:
        rest = [name for name in rows.columns if name not in ("prompt", "chosen", "rejected")]
        raise ValueError(
            f"{rows.source} has no column {', '.join(missing)}, which this objective reads of every row beside chosen and "
            f"rejected: an answer to the same prompt that is to become likely{cells.nearest(missing, rest)}. Its columns are "
            f"{', '.join(rows.columns)}; rename_columns={{NAME: {missing[0]}}} names the one that holds it"
        )


def behind(
    prompt: str | list[dict[str, Any]], cut: int, name: str, answer: str | list[dict[str, Any]]
) -> Any:
    """A further answer without the prompt, where the prompt was cut from both sides (`cut` characters or messages)."""
    if cut and answer[:cut] != prompt:
        raise UnusableItem(
            f"{name} does not begin as chosen and rejected both do, so it answers another prompt: give a prompt column",
            "no_prompt",
        )
    if not cut and isinstance(prompt, list) and prompt and answer[: len(prompt)] == prompt:
        raise UnusableItem(
            f"{name} begins with the prompt's own messages, which would be trained on: cut them from it",
            "prompt_repeated",
        )
    if cells.is_empty(answer[cut:]):
        raise UnusableItem(f"{name} is empty after the start that all sides share", "empty_side")
    return answer[cut:]


__all__ = ["FURTHER", "behind", "check_further", "further_answers"]
