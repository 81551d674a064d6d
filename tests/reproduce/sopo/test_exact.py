"""E1 of `prefopt reproduce sopo`: its claims on constructed numbers, and what is shown."""

from __future__ import annotations

import pytest

from prefopt.reproduce.sopo import exact, plane
from prefopt.reproduce.sopo.plane import BASE, DSOPO, LARGE, OFFLINE, ONLINE, PREFERRED, SFT, SOPO, USOPO

# reward, coverage, far off, NLL: all claims are true
TRUE = {
    BASE: (0.05, 0.01, 0.77, 7.5),
    SFT: (0.48, 0.22, 0.03, 3.6),
    OFFLINE: (0.2, 0.0, 0.5, 12.0),
    ONLINE: (0.98, 0.0, 0.01, 8.0),
    DSOPO: (0.5, 0.24, 0.013, 3.5),
    USOPO: (0.5, 0.24, 0.013, 3.5),
    SOPO: (0.5, 0.24, 0.013, 3.5),
    PREFERRED: (0.8, 0.48, 0.0, 2.5),
}


def outcomes(numbers=TRUE, at_large=(0.3, 0.1, 0.2, 4.0)):
    def one(seed):
        measured = {
            (method, beta): plane.Measured(
                *(x * (1 + 1e-4 * seed) for x in (at_large if beta == LARGE else numbers[method]))
            )
            for method, beta in (*plane.JOBS, (PREFERRED, 0.0))
        }
        return plane.Outcome(measured, {m: [[0.0, 0.0], [1.0, 1.0]] for m in numbers})

    return [one(seed) for seed in range(3)]


def failed(numbers=TRUE, **more):
    return [c.statement for c in exact.claims(outcomes(numbers, **more)) if c.verdict != "holds"]


def test_all_hold_where_all_is_so():
    assert len(exact.claims(outcomes())) == 8
    assert failed() == []


@pytest.mark.parametrize(
    ("method", "row", "broken"),
    [
        (SOPO, (0.5, 0.24, 0.6, 3.5), ["leave more far off", "less far off than SFT"]),
        (SOPO, (0.5, 0.24, 0.013, 13.0), ["fixed losers fit what", "online DPO fits what", "better than SFT"]),
        (ONLINE, (0.49, 0.0, 0.01, 8.0), ["highest mean reward"]),
        (ONLINE, (0.98, 0.3, 0.01, 8.0), ["forgets one of the two"]),
        (SFT, (0.48, 0.22, 0.03, 3.4), ["better than SFT"]),
        (SFT, (0.48, 0.22, 0.01, 3.6), ["less far off than SFT"]),
    ],
)  # fmt: skip
def test_each_claim_fails_where_it_is_not_so(method, row, broken):
    found = failed({**TRUE, method: row})
    assert len(found) == len(broken)
    assert all(any(words in statement for statement in found) for words in broken), found


def test_one_beta_against_a_claim_is_enough():
    given = outcomes()
    for outcome in given:
        outcome.measured[SOPO, 0.5] = outcome.measured[SOPO, 0.5]._replace(nll=3.7)
    verdicts = {c.statement: c for c in exact.claims(given)}
    claim = verdicts["E1: SoPo fits what is preferred better than SFT does"]
    assert claim.verdict == "does not hold here"
    assert "beta 0.5" in claim.how


def test_a_large_beta_is_looked_at():
    assert failed(at_large=(0.6, 0.1, 0.2, 4.0)) == [
        "E1: SoPo has a larger mean reward at beta 0.5 than at 1"
    ]


def test_what_is_shown_has_every_method():
    part = exact.experiment(outcomes(), 300)
    [table] = part.tables
    assert [row[0] for row in table.rows] == [*(method for method, _ in plane.JOBS), PREFERRED]
    assert table.rows[1][2:] == pytest.approx(list(TRUE[SFT]), rel=1e-3)
    assert [plot.name for plot in part.plots] == ["sopo_plane"]
    assert part.settings["E1"]["betas"] == [0.1, 0.5, 1.0]
