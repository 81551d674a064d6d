"""Tiny models that tests of a file share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tiny_vision


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a model by its name in `tiny_vision`, made on first use."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tiny_vision.save_tiny(name, tmp_path_factory.mktemp(name))
        return made[name]

    return folder
