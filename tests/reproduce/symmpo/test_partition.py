"""A of `prefopt reproduce symmpo`: the world, its rows and its labels against slow loops, and what the losses do in it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from prefopt.objectives import DPO, SVCO, SymMPO
from prefopt.reproduce.symmpo import partition
from prefopt.reproduce.symmpo.partition import (
    ANSWERS,
    BETA,
    IMAGES,
    arms,
    consistent_margins,
    descend,
    distance,
    gradient,
    partition_functions,
    shares,
    sides,
    world,
)

HERE = world(range(2))
ROWS = [
    (m, n, a, b)
    for m, n in itertools.permutations(range(IMAGES), 2)
    for a in range(ANSWERS)
    for b in range(a)
]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_ideal_policy_maximises_reward_minus_divergence() -> None:
    """No small move of probability helps, and its value is beta log Z."""

    def value(log_p: torch.Tensor) -> torch.Tensor:
        return (log_p.exp() * (HERE.reward_SMK - BETA * (log_p - HERE.log_ref_SMK))).sum(-1)

    best = value(HERE.log_ideal_SMK)
    torch.testing.assert_close(best, BETA * HERE.log_z_SM)
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        moved = HERE.log_ideal_SMK + 0.1 * torch.randn(
            HERE.log_ideal_SMK.shape, generator=g, dtype=torch.float64
        )
        assert bool((value(moved.log_softmax(-1)) < best).all())


def test_other_seeds_leave_a_world_as_it_is() -> None:
    torch.testing.assert_close(world(range(1, 2)).reward_SMK[0], HERE.reward_SMK[1], rtol=0, atol=0)


@pytest.mark.parametrize("axis", ["answers", "images"])
def test_outcomes_of_a_row_by_hand(axis: partition.Axis) -> None:
    """Row by row, for each of the four outcomes, from the definition of the two comparisons."""
    rho = torch.arange(2 * IMAGES * ANSWERS, dtype=torch.float64).view(2, IMAGES, ANSWERS)
    share, seen = shares(HERE, axis), sides(rho, axis)
    torch.testing.assert_close(share.sum(1), torch.ones(2, len(ROWS), dtype=torch.float64))
    got = {
        "w": seen.rho_w, "l": seen.rho_l, **{name: seen.rho(name) for name in ("c", "cc", "cw")}
    }  # fmt: skip
    got = {name: x.view(2, 4, -1) for name, x in got.items()}
    for q in (0, 5, 311, len(ROWS) - 1):
        m, n, a, b = ROWS[q]
        for k, (turned, also) in enumerate(itertools.product((False, True), repeat=2)):
            if axis == "answers":
                right, wrong = (b, a) if turned else (a, b)
                other_right, other_wrong = (a, b) if also else (b, a)
                want = {"w": (m, right), "l": (m, wrong), "c": (m, wrong)}
                want |= {"cc": (n, other_right), "cw": (n, other_wrong)}
                ends = ((m, right), (m, wrong)), ((n, other_right), (n, other_wrong))
            else:
                of_a, not_a = (n, m) if turned else (m, n)
                of_b, not_b = (m, n) if also else (n, m)
                want = {"w": (of_a, a), "cw": (not_a, a), "cc": (of_b, b), "c": (not_b, b), "l": (not_a, a)}
                ends = ((of_a, a), (not_a, a)), ((of_b, b), (not_b, b))
            for name, (image, answer) in want.items():
                assert got[name][1, k, q] == rho[1, image, answer], (name, q, k)
            r = HERE.reward_SMK[1]
            expected = math.prod(sigmoid(float(r[w] - r[lost])) for w, lost in ends)
            assert float(share[1, k, q]) == pytest.approx(expected, rel=1e-12)


def test_split_labels_are_the_soft_labels_of_the_library() -> None:
    """DPO on both outcomes of a comparison is DPO with shares of votes."""
    g = torch.Generator().manual_seed(1)
    rho = torch.randn(2, IMAGES, ANSWERS, generator=g, dtype=torch.float64)
    p = torch.stack(
        [(HERE.reward_SMK[:, m, a] - HERE.reward_SMK[:, m, b]).sigmoid() for m, _, a, b in ROWS], 1
    )
    w = torch.stack([rho[:, m, a] for m, _, a, _ in ROWS], 1)
    lost = torch.stack([rho[:, m, b] for m, _, _, b in ROWS], 1)
    votes = torch.stack([p, 1 - p, 0 * p], -1)
    soft = DPO(beta=BETA)(w.flatten(), lost.flatten(), votes.flatten(0, 1)).view(2, -1).mean(-1)
    torch.testing.assert_close(arms(HERE)["DPO"](rho), soft)


def test_answers_are_stationary_at_the_ideal_policy_and_images_are_not() -> None:
    found = {name: gradient(loss, HERE, HERE.log_ideal_SMK) for name, loss in arms(HERE).items()}
    for name, largest_S in found.items():
        exact = name in partition.RESPONSES or "log Z" in name
        assert bool((largest_S < 1e-12).all() if exact else (largest_S > 1e-4).all()), name
    assert len(found) == 8


def test_answers_lead_there_and_images_elsewhere() -> None:
    losses = arms(HERE)
    for name, reached in (("SymMPO's pair term", True), ("S-VCO", False)):
        path = descend(losses[name], HERE, 150)
        assert path.shape == (151, 2)
        torch.testing.assert_close(path[0], distance(HERE, HERE.log_ref_SMK))
        assert bool((path[-1] < 1e-4).all() if reached else (path[-1] > 0.1).all()), name


def test_the_margin_term_by_hand() -> None:
    """gamma times the mean square of (r(m,a) - r(m,b) - r(m',b) + r(m',a)) / beta, at the ideal policy."""
    rho, r = HERE.log_ideal_SMK - HERE.log_ref_SMK, HERE.reward_SMK
    squares = [((r[:, m, a] - r[:, m, b] - r[:, n, b] + r[:, n, a]) / BETA) ** 2 for m, n, a, b in ROWS]
    torch.testing.assert_close(consistent_margins(0.3)(rho), 0.3 * torch.stack(squares).mean(0))
    assert bool((gradient(consistent_margins(1e-4), HERE, HERE.log_ideal_SMK) > 1e-6).all())


def test_the_two_axes_are_one_loss_on_other_comparisons() -> None:
    """S-VCO on rows compared by answers is SymMPO's pair term on rows compared by images, and the other way round."""
    g = torch.Generator().manual_seed(2)
    rho = torch.randn(2, IMAGES, ANSWERS, generator=g, dtype=torch.float64)
    pair = SymMPO(beta=BETA, pair_weight=1.0, margin_weight=0.0, anchor_weight=0.0, response_weight=0.0)
    for axis in ("answers", "images"):
        seen = sides(rho, axis)
        other = {**seen.branches, "c": seen.branches["cw"], "cw": seen.branches["c"]}
        swapped = type(seen)(rho_w=seen.rho_w, rho_l=seen.rho_l, branches=other)
        torch.testing.assert_close(pair.win_loss(seen, {}), SVCO(beta=BETA).win_loss(swapped, {}))


def test_what_is_reported() -> None:
    found = partition_functions(range(2), steps=3)
    assert len(found.claims) == 11
    exact = [c for c in found.claims if "no gradient" in c.statement]
    assert [c.verdict for c in exact] == ["holds"] * 4
    assert all(len(c.per_seed) == 2 for c in found.claims)
    table, sweep = found.tables
    assert len(table.rows) == 9
    assert [row[2] for row in table.rows if "log Z" in str(row[0])] == ["", ""]
    assert [row[0] for row in sweep.rows] == [1e-4, 1e-3, 1e-2, 1e-1]
