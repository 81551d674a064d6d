"""Metrics are sums and counts, so that any split of the data gives the same means; each is checked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from prefopt import objectives
from prefopt.objectives.sides import Sides
from prefopt.training.metrics import EQUAL, SumsAndCounts, add_comparison_metrics

T = torch.tensor
WIN, LOSE, TIE = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]


def measured(name: str, outcome: list[list[float]], counted: list[float], losses: list[float], **sides):
    """Means of one batch, beta 2."""
    found = SumsAndCounts()
    objective = objectives.get(name, beta=2.0)
    given = {k: T(v) for k, v in sides.items()}
    if "rho_l" not in given:
        given["rho_l"] = torch.zeros_like(given["rho_w"])
    add_comparison_metrics(
        found, objective, Sides(**given), T(outcome), T(counted), T(losses), objective.initial_state()
    )
    return found.means()


def test_means_are_of_the_selected():
    m = SumsAndCounts()
    m.add("a", T([1.0, 2.0, 6.0]), T([True, True, False]))
    m.add("a", T([9.0]))
    m.add("b", T([1.0]), T([False]))
    m.add("c", T([2.0, 4.0]), T([3.0, 1.0]))  # weights
    assert m.means() == {"a": 4.0, "c": 2.5}  # nothing to say of b
    assert m.names == ["a", "b", "c"]
    m.clear()
    assert m.means() == {}


def test_rows_that_do_not_count_may_hold_anything():
    m = SumsAndCounts()
    m.add("a", T([1.0, math.inf, math.nan]), T([True, False, False]))
    assert m.means() == {"a": 1.0}


def test_means_over_processes_add_sums_and_counts():
    one, other = SumsAndCounts(), SumsAndCounts()
    one.add("a", T([1.0, 2.0, 3.0]))
    other.add("a", T([10.0]))
    other.add("b", T([5.0]))
    names = ["a", "b"]
    held: list[torch.Tensor] = []
    other.means(lambda x: held.append(x) or x, names)
    assert one.means(lambda x: x + held[0], names) == {"a": 4.0, "b": 5.0}


def test_pairs():
    found = measured(
        "dpo_rk",
        # a win; a loss (the second side is the better); a tie; padding
        outcome=[WIN, LOSE, TIE, WIN],
        counted=[1.0, 1.0, 1.0, 0.0],
        losses=[1.0, 2.0, 6.0, 100.0],
        rho_w=[-0.5, -3.0, 0.5, 50.0],
        rho_l=[-2.5, -1.0, 1.0, -50.0],
        logp_w=[-10.0, -20.0, -30.0, -99.0],
        logp_l=[-11.0, -22.0, -33.0, -99.0],
        length_w=[5.0, 9.0, 3.0, 99.0],
        length_l=[3.0, 2.0, 3.0, 1.0],
    )
    assert found["loss"] == pytest.approx(3.0)
    assert found["rewards/chosen"] == pytest.approx(2 * (-0.5 - 1) / 2)  # beta times log-ratio; ties apart
    assert found["rewards/rejected"] == pytest.approx(2 * (-2.5 - 3) / 2)
    assert found["rewards/margins"] == pytest.approx(2 * (2 + 2) / 2)
    assert found["rewards/accuracies"] == 1.0
    assert found["displacement"] == 1.0  # the better side of both lost probability
    assert found["logps/chosen"] == pytest.approx((-10 - 22) / 2)
    assert found["logps/rejected"] == pytest.approx((-11 - 20) / 2)
    assert found["length_gap"] == pytest.approx((2 - 7) / 2)
    assert found["ties/share"] == pytest.approx(1 / 3)
    assert found["ties/margin_abs"] == pytest.approx(2 * 0.5)
    assert found["ties/loss"] == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("gap", "accuracy"), [(0.0, 0.5), (EQUAL / 10, 0.5), (-EQUAL / 10, 0.5), (1e-3, 1.0), (-1e-3, 0.0)]
)
def test_an_equal_margin_is_half_right(gap, accuracy):
    found = measured("dpo", [WIN], [1.0], [0.0], rho_w=[gap], rho_l=[0.0])
    assert found["rewards/accuracies"] == accuracy


def test_half_the_votes_make_a_tie():
    found = measured(
        "dpo_rk",
        [[0.5, 0.0, 0.5], [0.6, 0.0, 0.4]],
        [1.0, 1.0],
        [1.0, 2.0],
        rho_w=[3.0, 1.0],
        rho_l=[0.0, 0.0],
    )
    assert found["ties/share"] == 0.5
    assert found["ties/margin_abs"] == 6.0
    assert found["rewards/margins"] == 2.0


def test_ties_are_in_no_loss_without_a_tie_term():
    found = measured("dpo", [WIN, TIE], [1.0, 1.0], [1.0, 50.0], rho_w=[1.0, 1.0], rho_l=[0.0, 0.0])
    assert found["loss"] == 1.0
    assert "ties/loss" not in found
    assert found["ties/share"] == 0.5


def test_small_differences_count_where_rewards_are_steep():
    objective = objectives.get("dpo", beta=2000.0)
    found = SumsAndCounts()
    sides = Sides(rho_w=T([EQUAL / 10]), rho_l=T([0.0]))
    add_comparison_metrics(found, objective, sides, T([WIN]), T([1.0]), T([0.0]), {})
    assert found.means()["rewards/accuracies"] == 1.0


def test_single_samples():
    found = measured(
        "kto",
        outcome=[WIN, LOSE, WIN, LOSE],
        counted=[1.0, 1.0, 1.0, 0.0],
        losses=[1.0, 2.0, 3.0, 100.0],
        rho_w=[1.0, -2.0, -4.0, 77.0],
        logp_w=[-1.0, -2.0, -5.0, -77.0],
    )
    assert found["loss"] == 2.0
    assert found["rewards/chosen"] == pytest.approx(2 * (1 - 4) / 2)
    assert found["rewards/rejected"] == pytest.approx(2 * -2)
    assert found["logps/chosen"] == -3.0
    assert found["logps/rejected"] == -2.0
    assert found["displacement"] == 0.5  # of the desirable samples
    assert "rewards/margins" not in found


def test_diagnostics_leave_padding_out():
    class Watched(objectives.DPO):
        def diagnostics(self, sides, state):
            return {"own": sides.rho_w}

    found = SumsAndCounts()
    sides = Sides(rho_w=T([1.0, 3.0, 100.0]), rho_l=torch.zeros(3))
    add_comparison_metrics(found, Watched(), sides, T([WIN] * 3), T([1.0, 1.0, 0.0]), torch.zeros(3), {})
    assert found.means()["own"] == 2.0


def test_no_displacement_without_a_reference():
    found = SumsAndCounts()
    objective = objectives.get("simpo")
    sides = Sides(rho_w=T([-1.0]), rho_l=T([0.0]), length_w=T([1.0]), length_l=T([1.0]))
    add_comparison_metrics(found, objective, sides, T([WIN]), T([1.0]), T([0.0]), {})
    assert "displacement" not in found.means()


def test_token_metrics_are_means_over_tokens():
    """6 nats and 3 hits in 4 + 1 counted tokens; the second comparison is padding."""
    more = {
        "length_w": [4.0, 9.0], "length_l": [1.0, 9.0], "entropy_w": [5.0, 90.0], "entropy_l": [1.0, 90.0],
        "top1_w": [2.0, 9.0], "top1_l": [1.0, 9.0],
    }  # fmt: skip
    found = measured("dpo", [WIN, WIN], [1.0, 0.0], [0.0, 0.0], rho_w=[0.0, 0.0], rho_l=[0.0, 0.0], **more)
    assert found["entropy"] == pytest.approx(6 / 5)
    assert found["mean_token_accuracy"] == pytest.approx(3 / 5)
    alone = measured(
        "kto", [WIN, LOSE], [1.0, 1.0], [0.0, 0.0], rho_w=[0.0, 0.0],
        length_w=[4.0, 1.0], entropy_w=[5.0, 1.0], top1_w=[2.0, 1.0],
    )  # fmt: skip
    assert (alone["entropy"], alone["mean_token_accuracy"]) == (pytest.approx(6 / 5), pytest.approx(3 / 5))
