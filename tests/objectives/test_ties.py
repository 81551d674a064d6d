"""Rao-Kupper and Davidson against golden vectors, and their model functions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prefopt import objectives
from prefopt.objectives import Davidson, RaoKupper, TieModel

CASES = json.loads((Path(__file__).parents[1] / "data" / "ties.json").read_text())
LOSSES = [c for c in CASES if "kind" not in c["inputs"]]
IDEALS = [c for c in CASES if c["inputs"].get("kind") == "ideal_margin"]


def model(inputs: dict[str, Any]) -> TieModel:
    cls = RaoKupper if inputs["model"] == "rk" else Davidson
    return cls(beta=inputs["beta"], nu=inputs.get("nu", cls.default_nu))


def numbers(values: list[float | None]) -> Tensor:
    return torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)


def log_ratios(inputs: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if "margin" in inputs:
        m = torch.tensor(inputs["margin"], dtype=dtype)
        return m, torch.zeros_like(m)
    if "rho_w" in inputs:
        return tuple(torch.tensor(inputs[f"rho_{k}"], dtype=dtype) for k in "wl")  # type: ignore[return-value]
    return tuple(  # type: ignore[return-value]
        (numbers(inputs[f"policy_logp_{k}"]) - numbers(inputs[f"ref_logp_{k}"])).to(dtype) for k in "wl"
    )


def outcome_of(inputs: dict[str, Any]) -> Tensor:
    if "target_win_lose_tie" in inputs:
        return torch.tensor(inputs["target_win_lose_tie"], dtype=torch.float64)
    return torch.tensor(inputs["is_tie"], dtype=torch.bool)


@pytest.mark.parametrize("case", LOSSES, ids=lambda c: c["name"])
def test_vectors_in_float64(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    objective = model(inputs)
    rho_w, rho_l = (r.requires_grad_() for r in log_ratios(inputs, torch.float64))
    loss = objective(rho_w, rho_l, outcome_of(inputs))
    grad_w, grad_l = torch.autograd.grad(loss.sum(), [rho_w, rho_l])
    # differences of log-probabilities of about 100 carry 1e-14 of rounding of their own
    close = {"rtol": 1e-10, "atol": 1e-13}
    torch.testing.assert_close(loss.detach(), numbers(expected["loss"]), **close)
    torch.testing.assert_close(grad_w, numbers(expected["grad_margin"]), **close)
    torch.testing.assert_close(grad_l, -numbers(expected["grad_margin"]), **close)
    if "d" not in expected:
        return
    d = numbers(expected["d"])
    pieces = {
        "log_p_win": objective.log_p_win(d),
        "log_p_lose": objective.log_p_win(-d),
        "scale_win": objective.scale_win(d),
        "p_win": objective.probabilities(d)[:, 0],
        "p_lose": objective.probabilities(d)[:, 1],
        "p_tie": objective.probabilities(d)[:, 2],
    }
    if objective.has_tie_term:
        pieces |= {"log_p_tie": objective.log_p_tie(d), "scale_tie": objective.scale_tie(d)}
    for name, got in pieces.items():
        wanted = numbers(expected[name])
        known = wanted.isfinite()
        torch.testing.assert_close(
            got[known], wanted[known], rtol=1e-10, atol=1e-15, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert objective.classify(d).tolist() == expected["argmax_class_0win_1lose_2tie"]


@pytest.mark.parametrize("case", [c for c in LOSSES if "margin" in c["inputs"]], ids=lambda c: c["name"])
def test_vectors_in_float32(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    rho_w, rho_l = (r.requires_grad_() for r in log_ratios(inputs, torch.float32))
    loss = model(inputs)(rho_w, rho_l, outcome_of(inputs))
    (grad_w,) = torch.autograd.grad(loss.sum(), [rho_w])
    torch.testing.assert_close(loss.detach().double(), numbers(expected["loss"]), rtol=5e-5, atol=1e-6)
    torch.testing.assert_close(grad_w.double(), numbers(expected["grad_margin"]), rtol=5e-5, atol=1e-6)


@pytest.mark.parametrize("case", IDEALS, ids=lambda c: c["name"])
def test_ideal_margins(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    if inputs["model"] == "bt":
        inputs = {**inputs, "model": "davidson"}
    objective = model(inputs)
    p = torch.tensor([[inputs["p_win"], inputs["p_lose"], inputs["p_tie"]]], dtype=torch.float64)
    assert objective.ideal_margin(inputs["p_win"], inputs["p_lose"]) == pytest.approx(
        expected["margin_star"], rel=1e-10
    )
    m = torch.tensor([expected["margin_star"]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(objective(m, torch.zeros_like(m), p).sum(), [m])
    assert float(grad) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("cls", [RaoKupper, Davidson])
def test_probabilities_sum_to_one_and_equals_tie_half_the_time(cls: type[TieModel]) -> None:
    d = torch.linspace(-30, 30, 13, dtype=torch.float64)
    torch.testing.assert_close(cls().probabilities(d).sum(-1), torch.ones_like(d))
    assert cls().probabilities(torch.zeros(1))[0].tolist() == pytest.approx([0.25, 0.25, 0.5])


def test_davidson_keeps_the_odds_of_bradley_terry() -> None:
    d = torch.linspace(-5, 5, 11, dtype=torch.float64)
    p = Davidson(nu=2.0).log_probabilities(d)
    torch.testing.assert_close(p[:, 0] - p[:, 1], d)


@pytest.mark.parametrize("cls", [RaoKupper, Davidson])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_nu_from_the_tie_rate_of_equals(cls: type[TieModel], rate: float) -> None:
    nu = cls.nu_from_tie_rate(rate)
    assert float(cls(nu=nu).probabilities(torch.zeros(1, dtype=torch.float64))[0, 2]) == pytest.approx(rate)
    with pytest.raises(ValueError, match="tie rate"):
        cls.nu_from_tie_rate(1.0)


@pytest.mark.parametrize(
    ("cls", "nu"), [(RaoKupper, 1.3), (RaoKupper, 3.0), (Davidson, 0.2), (Davidson, 4.0)]
)
def test_fitted_nu_recovers_the_model(cls: type[TieModel], nu: float) -> None:
    d = torch.linspace(-6, 6, 41, dtype=torch.float64)
    exact = cls(nu=nu).probabilities(d)  # its cross-entropy is least at the truth
    assert cls.fit_nu(d, exact) == pytest.approx(nu, rel=1e-6)
    drawn = torch.multinomial(exact.repeat(500, 1), 1, generator=torch.Generator().manual_seed(0)).squeeze()
    one_hot = torch.nn.functional.one_hot(drawn, 3).double()
    assert cls.fit_nu(d.repeat(500), one_hot) == pytest.approx(nu, rel=0.1)


def test_fit_needs_both_kinds() -> None:
    for flag in (True, False):
        with pytest.raises(ValueError, match="some but not all"):
            RaoKupper.fit_nu(torch.zeros(3), torch.full((3,), flag))


@pytest.mark.parametrize(("name", "nu"), [("dpo_rk", 1.0), ("dpo_d", 0.0)])
def test_no_room_for_ties(name: str, nu: float) -> None:
    objective = objectives.get(name, nu=nu, beta=0.2)
    dpo = objectives.get("dpo", beta=0.2)
    zero = torch.zeros(2)
    rho = torch.tensor([3.0, -4.0])
    votes = torch.tensor([[0.3, 0.7, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(objective(rho, zero, votes), dpo(rho, zero, votes))
    with pytest.raises(ValueError, match="tie loss is undefined"):
        objective(rho, zero, torch.tensor([False, True]))
    with pytest.raises(ValueError, match="tie loss is undefined"):
        objective.check_data(has_ties=True)
    objective.check_data(has_ties=False)


def test_alpha_is_log_nu() -> None:
    assert RaoKupper(alpha=0.5).nu == pytest.approx(math.exp(0.5))
    assert Davidson(alpha=-2.5).log_nu == pytest.approx(-2.5)
    assert RaoKupper(nu=5.0).replace(alpha=0.5) == RaoKupper(alpha=0.5)
    assert RaoKupper(alpha=0.5).replace(nu=5.0) == RaoKupper(nu=5.0)
    with pytest.raises(ValueError, match="two names"):
        RaoKupper(nu=3.0, alpha=0.5)


@pytest.mark.parametrize(
    ("cls", "hyper"),
    [
        (RaoKupper, {"nu": 0.9}),
        (RaoKupper, {"alpha": -0.1}),
        (RaoKupper, {"nu": math.nan}),
        (Davidson, {"nu": -0.1}),
        (Davidson, {"nu": math.inf}),
        (Davidson, {"alpha": 1e4}),
        (Davidson, {"tie_weight": 0.0}),
    ],
)
def test_impossible_models_are_refused(cls: type[TieModel], hyper: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(hyper)) if "alpha" not in hyper else "nu|alpha"):
        cls(**hyper)


def test_tie_weight_scales_ties_alone() -> None:
    zero, ties = torch.zeros(2), torch.tensor([False, True])
    plain, half = (RaoKupper(tie_weight=w)(zero, zero, ties) for w in (1.0, 0.5))
    torch.testing.assert_close(half, plain * torch.tensor([1.0, 0.5]))
