"""Objectives on two images: the golden vectors, what they reduce to, and what stays finite."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives.vision_cases import CASES, check, close, inputs, objective, of_kind
from prefopt import objectives
from prefopt.objectives import DPO, MDPO, SVCO, Score, Sides, SymMPO, Weighted
from prefopt.objectives.images import above_zero

FIVE = ("w", "l", "c", "cc", "cw")
LOG2 = math.log(2)


def sides(rho: dict[str, Tensor]) -> Sides:
    """From log-ratios by name; whatever is not w or l is a branch."""
    own = {f"rho_{name}": rho[name] for name in ("w", "l") if name in rho}
    if "rho_l" not in own:
        own["rho_l"] = torch.zeros_like(rho["w"])
    branches = {name: Score(rho=value) for name, value in rho.items() if name not in ("w", "l")}
    return Sides(**own, branches=branches)


def drawn(seed: int = 0, n: int = 5, scale: float = 8.0, names: tuple[str, ...] = FIVE) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        name: (scale * torch.randn(n, generator=g, dtype=torch.float64)).requires_grad_() for name in names
    }


def loss(objective: Weighted, rho: dict[str, Tensor]) -> Tensor:
    return objective.win_loss(sides(rho), {})


def value(objective: Weighted, name: str, rho: dict[str, Tensor]) -> Tensor:
    return objective.terms[name][1](sides(rho))


def gradients(loss_E: Tensor, rho: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss_E.sum(), list(rho.values()), allow_unused=True)
    return {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(rho.items(), found, strict=True)}


def of_vectors(case: dict[str, Any]) -> dict[str, Tensor]:
    return {name.removeprefix("rho_"): x for name, x in inputs(case).items()}


def test_every_vector_is_used_by_a_test() -> None:
    kinds = {
        "symmpo": 14,
        "mdpo": 3,
        "svco": 1,
        "vdpo": 3,
        "ddpo": 3,
        "chip": 2,
        "povid": 1,
        "hadpo": 1,
        "opadpo": 1,
    }
    assert len(CASES) == sum(kinds.values()) == 29
    for kind, count in kinds.items():
        of_kind(kind, count)


@pytest.mark.parametrize("case", [*of_kind("symmpo", 14), *of_kind("mdpo", 3), *of_kind("svco", 1)])
def test_golden_vectors(case: dict[str, Any]) -> None:
    """Terms are given before their weights, those of weight 0 too."""
    of, rho = objective(case), of_vectors(case)
    check(case, loss(of, rho), {f"rho_{name}": x for name, x in rho.items()})
    for name, expected in case["expected"]["terms"].items():
        close(value(of, {"dpo": "response"}.get(name, name), rho), expected)
    between = case["expected"]["intermediate"]
    if between:
        m_1, m_2 = of.margins(sides(rho))
        close(m_1, between["margin_pair"])
        close(m_2, between["margin_pair_swapped"])
        close(rho["w"] - rho["l"], between["margin_response"])


@pytest.mark.parametrize("case", of_kind("opadpo", 1))
def test_golden_vectors_of_corrected_answers(case: dict[str, Any]) -> None:
    of, leaves = objective(case), inputs(case)
    names = {"w": "gt", "l": "gen", "rev": "rev", "cw": "gt_mask", "crev": "rev_mask"}
    rho = {ours: leaves[f"rho_{theirs}"] for ours, theirs in names.items()}
    check(case, loss(of, rho), leaves)
    for name, expected in case["expected"]["terms"].items():
        close(value(of, {"text": "response"}.get(name, name), rho), expected)


def test_without_further_terms_it_is_dpo() -> None:
    rho = drawn()
    for of in (
        SymMPO(pair_weight=0.0, margin_weight=0.0, anchor_weight=0.0),
        MDPO(image_weight=0.0, anchor_weight=0.0),
    ):
        assert of.branches == {}
        torch.testing.assert_close(loss(of, {"w": rho["w"], "l": rho["l"]}), DPO()(rho["w"], rho["l"]))


@pytest.mark.parametrize(("pair_weight", "anchor_weight"), [(0.5, 1.0), (0.3, 0.7)])
def test_at_the_reference(pair_weight: float, anchor_weight: float) -> None:
    zero = {name: torch.zeros(2, dtype=torch.float64) for name in FIVE}
    of = SymMPO(pair_weight=pair_weight, anchor_weight=anchor_weight)
    assert loss(of, zero).tolist() == pytest.approx([LOG2 * (1 + 2 * pair_weight + 2 * anchor_weight)] * 2)
    assert value(of, "margin", zero).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("units", ["logratio", "reward"])
def test_exchanging_the_images_changes_the_response_term_alone(units: Any) -> None:
    of, rho = SymMPO(margin_weight=0.01, anchor_delta=0.3, margin_units=units), drawn(1)
    turned = {"w": rho["cc"], "cc": rho["w"], "c": rho["cw"], "cw": rho["c"], "l": rho["l"]}
    for name in ("pair", "margin", "anchor"):
        torch.testing.assert_close(value(of, name, rho), value(of, name, turned))
    assert not torch.allclose(value(of, "response", rho), value(of, "response", turned))


def test_an_answer_to_both_images_teaches_nothing_about_them() -> None:
    """y'_w = y_w: the same token sequence, so the same numbers."""
    rho, of = (
        drawn(2, names=("w", "l", "cc")),
        SymMPO(anchor_weight=0.0, response_weight=0.0, margin_weight=0.1),
    )
    tied = rho | {"c": rho["w"], "cw": rho["cc"]}
    torch.testing.assert_close(value(of, "pair", tied), torch.full((5,), 2 * LOG2, dtype=torch.float64))
    assert value(of, "margin", tied).tolist() == [0.0] * 5
    for name, grad in gradients(loss(of, tied), rho).items():
        assert grad.abs().max() < 1e-15, name


