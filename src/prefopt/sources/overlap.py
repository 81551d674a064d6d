"""Whether comparisons to judge by are also trained on."""

from __future__ import annotations

from collections.abc import Sequence

from prefopt.comparisons import Example
from prefopt.sources.hints import digest
from prefopt.sources.report import Hint


def rows_in_common(train: Sequence[Example], held_out: Sequence[Example]) -> int:
    """How many held-out comparisons are also trained on, whichever side came first."""
    rows = {_row(e) for e in train}
    return sum(_row(e) in rows for e in held_out)


def overlap_hints(train: Sequence[Example], held_out: Sequence[Example], shared: int) -> list[Hint]:
    """What to say where held-out comparisons, or at least their prompts, are also trained on.

    Args:
        train: not encoded.
        held_out: not encoded.
        shared: see `rows_in_common`.
    """
    if shared:
        return [
            Hint(
                "warn",
                f"{shared} of {len(held_out)} held-out comparisons are also trained on: what they measure is not "
                "held out. Name another split (eval_split) or other rows (eval_data)",
            )
        ]
    prompts = {_prompt(e) for e in train}
    if n := sum(_prompt(e) in prompts for e in held_out):
        return [
            Hint(
                "warn" if 2 * n > len(held_out) else "note",
                f"{n} of {len(held_out)} held-out comparisons have a prompt that is also trained on",
            )
        ]
    return []


def _prompt(example: Example) -> bytes:
    return digest(dict(example.items[0].condition))


def _row(example: Example) -> tuple[bytes, ...]:
    """A row by its prompt and its samples, in whichever order they stand."""
    return (_prompt(example), *sorted(digest(item.sample) for item in example.items))
