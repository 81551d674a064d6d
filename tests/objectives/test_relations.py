"""Objectives that must coincide, their known gradients, and their minimisers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives import battery
from prefopt import objectives
from prefopt.objectives import apply_ties_policy

S = battery.random_sides(seed=21)


def loss(name: str, s: Any = S, **hyper: Any) -> Tensor:
    return battery.call(objectives.get(name, **hyper), s)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("cdpo", {"label_smoothing": 0.0}),
        ("robust", {"label_smoothing": 0.0}),
        ("f_po", {"f": "forward_kl", "label_smoothing": 0.0}),
        ("f_dpo", {"f": "reverse_kl"}),
        ("dpo", {"margin": "reverse_kl"}),
        ("ld_dpo", {"a": 1.0}),
        ("r_dpo", {"alpha": 0.0}),
        ("dpop", {"lambda_": 0.0}),
        ("dpo_rk", {"nu": 1.0}),
        ("dpo_d", {"nu": 0.0}),
        ("bpo", {"h": "lr"}),
        ("sigmoid", {}),
    ],
)
def test_reduces_to_dpo(name: str, hyper: dict[str, Any]) -> None:
    torch.testing.assert_close(loss(name, beta=0.3, **hyper), loss("dpo", beta=0.3))


def test_dpop_is_dpo_while_the_winner_is_above_the_reference() -> None:
    s = battery.sides(S.rho_w.abs(), S.rho_l)
    torch.testing.assert_close(loss("dpop", s, beta=0.3), loss("dpo", s, beta=0.3))


def test_r_dpo_with_equal_lengths_is_dpo() -> None:
    s = battery.sides(S.rho_w, S.rho_l, equal_lengths=True)
    torch.testing.assert_close(loss("r_dpo", s, alpha=2.0), loss("dpo", s))
    longer = loss("r_dpo", alpha=2.0) < loss("dpo")
    assert bool((longer == (S.length_w > S.length_l)).all())


def test_ld_dpo_ignores_the_longer_tail_at_zero() -> None:
    short = torch.minimum(S.length_w, S.length_l)
    margin = (S.rho_w / S.length_w - S.rho_l / S.length_l) * short  # tokens share rho equally
    torch.testing.assert_close(loss("ld_dpo", a=0.0), loss("dpo", battery.sides(margin, 0 * margin)))


def test_exo_is_f_po_reverse_kl() -> None:
    torch.testing.assert_close(
        loss("exo", label_smoothing=0.05), loss("f_po", f="reverse_kl", label_smoothing=0.05)
    )


def test_f_po_forward_kl_is_conservative_dpo_up_to_a_constant() -> None:
    gap = loss("f_po", f="forward_kl", label_smoothing=0.2) - loss("cdpo", label_smoothing=0.2)
    torch.testing.assert_close(gap, gap[:1].expand_as(gap))


def test_simpo_without_target_is_contrastive_po_on_averages() -> None:
    averaged = battery.sides(S.rho_w / S.length_w, S.rho_l / S.length_l)
    contrastive = loss("contrastive_po", averaged, beta=2.0, alpha=0.0)
    torch.testing.assert_close(loss("simpo", beta=2.0, gamma=0.0), contrastive)


def test_aot_of_one_row_is_dpo() -> None:
    for i in range(battery.E):
        one = battery.at(S, torch.tensor([i]))
        for name in ("aot", "aot_unpaired"):
            torch.testing.assert_close(loss(name, one, beta=0.1), loss("dpo", one, beta=0.1))


def test_robust_loss_is_unbiased_over_flips() -> None:
    e = 0.2
    kept, flipped = loss("robust", label_smoothing=e), loss("robust", S.swapped(), label_smoothing=e)
    torch.testing.assert_close((1 - e) * kept + e * flipped, loss("dpo"))


def test_robust_loss_has_no_lower_bound() -> None:
    s = battery.sides(torch.tensor([1e4]), torch.tensor([0.0]))
    assert float(loss("robust", s, beta=1.0, label_smoothing=0.1)) == pytest.approx(-0.1 * 1e4 / 0.8)


@pytest.mark.parametrize(
    ("name", "slope_w", "slope_l"),
    [
        ("nca", -0.25, 0.25),
        ("bco_pair", -0.5, 0.5),
        ("apo_zero", -0.25, 0.25),
        ("apo_down", 0.0, 0.25),
        ("dpo", -0.5, 0.5),
        ("dpo_rk", -0.75, 0.75),
        ("dpo_d", -0.5, 0.5),
        ("bpo", -0.5, 0.5),
    ],
)
def test_slopes_at_zero(name: str, slope_w: float, slope_l: float) -> None:
    rho_w, rho_l = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    grads = torch.autograd.grad(objectives.get(name, beta=1.0)(rho_w, rho_l).sum(), [rho_w, rho_l])
    assert [float(g) for g in grads] == pytest.approx([slope_w, slope_l])


def test_minimisers_of_the_squared_losses() -> None:
    assert (
        float(
            objectives.get("ipo", beta=0.1, length_normalize=False)(torch.tensor([7.0]), torch.tensor([2.0]))
        )
        == 0
    )
    averaged = objectives.get("ipo", beta=0.1)
    at_target = averaged(
        *torch.tensor([[70.0], [40.0]]), length_w=torch.tensor([10.0]), length_l=torch.tensor([20.0])
    )
    assert float(at_target) == 0
    assert float(objectives.get("sppo", beta=0.001)(torch.tensor([500.0]), torch.tensor([-500.0]))) == 0


def test_ipo_switches_its_margin_with_length_normalize() -> None:
    assert objectives.get("ipo").replace(length_normalize=False) == objectives.get(
        "ipo", length_normalize=False
    )
    with pytest.raises(ValueError, match="length_normalize"):
        objectives.get("ipo", margin="js")


def test_hand_computed_values() -> None:
    w, l = torch.tensor([2.0], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64)  # noqa: E741
    n = {"length_w": torch.tensor([4.0]), "length_l": torch.tensor([2.0])}
    assert float(objectives.get("hinge", beta=0.2)(w, l)) == pytest.approx(0.4)
    assert float(objectives.get("slic", delta=4.0, lambda_=0.5)(w, l)) == pytest.approx(1.0 - 1.0)
    # average log-probabilities -1/2 and -1
    odds = [p / (1 - p) for p in (math.exp(-0.5), math.exp(-1))]
    orpo = objectives.get("orpo", **{"lambda": 0.1})(-w, 2 * l, **n)
    assert float(orpo) == pytest.approx(0.5 + 0.1 * math.log(1 + odds[1] / odds[0]), rel=1e-6)
    u = 0.1 * 3.0
    disco = objectives.get("discopop", beta=0.1)(w, l)
    s = 1 / (1 + torch.exp(torch.tensor(-u / 0.05)))
    expected = (1 - s) * torch.log1p(torch.exp(torch.tensor(-u))) + s * torch.exp(torch.tensor(-u))
    assert float(disco) == pytest.approx(float(expected), rel=1e-6)


def test_orpo_survives_certainty() -> None:
    rho = torch.tensor([0.0, -1e-9, -1e4], requires_grad=True)
    lengths = {"length_w": torch.ones(3), "length_l": torch.ones(3)}
    loss = objectives.get("orpo")(rho, rho.detach().flip(0), **lengths)
    (grad,) = torch.autograd.grad(loss.sum(), rho)
    assert bool(loss.isfinite().all())
    assert bool(grad.isfinite().all())


def test_wpo_weighs_by_how_typical_the_text_is() -> None:
    expected = torch.exp((S.logp_w - S.log_p2_w) / S.length_w + (S.logp_l - S.log_p2_l) / S.length_l)
    torch.testing.assert_close(loss("wpo") / loss("dpo"), expected)


def test_sppo_votes_have_the_gradient_of_the_soft_form() -> None:
    p, beta = 0.7, 0.5
    w, l = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (0.3, -0.2))  # noqa: E741
    votes = torch.tensor([[p, 1 - p, 0.0]], dtype=torch.float64)
    ours = objectives.get("sppo", beta=beta)(w, l, votes)
    paper = (w - (p - 0.5) / beta) ** 2 + (l + (p - 0.5) / beta) ** 2
    for got, expected in zip(*(torch.autograd.grad(x.sum(), [w, l]) for x in (ours, paper)), strict=True):
        torch.testing.assert_close(got, expected)


def test_soft_half_ties_are_half_a_win_each_way() -> None:
    ties = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(battery.E, 3)
    halves, keep = apply_ties_policy(ties, "soft_half")
    assert bool(keep.all())
    dpo = objectives.get("dpo")
    expected = (battery.call(dpo, S) + battery.call(dpo, S.swapped())) / 2
    torch.testing.assert_close(battery.call(dpo, S, halves), expected)
    assert not bool(apply_ties_policy(ties, "drop")[1].any())
    assert bool((apply_ties_policy(ties, "as_win")[0][:, 0] == 1).all())
    with pytest.raises(ValueError, match="as_win"):
        apply_ties_policy(ties, "ignore")