def test_the_pair_term_is_dpo_on_split_rows() -> None:
    """(m; y_w, y'_w) and (m'; y'_w, y_w), gradients too."""
    rho = drawn(3)
    of = SymMPO(beta=0.2, pair_weight=0.7, response_weight=0.0, margin_weight=0.0, anchor_weight=0.0)
    split = DPO(beta=0.2)(torch.cat([rho["w"], rho["cc"]]), torch.cat([rho["c"], rho["cw"]]))
    torch.testing.assert_close(loss(of, rho), 0.7 * (split[:5] + split[5:]), rtol=1e-12, atol=0)
    ours, theirs = gradients(loss(of, rho), rho), gradients(0.7 * split, rho)
    for name in FIVE:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-12, atol=0)


def test_on_both_images_the_response_term_is_dpo_on_both() -> None:
    rho = drawn(4, names=(*FIVE, "cr"))
    twice = SymMPO(dpo_on_contrast=True, pair_weight=0.0, margin_weight=0.0, anchor_weight=0.0)
    assert set(twice.branches) == {"cc", "cr"}
    expected = DPO()(rho["w"], rho["l"]) + DPO()(rho["cc"], rho["cr"])
    torch.testing.assert_close(loss(twice, rho), expected)
    with pytest.raises(ValueError, match="part of the response term"):
        SymMPO(dpo_on_contrast=True, response_weight=0.0)


def test_equal_margins_have_no_gap() -> None:
    rho = drawn(5)
    rho["cw"] = rho["cc"] - (rho["w"] - rho["c"])
    of = SymMPO()
    assert value(of, "margin", rho).abs().max() < 1e-25
    assert of.diagnostics(sides(rho), {})["symmpo/margin_share"].abs().max() < 1e-12


def test_margin_units_are_beta_squared_apart() -> None:
    rho, beta = drawn(6), 0.25
    nats = SymMPO(beta=beta, margin_weight=1e-3)
    rewards = SymMPO(beta=beta, margin_weight=1e-3 / beta**2, margin_units="reward")
    torch.testing.assert_close(loss(nats, rho), loss(rewards, rho), rtol=1e-13, atol=0)
    assert not torch.allclose(loss(nats, rho), loss(nats.replace(margin_units="reward"), rho))


def test_without_response_term_nothing_of_the_rejected_answer_is_read() -> None:
    """A row without y_l has (m, y'_w) for its losing side; any number may stand there."""
    of, rho = SymMPO(response_weight=0.0), drawn(7)
    nothing = rho | {"l": torch.full((5,), math.nan, dtype=torch.float64, requires_grad=True)}
    torch.testing.assert_close(loss(of, nothing), loss(of, rho | {"l": rho["c"]}))
    (grad,) = torch.autograd.grad(loss(of, nothing).sum(), [nothing["l"]], allow_unused=True)
    assert grad is None
    assert all(bool(x.isfinite().all()) for x in of.diagnostics(sides(nothing), {}).values())
    both = gradients(loss(of, rho), rho), gradients(loss(SymMPO(), rho), rho)
    assert not both[0]["l"].any()
    assert both[1]["l"].all()


@pytest.mark.parametrize(
    ("weights", "read"),
    [
        ({}, {"c", "cc", "cw"}),
        ({"pair_weight": 0.0}, {"c", "cc", "cw"}),
        ({"pair_weight": 0.0, "margin_weight": 0.0}, {"cc"}),
        ({"pair_weight": 0.0, "margin_weight": 0.0, "anchor_weight": 0.0}, set()),
        ({"dpo_on_contrast": True}, {"c", "cc", "cw", "cr"}),
    ],
)
def test_only_what_is_read_is_asked_for(weights: dict[str, Any], read: set[str]) -> None:
    of = SymMPO(**weights)
    assert set(of.branches) == read
    rho = drawn(8, names=("w", "l", *sorted(read)))
    for name, grad in gradients(loss(of, rho), rho).items():
        assert grad.all(), name


