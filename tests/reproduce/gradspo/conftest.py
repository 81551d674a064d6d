"""The vector world, pretrained once for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefopt.reproduce.gradspo.world import (
    make_world,
)
from reproduce.gradspo.vector_rig import SHORT


@pytest.fixture(scope="session")
def world():
    return make_world(0, SHORT)


@pytest.fixture(scope="session")
def ddim():
    """Coefficients of some of the 20 steps, computed elsewhere."""
    cases = json.loads((Path(__file__).parents[2] / "data/gradspo.json").read_text())
    (case,) = [c for c in cases if c["inputs"]["kind"] == "ddim_coefficients"]
    return case["inputs"]["timesteps"], case["expected"]
