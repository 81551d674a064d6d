"""E4 and E5 of `prefopt reproduce sopo`: their claims on constructed numbers, and what is shown."""

from __future__ import annotations

import pytest

from prefopt.reproduce.sopo import sweeps
from prefopt.reproduce.sopo.motions import BASE, SFT, at_quantile, with_candidates
from reproduce.sopo.constructed import LOSERS, TRUE, runs_of


def failed(arm=None, mm_dist=None, fid=None, losers=LOSERS):
    row = list(TRUE[arm]) if arm else []
    if mm_dist is not None:
        row[1] = mm_dist
    if fid is not None:
        row[2] = fid
    runs = runs_of({**TRUE, **({arm: tuple(row)} if arm else {})}, losers=losers)
    return [c.statement for c in (*sweeps.of_tau(runs), *sweeps.of_candidates(runs)) if c.verdict != "holds"]


def test_all_hold_where_all_is_so():
    assert failed() == []
    assert len(sweeps.of_tau(runs_of())) == 4
    assert len(sweeps.of_candidates(runs_of())) == 3


@pytest.mark.parametrize(
    ("given", "broken"),
    [
        ({"arm": at_quantile(0.1), "mm_dist": 0.8}, "neither end"),
        ({"arm": at_quantile(1.0), "mm_dist": 0.8}, "neither end"),
        ({"arm": at_quantile(0.75), "mm_dist": 0.81}, "lower tau aligns"),
        ({"arm": at_quantile(0.25), "fid": 0.11}, "better FID than a lower"),
        ({"arm": at_quantile(0.1), "fid": 0.1}, "highest tau has a better FID"),
        ({"losers": {**LOSERS, 8: 0.67}}, "loser is worse"),
        ({"arm": with_candidates(1), "mm_dist": 0.8}, "two candidates align better"),
        ({"arm": with_candidates(4), "mm_dist": 0.7}, "four add less"),
    ],
)
def test_each_claim_fails_where_it_is_not_so(given, broken):
    [statement] = failed(**given)
    assert broken in statement


def test_the_control_is_in_the_tables_of_training():
    part = sweeps.experiment(runs_of())
    by_tau, by_k, losers = part.tables
    for table in (by_tau, by_k):
        assert [row[0] for row in table.rows][:2] == [BASE, SFT]
        assert {len(row) for row in table.rows} == {len(table.columns)}
    assert [row[0] for row in by_tau.rows][2:] == ["10%", "25%", "50%", "75%", "100%"]
    assert [row[0] for row in by_k.rows][2:] == ["K = 1", "K = 2", "K = 4"]
    assert losers.columns == ["K = 1", "K = 2", "K = 4", "K = 8"]
    assert [plot.name for plot in part.plots] == ["sopo_sweeps"]
