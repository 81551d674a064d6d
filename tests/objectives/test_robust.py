"""SSAPO's leaders and SPA's loss against golden vectors, what they reduce to, and the certificate of robustness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from objectives import battery
from prefopt import objectives
from prefopt.objectives import SPA, SSAPO, robust
from prefopt.objectives.sides import Sides
from prefopt.sources.gap_losses import exact_margin
from prefopt.sources.worst_case import UNMOVED, follower, worst_case

CASES = json.loads((Path(__file__).parents[1] / "data" / "ssapo.json").read_text())
LEADERS = ("shift", "dual", "weights", "prob_atoms")


def cases(*ops: str) -> Any:
    found = [c for c in CASES if c["inputs"]["op"] in ops]
    assert found
    return pytest.mark.parametrize("case", found, ids=lambda c: c["name"])


def f64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def check(loss_of: Callable[[Tensor], Tensor], case: dict[str, Any]) -> None:
    xi = f64(case["inputs"]["xi_theta"]).requires_grad_()
    loss = loss_of(xi)
    (grad,) = torch.autograd.grad(loss.sum(), xi)
    close = {"rtol": 0.0, "atol": 1e-8}
    torch.testing.assert_close(loss.detach(), f64(case["expected"]["loss"]), **close)
    torch.testing.assert_close(grad, f64(case["expected"]["grad_xi"]), **close)
    if "mean" in case["expected"]:
        assert float(loss.detach().mean()) == pytest.approx(case["expected"]["mean"], abs=1e-8)


def at_beta_1(leader: str, xi: Tensor, **columns: Tensor) -> Tensor:
    return SSAPO(beta=1.0, leader=leader)(xi, torch.zeros_like(xi), **columns)


@cases("leader")
def test_shift_vectors(case: dict[str, Any]) -> None:
    columns = {f"robust_{k}": f64(case["inputs"][k]) for k in ("moved", "shift")}
    check(lambda xi: at_beta_1("shift", xi, **columns), case)


@cases("leader_dual")
def test_dual_vectors(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    low, epsilon = inputs["support_low"], inputs["epsilon"]
    xi = np.array(inputs["xi_theta"])
    found = follower(xi, exact_margin, low, 1e3, epsilon)
    np.testing.assert_allclose(found.moved_N, expected["moved"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.lambda_N, expected["lambda_"], rtol=0, atol=1e-8)
    for value in (found.worst_value, found.dual_value):
        assert value == pytest.approx(expected["worst_value"], abs=1e-8)
    columns = {name: f64([row[name] for row in found.columns()]) for name in UNMOVED}
    check(lambda u: at_beta_1("dual", u, **columns), case)
    mean = at_beta_1("dual", f64(xi), **columns).mean() + expected["lambda_"] * epsilon
    assert float(mean) == pytest.approx(expected["mean_plus_lambda_eps"], abs=1e-8)


@cases("leader_logps")
def test_gradients_reach_the_policy(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    policy = {k: f64(inputs[f"policy_{k}"]).requires_grad_() for k in ("chosen", "rejected")}
    rho = {k: logp - f64(inputs[f"ref_{k}"]) for k, logp in policy.items()}
    columns = {f"robust_{k}": f64(inputs[k]) for k in ("moved", "shift")}
    objective = SSAPO(beta=inputs["beta"])
    loss = objective(rho["chosen"], rho["rejected"], **columns)
    close = {"rtol": 0.0, "atol": 1e-8}
    u = objective.u(Sides(rho_w=rho["chosen"], rho_l=rho["rejected"]))
    torch.testing.assert_close(u.detach(), f64(expected["xi"]), **close)
    torch.testing.assert_close(loss.detach(), f64(expected["loss"]), **close)
    for k, grad in zip(policy, torch.autograd.grad(loss.mean(), list(policy.values())), strict=True):
        torch.testing.assert_close(grad, f64(expected[f"grad_policy_{k}"]), **close)


@cases("leader_prob")
def test_prob_atoms_vectors(case: dict[str, Any]) -> None:
    i = case["inputs"]
    assert i["p_floor"] == robust.LEAST_PROBABILITY
    check(lambda u: robust.prob_atoms_loss(u, f64(i["mass"]), f64(i["disp"]), i["K"], i["floor"]), case)


@cases("weights_only")
def test_literal_weights_are_dpo(case: dict[str, Any]) -> None:
    mass = f64(case["inputs"]["mass"])
    check(lambda u: robust.weights_loss(u, mass), case)
    torch.testing.assert_close(mass.sum(-1), f64(case["expected"]["weight"]))
    check(lambda u: at_beta_1("weights", u, robust_moved=mass[:, 0]), case)


@cases("spa_loss")
def test_spa_vectors(case: dict[str, Any]) -> None:
    i = case["inputs"]
    objective = SPA(beta=1.0, alpha=i["alpha"])
    check(lambda u: objective(u, torch.zeros_like(u), spa_flag=f64(i["flag"])), case)


# -- what they reduce to ---------------------------------------------------------------------------------------


def value_and_gradient(objective: Any, s: Sides, **columns: Tensor) -> tuple[Tensor, Tensor]:
    rho = s.rho_w.clone().requires_grad_()
    loss = objective(rho, s.rho_l, **columns)
    return loss.detach(), torch.autograd.grad(loss.sum(), rho)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("leader", LEADERS)
def test_without_an_adversary_this_is_dpo_to_the_bit(leader: str, dtype: torch.dtype) -> None:
    s = battery.random_sides(seed=21, dtype=dtype)
    objective, wanted = SSAPO(leader=leader), value_and_gradient(objectives.get("dpo"), s)
    xi = (0.1 * (s.rho_w - s.rho_l)).double().numpy()
    found = worst_case(xi, epsilon=0.0, space=objective.space, pieces=6)
    at_zero = [UNMOVED | row for row in found.columns()]
    for rows in (None, [UNMOVED] * battery.E, at_zero):
        columns = {n: torch.tensor([row[n] for row in rows], dtype=dtype) for n in UNMOVED} if rows else {}
        got = value_and_gradient(objective, s, **columns)
        for have, want in zip(got, wanted, strict=True):
            assert torch.equal(have, want)


@pytest.mark.parametrize("flag", [None, 0.0])
def test_spa_without_flags_is_dpo(flag: float | None) -> None:
    s = battery.random_sides(seed=22)
    columns = {} if flag is None else {"spa_flag": torch.full_like(s.rho_w, flag)}
    for have, want in zip(
        value_and_gradient(SPA(), s, **columns), value_and_gradient(objectives.get("dpo"), s), strict=True
    ):
        assert torch.equal(have, want)
    flagged = SPA(alpha=0.2)(s.rho_w, s.rho_l, spa_flag=torch.ones_like(s.rho_w))
    torch.testing.assert_close(flagged, objectives.get("dpo", label_smoothing=0.2)(s.rho_w, s.rho_l))


def test_the_released_clamp_discards_what_the_adversary_moved() -> None:
    """Mass at probability 0 has a large constant loss and no pull; the linear floor pulls it up."""
    s = battery.sides(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    columns = {"robust_moved": f64([1.0]), "robust_shift": f64([0.5])}
    for floor, pulls in (("clamp", False), ("linear", True)):
        loss, grad = value_and_gradient(SSAPO(leader="prob_atoms", floor=floor), s, **columns)
        assert bool(grad.abs().max() > 0) == pulls
        assert float(loss) == pytest.approx(13.8155 if floor == "clamp" else np.log(6) + 1, abs=1e-4)


@pytest.mark.parametrize("leader", LEADERS)
def test_each_leader_reads_its_own_columns_and_no_gradient_through_them(leader: str) -> None:
    s = battery.random_sides(seed=23)
    full = {n: s.columns[n].clone().requires_grad_() for n in UNMOVED}
    plain = SSAPO(leader=leader)(s.rho_w, s.rho_l)
    loss = SSAPO(leader=leader)(s.rho_w, s.rho_l, **full)
    assert not loss.requires_grad
    assert torch.allclose(loss, plain) == (leader == "weights")


def test_a_mixture_passes_columns_on() -> None:
    s = battery.random_sides(seed=24)
    mixture = objectives.get("ssapo+0.5*spa", beta=0.1)
    assert mixture.columns == SSAPO.columns | SPA.columns
    expected = battery.call(SSAPO(), s) + 0.5 * battery.call(SPA(), s)
    torch.testing.assert_close(battery.call(mixture, s), expected)


def test_names_and_values_are_those_the_follower_writes() -> None:
    assert dict(SSAPO.columns) == UNMOVED
    assert set(worst_case([0.0, 1.0], epsilon=0.1).columns()[0]) == set(UNMOVED)
    assert {SSAPO(leader=k).space for k in LEADERS} == {"margin", "probability"}
    assert SSAPO(leader="prob_atoms").space == "probability"


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("ssapo", {"leader": "duel"}),
        ("ssapo", {"floor": "flat"}),
        ("ssapo", {"pieces": 0}),
        ("spa", {"alpha": 0.5}),
    ],
)
def test_values_out_of_range(name: str, hyper: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(hyper))):
        objectives.get(name, **hyper)


# -- the certificate (miniature S2) ----------------------------------------------------------------------------

WINDOW, L2 = (-6.0, 6.0), 0.02


def trained(leader: str, feature: Tensor, epsilon: float, start: Tensor, steps: int = 150) -> Tensor:
    """A linear gap D theta trained against the follower's answer at each step."""
    objective = SSAPO(beta=1.0, leader=leader)
    theta = start.clone().requires_grad_()
    for _ in range(steps):
        xi = feature @ theta
        found = follower(xi.detach().numpy(), exact_margin, *WINDOW, epsilon, clip=True)
        columns = {name: f64([row[name] for row in found.columns()]) for name in UNMOVED}
        loss = objective(xi, torch.zeros_like(xi), **columns).mean() + L2 / 2 * (theta**2).sum()
        (grad,) = torch.autograd.grad(loss, theta)
        theta = (theta - 0.5 * grad).detach().requires_grad_()
    return theta.detach()


@pytest.mark.parametrize("seed", [0, 1])
def test_certificate_training_against_the_adversary_lowers_its_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(120, 12))
    truth = rng.normal(size=12)
    sign = np.where(rng.random(120) < 1 / (1 + np.exp(-raw @ truth)), 1.0, -1.0)
    feature = f64(raw * sign[:, None])
    plain = trained("weights", feature, 0.0, torch.zeros(12, dtype=torch.float64), steps=400)
    for epsilon in (0.1, 1.0):

        def value(theta: Tensor, epsilon: float = epsilon) -> float:
            found = follower((feature @ theta).numpy(), exact_margin, *WINDOW, epsilon, clip=True)
            return found.worst_value + L2 / 2 * float((theta**2).sum())

        for leader in ("shift", "dual"):
            assert value(trained(leader, feature, epsilon, plain)) < value(plain) - 1e-5
