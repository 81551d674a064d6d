"""A motion world whose models are much smaller than the real ones."""

from __future__ import annotations

from typing import Any

import pytest

from prefopt.worlds import get_world

TINY = {
    "width": 16, "layers": 1, "pretrain_motions": 150, "pretrain_steps": 12, "pretrain_batch_size": 16, "scorer_steps": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(cache_folder: object) -> Any:
    return get_world("motion", seed=3, **TINY)


@pytest.fixture(scope="module")
def pipeline(world: Any) -> Any:
    return world.pipeline()
