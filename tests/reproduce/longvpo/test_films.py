"""Arms of `prefopt reproduce longvpo`, their rows and what is measured, in a world whose model has learned nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prefopt.config import resolve
from prefopt.reproduce.longvpo import films
from prefopt.reproduce.longvpo.films import (
    AMBIGUOUS,
    ARMS,
    FIRST,
    FULL,
    JOBS,
    LAST,
    LONGVPO,
    NAMES,
    NO_SFT,
    QUICK,
    SFT,
    SHARED,
    STAGE_2,
    START,
    WRONG,
    train,
)

pytestmark = pytest.mark.usefixtures("cache")


def test_arms_differ_in_what_they_say_alone():
    def settings(arm: films.Arm) -> dict[str, Any]:
        config, hyper = resolve({"model": "m", "data": "d", **SHARED | dict(arm.options)})
        return {**config.model_dump(), **hyper}

    first = settings(ARMS[LONGVPO])
    for name, arm in ARMS.items():
        other = settings(arm)
        assert {key: other[key] for key in other if other[key] != first[key]} == dict(arm.options), name
    assert (first["beta"], first["alpha"], first["redraw_videos"], first["reference_context"]) == (
        0.1,
        1,
        True,
        "row",
    )


@pytest.fixture
def rows(monkeypatch) -> dict[str, list[Any]]:
    """Rows and options that runs are given, without running."""
    given: dict[str, list[Any]] = {}

    def fitted(run, seed, size, save_to=None):
        return run

    def run_on(rows, model, seed, size, options):
        return {"rows": rows, "model": model, "options": dict(options), "seed": seed}

    monkeypatch.setattr(films, "run_on", run_on)
    monkeypatch.setattr(films, "fitted", fitted)
    return given


def test_rows_are_what_their_arm_says(rows):
    size = replace(QUICK, pairs=40, second_pairs=8)
    found = {name: run for job in JOBS if job != START for name, run in train(job, 0, size).items()}
    assert sorted([*found, START]) == sorted(NAMES)
    ids = [row["id"] for row in found[LONGVPO]["rows"]]
    for name in (FULL, SFT, NO_SFT, films.FIXED):  # the very same rows
        assert found[name]["rows"] == found[LONGVPO]["rows"]
    assert len(ids) == 40
    assert {row["anchor"] for row in found[FIRST]["rows"]} == {0}
    assert {row["anchor"] for row in found[LAST]["rows"]} == {7}
    assert len({row["anchor"] for row in found[LONGVPO]["rows"]}) == 8
    assert 10 < sum(row["provenance"]["ambiguous"] for row in found[AMBIGUOUS]["rows"]) < 30
    assert sum(row["score_chosen"] == 0 for row in found[WRONG]["rows"]) == 10
    # the first stage's rows stand among the second's
    assert found[STAGE_2]["rows"][-40:] == found[LONGVPO]["rows"]
    assert [row["stage"] for row in found[STAGE_2]["rows"][:-40]] == [2] * 8
    assert found[STAGE_2]["model"] != found[LONGVPO]["model"]


def test_the_sizes_of_arms_are_those_they_name(rows):
    size = replace(films.Size(), world=QUICK.world)
    pairs = {
        name: len(run["rows"])
        for job in (LONGVPO, films.FEW, films.MANY, FIRST)
        for name, run in train(job, 0, size).items()
    }
    assert pairs == {
        LONGVPO: 256,
        STAGE_2: 1280,
        films.FEW: 64,
        films.MANY: 512,
        FIRST: 512,
    }


def test_a_run_trains_and_the_second_stage_goes_on_from_it():
    found = train(LONGVPO, 0, QUICK)
    assert list(found) == [LONGVPO, STAGE_2]
    assert found[LONGVPO].share == pytest.approx(1 / 8)
    assert found[STAGE_2].share == pytest.approx((1 + 1 / 8) / 2)  # half of the rows are the first stage's
    assert found[LONGVPO].seconds > 0
    assert "sft" in found[LONGVPO].logs
    assert set(found[LONGVPO].films) == {1, 2, 4, 8, 16, 24}
    [start] = train(START, 0, QUICK).values()
    assert start.seconds == 0
    assert start.films[8].films == QUICK.films
