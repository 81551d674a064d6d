"""The spellings of docs/parity.md, row by row, through `migrate`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefopt.config import FIELD_NAMES
from prefopt.migration import migrate

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
STANDING_FOR = {"1 - a": "0.6", "a": "0.4", "g": "1.5"}
"""Numbers for the table's letters."""


def rows() -> list[tuple[str, str]]:
    """Both cells of each row."""
    table = PAGE.read_text("utf-8").partition("The spellings that it writes:")[2].strip().partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]
    return [(theirs, ours) for theirs, ours in cells]


def keys(cell: str) -> dict[str, Any]:
    """`key: value` within backticks."""
    found = {}
    for span in re.findall(r"`([^`]+)`", cell):
        key, _, value = span.partition(": ")
        for letter, number in STANDING_FOR.items():
            value = re.sub(rf"(?<![\w-]){re.escape(letter)}(?![\w-])", number, value)
        found[key] = yaml.safe_load(value)
    return found


def test_there_are_rows():
    assert len(rows()) > 20


@pytest.mark.parametrize(("theirs", "ours"), rows())
def test_it_writes_what_the_table_says(theirs, ours):
    trainer = re.match(r"([A-Z]+)Trainer", theirs)
    kind = trainer[1].lower() if trainer else "dpo"
    found = migrate({"beta": 0.2, **keys(theirs)}, "trl", kind, {"model": "m", "data": "d"}).config
    written = {
        key: found[key] for key in found if key not in FIELD_NAMES or key in ("method", "loss_weights")
    }
    if "beta" not in keys(ours):
        written.pop("beta", None)
    assert written == keys(ours)
