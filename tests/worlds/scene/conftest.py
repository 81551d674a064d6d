"""A scene world whose models are much smaller than the real ones, trained for three steps a stage."""

from __future__ import annotations

from typing import Any

import pytest

from prefopt.worlds import get_world

TINY = {
    "width": 8,
    "pretrain_pictures": 64,
    "batch_size": 8,
    "pretrain_steps": 3,
    "control_steps": 3,
    "consistency_steps": 2,
}


@pytest.fixture(scope="module")
def world(cache_folder: object) -> Any:
    return get_world("scene", seed=3, **TINY)


@pytest.fixture(scope="module")
def pipeline(world: Any) -> Any:
    from prefopt.worlds.scene.model import load

    return load(world.model_dir())
