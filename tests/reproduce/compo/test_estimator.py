"""M1 to M3: the vote of the moves against closed forms, and its claims."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from prefopt.oracles.direction import expected_cosine
from prefopt.reproduce.compo import estimator as compo_estimator
from prefopt.reproduce.compo.estimator import DPO, LIMIT, estimates, summary
from prefopt.reproduce.compo.world import STEP, Size

SMALL = Size(pairs=4, draws=2, moves=(800, 1600), keep_pairs=2, keep_moves=200, memory_moves=(10, 40))


@pytest.fixture(scope="module")
def found():
    return [estimates(seed, SMALL) for seed in (0, 1)]


def test_summary_by_hand():
    steps = [[(0.1, -0.1, 0.2, 0.3), (0.3, -0.1, 0.4, 0.3)], [(-0.1, 0.1, 0.6, 0.3), (-0.1, -0.2, 0.0, 0.3)]]
    s = summary(steps)
    assert (s.chosen_falls, s.rejected_rises, s.both_right) == (0.5, 0.25, 0.5)
    assert (s.chosen, s.rejected, s.cosine, s.formula) == pytest.approx((0.05, -0.075, 0.3, 0.3))
    assert s.gain == pytest.approx(0.125 / STEP)
    # gains 0.2, 0.4 and -0.2, 0.1: squares 0.02 and 0.045 about their means, two degrees of freedom
    assert s.spread == pytest.approx(math.sqrt(0.065 / 2) / STEP)
    assert summary([[(0.1, -0.1, 1.0, 1.0)]]).spread == 0.0


def test_the_estimator_is_what_the_closed_forms_say(found):
    for f in found:
        for rate, p in f.rates:
            assert rate == pytest.approx(p, abs=0.03)  # 3200 moves: standard error 0.006
        for m in SMALL.moves:
            assert f.moved[m].cosine == pytest.approx(f.moved[m].formula, abs=0.05)  # standard error 0.012
        assert f.moved[LIMIT].cosine == pytest.approx(1.0)
    p = found[0].rates[0][1]
    assert found[0].moved[1600].formula == pytest.approx(expected_cosine(p, 1600, 800), rel=0.2)


def test_dpo_displaces_and_the_limit_does_not(found):
    for f in found:
        assert f.moved[DPO].chosen_falls > 0.5
        assert f.moved[LIMIT].both_right == 1.0
        assert f.by_scale[0.8] == (0.0, 0.0)
        assert f.by_scale[1.4][0] > f.by_scale[1.4][1] == 0.0
        assert f.moved[800].gain < f.moved[1600].gain < f.moved[LIMIT].gain < f.moved[DPO].gain


def test_claims_that_are_contradicted_say_so(found):
    verdicts = {c.statement: c.verdict for c in compo_estimator.claims([found[0]] * 3, SMALL)}
    assert verdicts["M3: more moves improve a pair more"] == "holds"
    swapped = replace(
        found[0], moved={**found[0].moved, 800: found[0].moved[1600], 1600: found[0].moved[800]}
    )
    verdicts = {c.statement: c.verdict for c in compo_estimator.claims([swapped] * 3, SMALL)}
    assert verdicts["M3: more moves improve a pair more"] == "does not hold here"
    assert verdicts["M1: the share of moves that help is 1/2 - phi / 2 pi"] == "holds"