def test_means_over_tokens_divide_policy_and_reference_alike() -> None:
    rho, g = drawn(9), torch.Generator().manual_seed(0)
    length = {name: torch.randint(2, 40, (5,), generator=g).double() for name in FIVE}
    of, plain = SymMPO(average=True), SymMPO()
    branches = {name: Score(rho=rho[name], length=length[name]) for name in FIVE[2:]}
    s = Sides(rho_w=rho["w"], rho_l=rho["l"], length_w=length["w"], length_l=length["l"], branches=branches)
    divided = {name: rho[name] / length[name] for name in FIVE}
    torch.testing.assert_close(of.win_loss(s, {}), loss(plain, divided))
    assert of.needs == {"length"}
    with pytest.raises(ValueError, match="length_c="):
        of(rho["w"], rho["l"], length_w=length["w"], length_l=length["l"], rho_c=rho["c"], rho_cc=rho["cc"], rho_cw=rho["cw"])  # fmt: skip


def test_svco_pairs_the_same_numbers_along_the_other_axis() -> None:
    rho = drawn(10)
    of = SymMPO(pair_weight=1.0, response_weight=0.0, margin_weight=0.0, anchor_weight=0.0)
    torch.testing.assert_close(loss(SVCO(), rho), loss(of, rho | {"c": rho["cw"], "cw": rho["c"]}))


def test_the_share_of_the_margin_term_is_that_of_its_gradient() -> None:
    rho, of = drawn(11), SymMPO(margin_weight=3e-3)
    m_1, m_2 = (m.detach().requires_grad_() for m in of.margins(sides(rho)))
    terms = (
        of.pair_weight * (of.preferred(m_1) + of.preferred(m_2)),
        of.margin_weight * (m_1 - m_2) ** 2,
    )
    parts = [sum(g.abs() for g in torch.autograd.grad(term.sum(), [m_1, m_2])) for term in terms]
    found = of.diagnostics(sides(rho), {})
    torch.testing.assert_close(found["symmpo/margin_share"], parts[1] / (parts[0] + parts[1]))
    torch.testing.assert_close(found["symmpo/margin_gap"], (m_1 - m_2).detach().abs())
    assert above_zero(torch.tensor([0.5, -0.5, 1e-5, -1e-5])).tolist() == [1.0, 0.0, 0.5, 0.5]
    assert found["symmpo/accuracy_own"].tolist() == (m_1 > 0).double().tolist()
    assert found["symmpo/accuracy_contrast"].tolist() == (m_2 > 0).double().tolist()
    torch.testing.assert_close(found["symmpo/reward_cc"], 0.1 * rho["cc"].detach())


def test_far_margins_give_linear_losses_in_float32() -> None:
    rho = {name: torch.tensor([-1e4, 1e4], requires_grad=True) for name in FIVE}
    rho["c"], rho["cw"] = (-rho["w"]).detach(), (-rho["cc"]).detach()
    of = SymMPO(margin_weight=0.0)
    found = loss(of, rho)
    # both pair margins are -2e4: 0.5 * 2 * 2000, the anchors 2 * 1000, the response log 2
    assert found.tolist() == pytest.approx([4000 + LOG2, LOG2])
    (grad,) = torch.autograd.grad(found.sum(), [rho["w"]])
    assert bool(grad.isfinite().all())


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("symmpo", {"pair_weight": -0.1}, "pair_weight must not be negative"),
        ("symmpo", {"margin_weight": -1e-9}, "margin_weight must not be negative"),
        ("symmpo", {"anchor_weight": -1}, "anchor_weight must not be negative"),
        ("symmpo", {"anchor_delta": math.inf}, "anchor_delta must be a finite number"),
        ("symmpo", {"margin_units": "nats"}, "margin_units must be one of"),
        ("symmpo", dict.fromkeys(("pair_weight", "margin_weight", "anchor_weight", "response_weight"), 0), "nothing would be learned"),
        ("mdpo", {"image_weight": -1}, "image_weight must not be negative"),
        ("opa_dpo", {"anchor_delta": math.nan}, "anchor_delta must be a finite number"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(name: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        objectives.get(name, **values)


def test_a_lost_comparison_is_refused_and_said_why() -> None:
    rho, outcome = drawn(12), torch.tensor([[1.0, 0.0, 0.0]] * 4 + [[0.0, 1.0, 0.0]]).double()
    for of in (SymMPO(), objectives.get("dpo+0.5*symmpo")):
        assert of.wins_only
        with pytest.raises(ValueError, match="sides cannot be exchanged"):
            of.losses(sides(rho), outcome, {})
    assert not objectives.get("dpo+sft").wins_only


def test_mfpo_is_mdpo_by_another_name() -> None:
    assert objectives.get("mfpo") == MDPO()
    assert objectives.canonical_name("mfpo") == "mdpo"


def test_sums_share_branches() -> None:
    """DPO, S-VCO's terms and both anchors: an arm of the comparison in which the axis of pairing alone differs."""
    both = objectives.get("symmpo+svco", pair_weight=0.0, margin_weight=0.0)
    assert set(both.branches) == {"c", "cc", "cw"}
    rho = drawn(13)
    expected = loss(SymMPO(pair_weight=0.0, margin_weight=0.0), rho) + loss(SVCO(), rho)
    torch.testing.assert_close(both.losses(sides(rho), None, {}), expected)
