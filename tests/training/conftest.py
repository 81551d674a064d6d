"""Tiny pipelines and rows of images for the tests of runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_pipelines


@pytest.fixture(scope="package")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders by family, each made once; read them, never write to them."""
    root, made = tmp_path_factory.mktemp("pipelines"), {}
    makers = {"sd": tiny_pipelines.tiny_sd, "sdxl": tiny_pipelines.tiny_sdxl, "sd3": tiny_pipelines.tiny_sd3}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = makers[family](root / family)
        return made[family]

    return make


@pytest.fixture
def sd(pipelines: Callable[[str], Path]) -> Path:
    return pipelines("sd")


@pytest.fixture
def images_file(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """Writes rows as JSONL with the images beside it, and returns its path."""

    def write(rows: list[dict[str, Any]]) -> Path:
        named = []
        for n, row in enumerate(rows):
            named.append(dict(row))
            for column, value in row.items():
                if isinstance(value, bytes):
                    named[-1][column] = f"row-{n}-{column}.png"
                    (tmp_path / named[-1][column]).write_bytes(value)
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in named), "utf-8")
        return path

    return write
