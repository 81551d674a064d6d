"""E2: costs to the same reward, on constructed runs."""

from __future__ import annotations

import math

import pytest

from prefopt.reproduce.lpo import cost as lpo_cost
from prefopt.reproduce.lpo.cost import DPO, LPO, SPO, cost_to, operations, ratio_claim, reward_at
from prefopt.reproduce.lpo.world import (
    Cost,
    Point,
    Run,
)


def cost_of(work: float) -> Cost:
    return Cost(work / 100, work, {"U-Net": int(work)}, {})


def run_of(*path: tuple[float, float]) -> Run:
    """(cost, utility) of each point."""
    return Run(
        tuple(
            Point(k, cost_of(cost), {"utility": u, "match": u / 4, "full": 0.0, "aesthetic": 0.5})
            for k, (cost, u) in enumerate(path)
        ),
        0.3,
        10,
    )


def test_cost_to_a_gain_is_that_of_the_first_crossing():
    run = run_of((0, 3.0), (100, 3.1), (200, 3.5), (300, 3.2), (400, 3.6))
    assert cost_to(run, 0.2, operations) == pytest.approx(125.0)
    assert cost_to(run, 0.05, operations) == pytest.approx(50.0)
    assert cost_to(run, 0.7, operations) == math.inf


def test_reward_at_a_cost_is_the_starts_before_and_the_ends_after():
    run = run_of((0, 3.0), (100, 3.1), (200, 3.5))
    for cost, value in ((-50, 3.0), (0, 3.0), (50, 3.05), (150, 3.3), (500, 3.5)):
        assert reward_at(run, cost, operations) == pytest.approx(value), cost


def constructed(factor: float, seeds: int = 3) -> tuple[lpo_cost.Runs, lpo_cost.Judges]:
    """Runs in which SPO and Diffusion-DPO need about `factor` times LPO's cost, and rise by 1 / factor as much."""

    def path(scale: float, height: float, s: int) -> Run:
        scale *= 1 + 0.02 * s
        return run_of((0, 3.0), (100 * scale, 3.0 + height), (200 * scale, 3.0 + 1.2 * height))

    runs = {
        name: [
            path(1.0 if name == LPO else factor, 0.5 if name == LPO else 0.5 / factor**0.3, s)
            for s in range(seeds)
        ]
        for name in (LPO, SPO, DPO)
    }
    # Diffusion-DPO's total is without a judge: LPO's must be small not to decide
    return runs, {LPO: [cost_of(1)] * seeds, SPO: [cost_of(1)] * seeds}


@pytest.mark.parametrize(("factor", "verdict"), [(4.0, "holds"), (0.25, "does not hold here")])
def test_claims_follow_the_costs_both_ways(factor, verdict):
    found = lpo_cost.claims(*constructed(factor))
    assert found[0].verdict == "holds"  # all rise
    assert len(found) == 15
    assert {c.verdict for c in found[1:]} == {verdict}, [(c.statement, c.measured) for c in found]


def test_judge_training_counts_where_it_is_said_to():
    runs, judges = constructed(4.0)
    judges = {LPO: [cost_of(1e5)] * 3, SPO: [cost_of(1)] * 3}
    apart, included = (ratio_claim(runs, judges, SPO, "operations", i) for i in (False, True))
    assert apart.verdict == "holds"
    assert apart.measured > 2
    assert included.verdict == "does not hold here"
    against_dpo = ratio_claim(runs, judges, DPO, "operations", True)
    assert against_dpo.measured < -5  # which has no judge to pay


def test_a_rival_that_never_arrives_counts_with_its_whole_run_and_says_so():
    runs = {LPO: [run_of((0, 3.0), (100, 4.0))] * 2, SPO: [run_of((0, 3.0), (800, 3.1))] * 2}
    claim = ratio_claim(runs, {}, SPO, "operations", False)
    assert claim.measured == pytest.approx(math.log2(800 / (100 * lpo_cost.GAIN)))
    assert "did not get there with 2 of 2 seeds" in claim.how
    turned = ratio_claim({LPO: runs[SPO], SPO: runs[LPO]}, {}, SPO, "operations", False)
    assert turned.verdict == "inconclusive"
    assert math.isnan(turned.measured)
