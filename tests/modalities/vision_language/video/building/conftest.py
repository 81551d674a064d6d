"""Clips that several files of tests build from, and a cache of each test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalities.vision_language.video.building.film_runs import COLOURS, fields


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fields(tmp_path_factory.mktemp("films") / "clips", list(COLOURS))
