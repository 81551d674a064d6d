"""Whether the prompts of all rows stand where they were looked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from prefopt.sources.files import Rows


def refuse_repeated_prompts(rows: Rows, repeated: int, used: int) -> None:
    """Raise ValueError where every row's texts begin with the prompt that stands beside them."""
    if repeated == used:
        raise ValueError(
            f"{rows.source}: in all {used} rows the completions begin with the prompt, so the model would read it twice "
            "and be trained on it. Cut it from the completions; or, for pairs, leave the column out "
            "(ignore_columns=[prompt]): then what both sides share is the prompt"
        )


def refuse_unread_prompts(rows: Rows, unread: Sequence[str], shared: Sequence[Any]) -> None:
    """Raise ValueError where a column says more about the rows than what both of their texts share, by chance perhaps.

    Args:
        rows: without a column of prompts.
        unread: columns that nobody reads.
        shared: what was taken for the prompts.
    """
    if sum(str(text).rstrip(" ").endswith((":", "\n", ">", "]", "?", "#")) for text in shared) > 0.9 * len(
        shared
    ):
        return  # as prompts end that were written before their answers
    few = len(set(map(str, shared))) <= max(2, len(shared) // 10)
    for name in unread:
        texts = [str(value) for _, row in islice(rows, 5000) if (value := row.get(name)) not in (None, "")]
        sentences = sum(len(text.split()) > 1 for text in texts) > len(texts) / 2
        if len(set(texts)) > len(set(map(str, shared[:5000]))) and (sentences or few):
            raise ValueError(
                f"{rows.source} has no column of prompts, but {name!r} could be one (the columns are "
                f"{', '.join(rows.columns)}). If it is: rename_columns={{{name}: prompt}}; if not, leave it out with "
                f"ignore_columns=[{name}], and the start that both texts share is the prompt"
            )


__all__ = ["refuse_repeated_prompts", "refuse_unread_prompts"]
