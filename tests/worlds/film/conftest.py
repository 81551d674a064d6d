"""A film world whose model is much smaller than the real one."""

from __future__ import annotations

from typing import Any

import pytest

from prefopt.worlds import get_world

TINY = {"width": 16, "layers": 1, "pretrain_steps": 30, "batch_size": 16, "renders": 1}


@pytest.fixture(scope="module")
def world(cache_folder: object) -> Any:
    return get_world("film", seed=3, **TINY)


@pytest.fixture(scope="module")
def loaded(world: Any) -> Any:
    from prefopt.worlds.film.model import load

    return load(world.model_dir())
