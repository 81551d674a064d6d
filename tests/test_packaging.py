"""What users install: the bounds of its libraries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script():
    """.ci/oldest.py as a module."""
    spec = importlib.util.spec_from_file_location("oldest", ROOT / ".ci" / "oldest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OLDEST = script()


def test_the_oldest_versions_are_those_of_pyproject():
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    assert OLDEST.FILE.read_text("utf-8") == OLDEST.text(pyproject), "run `make oldest`"


def test_bounds_are_found_wherever_a_library_is_asked_for():
    text = """[project]
dependencies = ["torch>=2.6", "rich"]
[project.optional-dependencies]
video = ["av>=15"]
test = ["prefopt[video]", "transformers[serving]>=5.0"]
dev = ["ruff>=0.8"]
"""
    assert OLDEST.oldest(text) == {"torch": "2.6", "av": "15", "transformers": "5.0"}


def test_two_lower_bounds_of_one_library_are_refused():
    text = """[project]
dependencies = ["av>=14"]
[project.optional-dependencies]
video = ["av>=15"]
"""
    with pytest.raises(ValueError, match="av>=15 and for av>=14"):
        OLDEST.oldest(text)
