"""Arms of `prefopt reproduce sopo` in the motion world: what they are, and that they run where nothing has learned anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from prefopt.config import resolve
from prefopt.reproduce.sopo import motions
from prefopt.reproduce.sopo.motions import (
    ARMS,
    BASE,
    DRAWN,
    OFFLINE,
    ONLINE,
    QUICK,
    REUSED,
    SFT,
    SFT_LONGER,
    SOPO,
    Size,
    jobs,
    losers_of,
    options_of,
    train,
)

pytestmark = pytest.mark.usefixtures("cache")


def settings(name: str) -> dict[str, Any]:
    config, hyper = resolve({"model": "m", "data": "d", **options_of(name, Size())})
    return {**config.model_dump(), **hyper}


def test_arms_differ_in_what_they_say_alone():
    first = settings(SOPO)
    for name, arm in ARMS.items():
        other = settings(name)
        if name in (SFT, SFT_LONGER):
            assert other["max_steps"] == first["max_steps"] * (4 if name == SFT_LONGER else 1)
            assert other["learning_rate"] == first["learning_rate"]
            continue
        different = {key: other[key] for key in other if other[key] != first.get(key)}
        expected = dict(arm) | ({"max_steps": 25} if name == REUSED else {})
        assert different == expected, name
    assert (first["beta"], first["C"], first["candidates"], first["candidate_steps"]) == (1, 2, 2, 10)
    assert (first["error_scale"], first["lr_scheduler_type"]) == ("steps", "constant")


def test_every_arm_runs_once_a_seed():
    todo = jobs(range(3), QUICK)
    assert len(todo) == 3 * (1 + len(ARMS))
    assert {(name, seed) for name, seed, _ in todo} == {(n, s) for n in (BASE, *ARMS) for s in range(3)}


def test_of_more_candidates_the_loser_is_never_better():
    found = losers_of(torch.rand(8, 50, generator=torch.Generator().manual_seed(0)))
    assert list(found) == [1, 2, 4, 8]
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert found[8] < 0.2 < 0.4 < found[1]


def test_rows_say_what_their_motions_do():
    world = motions.world_of(QUICK)
    rows = motions.rows_of(world, 40)
    assert all(world.verify(row["prompt"], row["motion"]) == 1 for row in rows)
    said = world.pretraining_motions().captions[:40]
    assert sum(row["prompt"] != caption for row, caption in zip(rows, said, strict=True)) > 3


@pytest.mark.slow
def test_a_run_trains_and_is_timed():
    start = train(BASE, 0, QUICK)
    assert list(start.losers) == [1, 2, 4, 8]
    sopo, again, other = (train(SOPO, seed, QUICK) for seed in (0, 0, 1))
    assert sopo.measures.mm_dist == again.measures.mm_dist != other.measures.mm_dist
    assert sopo.measures.mm_dist != start.measures.mm_dist
    assert 0 < sopo.drawing < sopo.seconds
    assert sopo.logs["collect/network_calls"] == DRAWN["candidates"] * DRAWN["candidate_steps"]
    control = train(SFT, 0, QUICK)
    assert control.drawing == 0 < control.seconds
    offline = train(OFFLINE, 0, replace(QUICK, updates=8))
    assert offline.logs["collect/network_calls"] == 0
    assert offline.drawing > 0
    assert train(ONLINE, 0, QUICK).measures.mm_dist not in (sopo.measures.mm_dist, offline.measures.mm_dist)
    assert train(REUSED, 0, QUICK).drawing < sopo.drawing
