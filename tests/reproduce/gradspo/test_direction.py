"""E1: best minus worst noise as an estimate of the reward's gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from prefopt.reproduce.gradspo.direction import claims as direction_claims
from prefopt.reproduce.gradspo.direction import direction, expected_range
from reproduce.gradspo.vector_rig import Exact


@pytest.mark.parametrize(
    ("k", "value"), [(2, 2 / math.sqrt(math.pi)), (3, 3 / math.sqrt(math.pi)), (5, 2.32593)]
)
def test_expected_range_of_normals(k, value):
    assert expected_range(k) == pytest.approx(value, rel=1e-5)


def test_direction_has_the_expected_length_where_the_model_is_linear(world):
    exact = replace(world, reference=Exact(world.process))
    found = direction(exact, 4, states=64)
    assert len(found.along) == 20
    # about 1,280 states: standard error 0.025
    assert sum(found.along) / 20 == pytest.approx(expected_range(4), abs=0.1)
    assert min(found.along) > 1.5
    assert sum(found.half_off) / sum(found.best_off) == pytest.approx(0.5, abs=0.03)
    assert sum(found.best_off) / 20 == pytest.approx(1.0, abs=0.05)
    verdicts = [c.verdict for c in direction_claims({4: [found, found]})]
    assert verdicts == ["holds"] * 6
