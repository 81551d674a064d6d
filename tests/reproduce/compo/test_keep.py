"""M4: which share of the vote's entries to keep."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prefopt.reproduce.compo import keep as compo_keep
from prefopt.reproduce.compo.keep import Kept, keep_fractions
from prefopt.reproduce.compo.world import STEP, Size

SMALL = Size(pairs=4, draws=2, moves=(800, 1600), keep_pairs=2, keep_moves=200, memory_moves=(10, 40))


def test_keeping_fewer_shortens_the_published_step_alone():
    for by_share in keep_fractions(0, SMALL).values():
        norms = [by_share[share].norm for share in compo_keep.SHARES]
        assert norms[0] == pytest.approx(STEP)
        assert norms == sorted(set(norms), reverse=True)
        assert by_share[1.0].published == pytest.approx(by_share[1.0].scaled, rel=1e-3)
        assert abs(by_share[0.01].published) < abs(by_share[0.01].scaled)


def test_dense_gradients_lose_by_selection():
    dense = keep_fractions(1, replace(SMALL, keep_moves=800))["dense"]
    assert dense[1.0].scaled > dense[0.06].scaled > dense[0.0015].scaled


def test_keep_claims_tell_choice_of_entries_from_length():
    def of(published, scaled):
        return {
            s: Kept(0.05, 0.1, p, q) for s, p, q in zip(compo_keep.SHARES, published, scaled, strict=True)
        }

    seeds = [
        {
            "dense": of((5, 4, 3, 2, 1), (5, 4, 3, 2, 1)),
            "sparse": of((5, 4, 3 + e, 2, 1), (1, 2, 4 + e, 5, 3)),
        }
        for e in (0.0, 0.1, 0.2)
    ]
    verdicts = {c.statement.removeprefix("M4: "): c.verdict for c in compo_keep.claims(seeds)}
    stem = "sparse gradient: keeping 1 to 6 % of the entries beats keeping"
    assert verdicts[f"{stem} all (as published)"] == "does not hold here"
    assert verdicts[f"{stem} all (at equal length)"] == "holds"
    assert verdicts[f"{stem} 0.15 % (at equal length)"] == "holds"
    assert verdicts["dense gradient: keeping all beats keeping 1 to 6 % (at equal length)"] == "holds"
