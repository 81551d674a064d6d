"""Claims of `prefopt reproduce longvpo` on constructed numbers, and what is shown of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from prefopt.reproduce.longvpo import long_video
from prefopt.reproduce.longvpo.films import (
    AMBIGUOUS,
    FEW,
    FIRST,
    FIXED,
    FULL,
    LAST,
    LONGVPO,
    MANY,
    NAMES,
    NO_SFT,
    SFT,
    STAGE_2,
    START,
    WRONG,
    Trained,
)
from prefopt.worlds.film.measures import Measures, Order
from prefopt.worlds.film.world import LENGTHS

SEEDS = 3
# per arm: accuracy at 1, 2, 8, 16 clips, spread at 8, order (percent), share that the reference reads; all claims are true
TRUE: dict[str, tuple[float, ...]] = {
    START: (100, 97, 55, 30, 40, 0, 1),
    LONGVPO: (100, 98, 75, 45, 8, 0, 1 / 8),
    FULL: (100, 98, 74, 45, 8, 0, 1),
    SFT: (100, 98, 73, 45, 8, 0, 1 / 8),
    FIXED: (95, 85, 60, 30, 15, 0, 1 / 8),
    FEW: (95, 85, 62, 30, 15, 0, 1 / 8),
    MANY: (100, 98, 76, 46, 7, 0, 1 / 8),
    FIRST: (85, 65, 30, 20, 50, 0, 1 / 8),
    LAST: (100, 88, 40, 25, 70, 0, 1 / 8),
    NO_SFT: (90, 85, 57, 30, 8, 0, 1 / 8),
    AMBIGUOUS: (100, 98, 70, 40, 8, 0, 1 / 8),
    WRONG: (100, 98, 65, 40, 8, 0, 1 / 8),
    STAGE_2: (100, 98, 74, 45, 8, 90, 1),
}


def run(*numbers: float) -> Trained:
    one, two, eight, sixteen, spread, order, share = numbers
    accuracies = dict(zip(LENGTHS, (one, two, 80, eight, sixteen, 20), strict=True))
    films = {
        length: Measures(
            a / 100, (a / 100,) * 4 if length > 1 else (a / 100, math.nan, math.nan, math.nan), spread / 100,
            0.9 if a < 100 else math.nan, 512,
        )
        for length, a in accuracies.items()
    }  # fmt: skip
    return Trained(films, Order(order / 100, order / 100, 512), 1.0, share, {})


def constructed(numbers: dict[str, Any] = TRUE) -> dict[str, list[Trained]]:
    """Some arms' numbers, the same with every seed but for a wobble."""
    return {
        name: [run(*(x * (1 - 1e-4 * s) for x in row[:-1]), row[-1]) for s in range(SEEDS)]
        for name, row in numbers.items()
    }


def verdicts(found: dict[str, list[Trained]]) -> dict[str, str]:
    return {claim.statement: claim.verdict for claim in long_video.claims(found)}


def test_all_hold_where_all_is_so():
    assert tuple(TRUE) == tuple(sorted(NAMES, key=list(TRUE).index))
    found = verdicts(constructed())
    assert len(found) == 21
    assert set(found.values()) == {"holds"}, found


@pytest.mark.parametrize(
    ("arm", "row", "broken"),
    [
        (LONGVPO, (100, 98, 62, 31, 8, 0, 1 / 8), ["at least 8 points", "ambiguous questions", "answers of another", "as many give less", "worth 10", "another clip's answer", "sees the anchor alone", "preference term"]),
        (LONGVPO, (100, 98, 75, 25, 8, 0, 1 / 8), ["twice as long"]),
        (LONGVPO, (100, 98, 75, 45, 45, 0, 1 / 8), ["position bias smaller", "to at most 20"]),
        (LONGVPO, (100, 98, 75, 45, 30, 0, 1 / 8), ["to at most 20"]),
        (LONGVPO, (95, 98, 75, 45, 8, 0, 1 / 8), ["films of one clip"]),
        (LONGVPO, (100, 90, 75, 45, 8, 0, 1 / 8), ["films of 2 clips"]),
        (LONGVPO, (100, 98, 75, 45, 8, 0, 1.0), ["one clip in eight"]),
        (LAST, (100, 88, 40, 25, 30, 0, 1 / 8), ["last the position bias"]),
        (LAST, (100, 88, 60, 25, 70, 0, 1 / 8), ["last long films"]),
        (FIRST, (100, 88, 30, 25, 30, 0, 1 / 8), ["first the position bias"]),
        (FIRST, (100, 88, 60, 25, 70, 0, 1 / 8), ["first long films"]),
        (NO_SFT, (100, 98, 75, 45, 8, 0, 1 / 8), ["without the second term"]),
        (FULL, (100, 98, 77, 45, 8, 0, 1), ["sees the anchor alone"]),
        (AMBIGUOUS, (100, 98, 77, 45, 8, 0, 1 / 8), ["ambiguous questions"]),
        (WRONG, (100, 98, 77, 45, 8, 0, 1 / 8), ["answers of another clip do harm"]),
        (STAGE_2, (100, 98, 74, 45, 8, 60, 1), ["order of two scenes"]),
        (STAGE_2, (100, 98, 60, 45, 8, 90, 1), ["keeps what the first"]),
        (MANY, (100, 98, 85, 45, 8, 0, 1 / 8), ["256 pairs are enough"]),
        (FIXED, (100, 98, 70, 45, 8, 0, 1 / 8), ["drawn anew make"]),
        (SFT, (100, 98, 78, 45, 8, 0, 1 / 8), ["preference term adds", "fewer films"]),
    ],
)  # fmt: skip
def test_each_claim_fails_where_it_is_not_so(arm, row, broken):
    found = verdicts(constructed({**TRUE, arm: row}))
    failed = sorted(statement for statement, verdict in found.items() if verdict != "holds")
    assert len(failed) == len(broken)
    assert all(any(words in statement for statement in failed) for words in broken), failed


def test_what_is_shown_has_every_arm():
    part = long_video.experiment(constructed())
    [table] = part.tables
    assert [row[0] for row in table.rows] == list(NAMES)
    assert len({len(row) for row in table.rows} | {len(table.columns)}) == 1
    start = dict(zip(table.columns, table.rows[0], strict=True))
    assert start["8 clips"].startswith("55.0")
    assert start["quarters at 8"] == "55 55 55 55"
    assert start["another clip's, 8"].startswith("40.5")
    assert [plot.name for plot in part.plots] == ["longvpo_places", "longvpo_lengths"]
    assert list(part.settings["films"]["arms"]) == [
        name for name in NAMES if name in part.settings["films"]["arms"]
    ]
