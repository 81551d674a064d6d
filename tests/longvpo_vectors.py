"""The golden vectors of `data/longvpo.json`, by kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CASES = json.loads((Path(__file__).parent / "data" / "longvpo.json").read_text("utf-8"))


def of_kind(kind: str, count: int) -> list[dict[str, Any]]:
    """The cases of a kind, of which there are so many."""
    found = [case for case in CASES if case["kind"] == kind]
    assert len(found) == count, (kind, len(found))
    return found


def each(kind: str, count: int) -> pytest.MarkDecorator:
    """A test of `given` and `expected`, once a case."""
    cases = of_kind(kind, count)
    return pytest.mark.parametrize(
        ("given", "expected"),
        [(case["inputs"], case["expected"]) for case in cases],
        ids=[case["name"] for case in cases],
    )
