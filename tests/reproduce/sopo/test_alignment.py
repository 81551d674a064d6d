"""E2, E3, E6 and E7 of `prefopt reproduce sopo`: their claims on constructed numbers, and what is shown."""

from __future__ import annotations

import pytest

from prefopt.reproduce.sopo import alignment
from prefopt.reproduce.sopo.alignment import of_cost, of_methods, of_parts, of_sides
from prefopt.reproduce.sopo.motions import (
    BASE,
    DSOPO,
    METHODS,
    NAIVE,
    NO_VETO,
    OFFLINE,
    ONLINE,
    REUSED,
    SFT,
    SFT_LONGER,
    SOPO,
    USOPO,
)
from reproduce.sopo.constructed import TRUE, runs_of


def failed(arm=None, more=(), **changed):
    """Statements that do not hold once some numbers of one arm are others."""
    names = ("r_1", "mm_dist", "fid", "passed", "side", "direction", "way", "kept", "seconds", "drawing")
    row = list(TRUE[arm]) if arm else []
    for name, value in changed.items():
        row[names.index(name)] = value
    runs = runs_of({**TRUE, **({arm: tuple(row)} if arm else {})}, **dict(more))
    return [
        c.statement
        for part in (of_methods, of_parts, of_sides, of_cost)
        for c in part(runs)
        if c.verdict != "holds"
    ]


def test_all_hold_where_all_is_so():
    assert failed() == []
    assert len(of_methods(runs_of())) == 19
    assert len(of_parts(runs_of())) == 8
    assert len(of_sides(runs_of())) == 6
    assert len(of_cost(runs_of())) == 4


@pytest.mark.parametrize(
    ("arm", "changed", "broken"),
    [
        (BASE, {"r_1": 0.43}, ["than the base in R@1", "online DPO is better than the base"]),
        (BASE, {"mm_dist": 0.81}, ["than the base in MM-Dist", "times keep 67%"]),
        (OFFLINE, {"r_1": 0.43}, ["than offline DPO in R@1", "offline DPO is worse"]),
        (OFFLINE, {"mm_dist": 0.8}, ["than offline DPO in MM-Dist"]),
        (ONLINE, {"r_1": 0.43}, ["than online DPO in R@1", "naive combination is better than"]),
        (ONLINE, {"r_1": 0.34}, ["online DPO is better than the base"]),
        (ONLINE, {"mm_dist": 0.8}, ["than online DPO in MM-Dist"]),
        (NAIVE, {"r_1": 0.43}, ["than naive combination in R@1"]),
        (NAIVE, {"mm_dist": 0.8}, ["than naive combination in MM-Dist"]),
        (BASE, {"fid": 0.1}, ["improves FID"]),
        (BASE, {"passed": 0.2}, ["all that their captions say"]),
        (SFT, {"r_1": 0.43}, ["control in R@1"]),
        (SFT, {"mm_dist": 0.81}, ["control in MM-Dist"]),
        (SFT, {"fid": 0.1}, ["control in FID"]),
        (SFT, {"passed": 0.2}, ["than of its control"]),
        (SFT_LONGER, {"mm_dist": 0.81}, ["cheaper control in MM-Dist"]),
        (SFT_LONGER, {"fid": 0.11}, ["cheaper control in FID"]),
        (SOPO, {"kept": 0.7}, ["veto is active"]),
        (USOPO, {"r_1": 0.37}, ["USoPo is better than DSoPo"]),
        (USOPO, {"r_1": 0.43}, ["a veto, in R@1"]),
        (USOPO, {"mm_dist": 0.9}, ["USoPo is better than DSoPo in MM-Dist"]),
        (USOPO, {"fid": 0.11}, ["a veto, in FID"]),
        (DSOPO, {"r_1": 0.415}, ["USoPo is better than DSoPo", "no veto"]),
        (NO_VETO, {"r_1": 0.37}, ["no veto"]),
        (BASE, {"side": 0.98}, ["share of right arms"]),
        (BASE, {"direction": 0.6}, ["share of right directions"]),
        (BASE, {"way": 0.95}, ["evaluator, too"]),
        (SFT, {"side": 0.98}, ["right arms more than its control"]),
        (SFT, {"direction": 0.6}, ["right directions more than its control"]),
        (SOPO, {"drawing": 9}, ["most of the time"]),
        (REUSED, {"seconds": 11}, ["twice as cheap"]),
        (REUSED, {"mm_dist": 0.88}, ["times keep 67%"]),
        (SFT, {"seconds": 6}, ["four times as cheap"]),
    ],
)  # fmt: skip
def test_each_claim_fails_where_it_is_not_so(arm, changed, broken):
    found = failed(arm, **changed)
    assert len(found) == len(broken), found
    assert all(any(words in statement for statement in found) for words in broken), found


def test_what_is_said_of_sides_is_void_where_the_reward_does_not_tell_them():
    gate, *rest = of_sides(runs_of(swapped=0.8))
    assert gate.verdict == "does not hold here"
    assert {c.verdict for c in rest} == {"inconclusive"}
    assert all(c.how.startswith("void: the reward is right on 80%") for c in rest)


def test_the_control_is_in_every_table():
    part = alignment.experiment(runs_of())
    main, sides, cost = part.tables
    for table in part.tables:
        assert SFT in [row[0] for row in table.rows]
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert [row[0] for row in main.rows][:2] == [BASE, SFT]
    assert {row[0] for row in main.rows} == {BASE, *METHODS} == {row[0] for row in sides.rows}
    start, sopo = (dict(zip(main.columns, main.rows[k], strict=True)) for k in (0, -1))
    assert (start["R@1"], start["kept"], start["seconds"]) == ("35.0", "-", "-")
    assert sopo["R@1"].startswith("42.0 +- ")
    assert dict(zip(cost.columns, cost.rows[-1], strict=True))["arm"] == REUSED
    assert [plot.name for plot in part.plots] == ["sopo_methods"]
