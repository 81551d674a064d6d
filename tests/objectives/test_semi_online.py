"""SoPo against golden values, and what it becomes at the ends of its range."""

import json
from pathlib import Path

import pytest
import torch

from prefopt import objectives
from prefopt.objectives.semi_online import plackett_luce, soft_plackett_luce
from prefopt.sources.selection import select

CASES = json.loads((Path(__file__).parents[1] / "data" / "sopo.json").read_text())


def of_kind(kind):
    return [
        pytest.param(c["inputs"], c["expected"], id=c["name"]) for c in CASES if c["inputs"]["kind"] == kind
    ]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def sopo(inputs, **changes):
    given = {"variant": inputs["variant"], "beta": inputs["beta"], "C": inputs["C"], "tau": inputs["tau"]}
    return objectives.get("sopo", **given | changes)


def columns(inputs):
    return {
        "min_similarity": double(inputs["sim_min"]),
        "rejected_reward": double(inputs["reward_l"]),
    }


def check(loss, expected, winners, losers, sign=1.0):
    torch.testing.assert_close(loss, double(expected["loss"]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss.mean(), double(expected["mean_loss"]), rtol=1e-12, atol=1e-12)
    loss.mean().backward()
    for got, wanted in ((winners.grad, expected["w"]), (losers.grad, expected["l"])):
        torch.testing.assert_close(sign * got, double(wanted), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("inputs", "expected"), of_kind("sopo_logratio"))
def test_likelihood_form(inputs, expected):
    h_w, h_l = (double(inputs[name]).requires_grad_() for name in ("h_w", "h_l"))
    loss = sopo(inputs)(h_w, h_l, **columns(inputs))
    check(loss, expected | {"w": expected["grad_h_w"], "l": expected["grad_h_l"]}, h_w, h_l)


@pytest.mark.parametrize(("inputs", "expected"), of_kind("sopo_diffusion"))
def test_diffusion_form(inputs, expected):
    """The bound's factor belongs to the likelihood: rho = -scale (E_theta - E_ref)."""
    errors = {name: double(inputs[f"err_{name}"]) for name in ("w_policy", "w_ref", "l_policy", "l_ref")}
    for name in ("w_policy", "l_policy"):
        errors[name].requires_grad_()
    scale = torch.as_tensor(inputs["scale"], dtype=torch.float64)
    rho_w, rho_l = (-scale * (errors[f"{s}_policy"] - errors[f"{s}_ref"]) for s in "wl")
    loss = sopo(inputs)(rho_w, rho_l, **columns(inputs))
    grads = {"w": expected["grad_err_w_policy"], "l": expected["grad_err_l_policy"]}
    check(loss, expected | grads, errors["w_policy"], errors["l_policy"])


@pytest.mark.parametrize(("inputs", "expected"), of_kind("pl_dpo"))
def test_plackett_luce(inputs, expected):
    h = double(inputs["h"]).requires_grad_()
    loss = plackett_luce(h, inputs["beta"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), double(expected["loss"]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(h.grad, double(expected["grad_h"]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("inputs", "expected"), of_kind("online_soft_pl"))
def test_soft_plackett_luce(inputs, expected):
    h = double(inputs["h"]).requires_grad_()
    loss = soft_plackett_luce(h, double(inputs["rewards"]), inputs["beta"])
    loss.backward()
    torch.testing.assert_close(loss.detach(), double(expected["loss"]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(h.grad, double(expected["grad_h"]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("inputs", "expected"), of_kind("online_dpo"))
def test_the_best_against_the_worst(inputs, expected):
    selected = select(double(inputs["rewards"])[:, None])
    assert (int(selected.best_B), int(selected.worst_B)) == (
        expected["chosen_index"],
        expected["rejected_index"],
    )
    h = double(inputs["h"]).requires_grad_()
    objective = objectives.get("sopo", variant="dsopo", beta=inputs["beta"])
    loss = objective(h[selected.best_B], h[selected.worst_B]).sum()
    loss.backward()
    torch.testing.assert_close(loss.detach(), double(expected["loss"]), rtol=1e-10, atol=1e-12)
    found = [float(h.grad[selected.best_B]), float(h.grad[selected.worst_B])]
    assert found == pytest.approx([expected["grad_chosen"], expected["grad_rejected"]], abs=1e-10)


def test_every_case_is_of_a_kind_that_some_test_reads():
    here = {"sopo_logratio", "sopo_diffusion", "pl_dpo", "online_soft_pl", "online_dpo"}
    sources = {"selection", "selection_ties", "tau_quantile"}
    likelihood = {"masked_error", "x0_to_eps_error", "cosine_schedule"}
    motion = {"root_recovery", "infonce"}
    metrics = {
        "retrieval", "fid", "diversity", "diversity_expectation", "multimodality", "multimodality_expectation", "ci95",
        "relative_change",
    }  # fmt: skip
    assert {c["inputs"]["kind"] for c in CASES} == here | sources | likelihood | motion | metrics
    elsewhere = [
        path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py") if path != Path(__file__)
    ]
    assert [
        k for k in sources | likelihood | motion | metrics if not any(k in text for text in elsewhere)
    ] == []


def test_a_ranking_of_two_is_dpo():
    h = torch.randn(5, 2, dtype=torch.float64)
    dpo = objectives.get("dpo", beta=0.3)
    torch.testing.assert_close(plackett_luce(h, 0.3), dpo(h[:, 0], h[:, 1]))


def test_a_vetoed_loser_leaves_no_trace_whatever_its_score():
    rho_w = torch.tensor([0.3, 0.3], requires_grad=True)
    rho_l = torch.tensor([float("inf"), -2.0], requires_grad=True)
    given = {"min_similarity": torch.zeros(2), "rejected_reward": torch.tensor([0.45, 0.44])}
    objectives.get("sopo", tau=0.45)(rho_w, rho_l, **given).sum().backward()
    assert rho_l.grad[0] == 0
    assert rho_l.grad[1] > 0
    assert rho_w.grad.isfinite().all()


def test_a_calibrated_tau_comes_with_the_comparisons():
    rho = torch.tensor([0.5, 0.5])
    given = {"rejected_reward": torch.tensor([0.4, 0.4]), "min_similarity": torch.ones(2)}
    both = objectives.get("sopo")(rho, rho, tau=torch.tensor([0.3, 0.5]), **given)
    torch.testing.assert_close(both, torch.nn.functional.softplus(torch.tensor([-0.5, 0.0])))
    fixed = objectives.get("sopo", tau=0.5)(rho, rho, tau=torch.tensor([0.3, 0.3]), **given)
    torch.testing.assert_close(fixed, torch.nn.functional.softplus(torch.tensor([0.0, 0.0])))


def test_vetoing_bounds_the_loss_from_above():
    """Where vetoed losers are below the reference, USoPo's loss is at least DSoPo's (appendix C.4)."""
    rho_w, rho_l = torch.randn(64), -torch.rand(64)
    given = {"rejected_reward": torch.rand(64)}
    vetoed = objectives.get("sopo", variant="usopo", tau=0.5)(rho_w, rho_l, **given)
    plain = objectives.get("sopo", variant="dsopo", tau=0.5)(rho_w, rho_l, **given)
    assert bool((vetoed >= plain).all())
    assert bool((vetoed > plain).any())


@pytest.mark.parametrize("wrong", [{"C": 0.9}, {"beta": 0.0}, {"variant": "spo"}])
def test_settings_that_would_unlearn_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        objectives.get("sopo", **wrong)
