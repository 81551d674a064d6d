"""V-DPO, POVID and HA-DPO: the golden vectors, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from objectives.vision_cases import check, close, inputs, objective, of_kind
from prefopt import objectives
from prefopt.objectives import DPO, HADPO, POVID, VDPO, Score, Sides

CASES = {case.values[0]["name"]: case.values[0] for case in of_kind("vdpo", 3)}


def blank_sides(leaves: dict[str, Any]) -> Sides:
    return Sides(
        rho_w=leaves["logp_w"] - leaves["ref_w"],
        rho_l=leaves["logp_l"] - leaves["ref_l"],
        logp_w=leaves["logp_w"],
        logp_l=leaves["logp_l"],
        branches={f"{s}_blank": Score(logp=leaves[f"logp_{s}_noimg"]) for s in "wl"},
    )


@pytest.mark.parametrize("name", ["pub_vdpo", "pub_vdpo_alpha0"])
def test_golden_vectors_of_guidance(name: str) -> None:
    case = CASES[name]
    of, leaves = objective(case), inputs(case)
    s = blank_sides(leaves)
    loss_E = of.win_loss(s, {})
    check(case, loss_E, leaves)
    close(of.terms["response"][1](s), case["expected"]["terms"]["dpo"])
    close(of.margin(s), case["expected"]["intermediate"]["margin"])
    blanks = [leaves["logp_w_noimg"], leaves["logp_l_noimg"]]
    assert torch.autograd.grad(loss_E.sum(), blanks, allow_unused=True) == (None, None)
    if case["inputs"]["hyper"]["alpha"] == 0:
        torch.testing.assert_close(loss_E, DPO()(s.rho_w, s.rho_l))


def test_guidance_without_gradient_is_refused() -> None:
    """The released launch file's setting; its vector has no gradient anywhere."""
    case = CASES["pub_vdpo_alpha_minus1"]
    assert not any(any(g) for g in case["expected"]["grad_of_mean_loss"].values())
    with pytest.raises(ValueError, match="no gradient"):
        objective(case)
    with pytest.raises(ValueError, match="alpha must be above -1"):
        VDPO(alpha=-1.5)


def test_alpha_must_be_given_before_use() -> None:
    of, s = objectives.get("vdpo"), blank_sides(inputs(CASES["pub_vdpo"]))
    assert objectives.hyperparameters("vdpo")["alpha"].default is None
    for refused in (of.check_given, lambda: of.win_loss(s, {}), objectives.get("dpo+vdpo").check_given):
        with pytest.raises(ValueError, match=r"VDPO needs alpha.* give alpha=\.\.\."):
            refused()
    VDPO(alpha=0.0).check_given()
    DPO().check_given()


def test_the_prior_of_the_reference_is_its_own_log_probability() -> None:
    """logp - rho under the blank image; the policy's own there does not matter."""
    leaves = inputs(CASES["pub_vdpo"])
    s = blank_sides(leaves)
    shift = {
        "w_blank": torch.linspace(-3, 5, 5, dtype=torch.float64),
        "l_blank": torch.full((5,), 2.0).double(),
    }
    moved = {
        # the reference's is what the vector calls the policy's
        name: Score(logp=score.logp + shift[name], rho=shift[name])
        for name, score in s.branches.items()
    }
    frozen = VDPO(alpha=0.5, prior="reference")
    other = Sides(rho_w=s.rho_w, rho_l=s.rho_l, logp_w=s.logp_w, logp_l=s.logp_l, branches=moved)
    close(frozen.win_loss(other, {}), CASES["pub_vdpo"]["expected"]["loss"])
    assert all(branch.reference for branch in frozen.branches.values())
    assert not any(branch.reference or branch.gradient for branch in VDPO(alpha=0.5).branches.values())


def test_the_image_term_holds_the_blank_side() -> None:
    s = blank_sides(inputs(CASES["pub_vdpo"]))
    rho_blank = torch.linspace(-2, 2, 5, dtype=torch.float64).requires_grad_()
    with_rho = {n: Score(logp=x.logp, rho=rho_blank) for n, x in s.branches.items()}
    s = Sides(rho_w=s.rho_w, rho_l=s.rho_l, logp_w=s.logp_w, logp_l=s.logp_l, branches=with_rho)
    of = VDPO(alpha=0.5, image_weight=0.3)
    assert of.branches["w_blank"].reference
    assert not of.branches["l_blank"].reference
    extra = of.win_loss(s, {}) - VDPO(alpha=0.5).win_loss(s, {})
    torch.testing.assert_close(extra, 0.3 * DPO()(s.rho_w, rho_blank))
    assert torch.autograd.grad(extra.sum(), [rho_blank], allow_unused=True) == (None,)


def test_how_much_the_image_says_is_logged() -> None:
    leaves = inputs(CASES["pub_vdpo"])
    found = VDPO(alpha=0.5).diagnostics(blank_sides(leaves), {})["vdpo/image_sensitivity"]
    torch.testing.assert_close(found, (leaves["logp_w"] - leaves["logp_w_noimg"]).detach())


@pytest.mark.parametrize("case", of_kind("povid", 1))
def test_golden_vectors_of_misled_tokens(case: dict[str, Any]) -> None:
    of, leaves = objective(case), inputs(case)
    branches = {"misled": Score(rho=leaves["rho_noisytok"])}
    s = Sides(rho_w=leaves["rho_w"], rho_l=leaves["rho_l"], branches=branches)
    check(case, of.win_loss(s, {}), leaves)
    close(of.terms["response"][1](s), case["expected"]["terms"]["text"])
    close(of.terms["misled"][1](s), case["expected"]["terms"]["noisy"])
    assert POVID(mix=0.0).branches == {}
    torch.testing.assert_close(POVID(mix=0.0).win_loss(s, {}), DPO()(s.rho_w, s.rho_l))
    with pytest.raises(ValueError, match="mix must lie in"):
        POVID(mix=1.1)


@pytest.mark.parametrize("case", of_kind("hadpo", 1))
def test_golden_vectors_beside_instruction_data(case: dict[str, Any]) -> None:
    """The vectors give the likelihood a token; here it is a sum over four."""
    of, leaves = objective(case), inputs(case)
    four = torch.full((5,), 4.0, dtype=torch.float64)
    s = Sides(
        rho_w=leaves["rho_w"],
        rho_l=leaves["rho_l"],
        branches={"aux": Score(logp=-4 * leaves["aux_nll"], length=four)},
    )
    check(case, of.win_loss(s, {}), leaves)
    close(of.terms["response"][1](s), case["expected"]["terms"]["dpo"])
    close(of.terms["auxiliary"][1](s), case["expected"]["terms"]["aux"])
    plain = HADPO()
    assert plain.branches == {}
    torch.testing.assert_close(plain.win_loss(s, {}), DPO()(s.rho_w, s.rho_l))


def test_votes_leave_the_instruction_sample_alone() -> None:
    of, shares = HADPO(auxiliary_weight=0.5), torch.tensor([[0.3, 0.7, 0.0]])
    rho_w, rho_l = torch.tensor([2.0]), torch.tensor([-1.0])
    got = of(rho_w, rho_l, shares, logp_aux=torch.tensor([-6.0]), length_aux=torch.tensor([3.0]))
    torch.testing.assert_close(got, DPO()(rho_w, rho_l, shares) + 0.5 * 2)
