"""Pairs of conditions: the golden vectors, and what the two forms have in common."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prefopt import objectives
from prefopt.objectives import Sides

CASES = json.loads((Path(__file__).parents[1] / "data" / "condition_po.json").read_text())
EXACT = {"rtol": 1e-10, "atol": 1e-14}


def of_kind(kind: str) -> pytest.MarkDecorator:
    found = [case for case in CASES if case["inputs"]["kind"] == kind]
    assert found
    return pytest.mark.parametrize("case", found, ids=lambda case: case["name"])


def objective(inputs: dict[str, Any], **changes: Any) -> objectives.ConditionPO:
    """The vectors' forms are called hinge and sigmoid; their sigmoid is not divided by beta/2."""
    given = {k: inputs[k] for k in ("beta", "margin", "label_smoothing")}
    form = {"hinge": "gated", "sigmoid": "sigmoid"}[inputs.get("form", "hinge")]
    return objectives.get(
        "condition_po", **{**given, "form": form, "per_beta": False, "diffusion_weight": 0.0, **changes}
    )


def sides(inputs: dict[str, Any]) -> tuple[Sides, Tensor, Tensor]:
    l_w, l_l, r_w, r_l = (
        torch.tensor(inputs[k], dtype=torch.float64) for k in ("mse_w", "mse_l", "ref_mse_w", "ref_mse_l")
    )
    l_w.requires_grad_()
    l_l.requires_grad_()
    return Sides(rho_w=r_w - l_w, rho_l=r_l - l_l, logp_w=-l_w, logp_l=-l_l), l_w, l_l


def close(got: Tensor, expected: Any) -> None:
    torch.testing.assert_close(got.detach(), torch.tensor(expected, dtype=torch.float64), **EXACT)


def mean(loss_E: Tensor, mask: Any) -> Tensor:
    """Over comparisons that count: the loop's weighted mean with weights 0 and 1; 0 where none does."""
    if mask is None:
        return loss_E.mean()
    weight_E = torch.tensor(mask, dtype=torch.float64)
    return (loss_E * weight_E).sum() / weight_E.sum().clamp_min(1)


@of_kind("condition_po")
def test_golden_vectors(case):
    inputs, expected = case["inputs"], case["expected"]
    loss, (s, l_w, l_l) = objective(inputs), sides(inputs)
    loss_E = loss.win_loss(s, {})
    close(loss_E, expected["loss_per_example"])
    close(loss.delta(s), expected["delta"])
    close(loss.weight(s), expected["weight"])
    close(loss.delta(s) + s.rho_w - s.rho_l, expected["delta_ref"])
    total = mean(loss_E, inputs["mask"])
    close(total, expected["mean_loss"])
    grads = torch.autograd.grad(total, [l_w, l_l], retain_graph=True)
    close(grads[0], expected["dmean_dloss_w"])
    close(grads[1], expected["dmean_dloss_l"])
    (each,) = torch.autograd.grad(loss_E.sum(), [l_w])
    close(each, expected["dloss_ddelta"])


@of_kind("condition_po_total")
def test_beside_a_diffusion_term(case):
    inputs, expected = case["inputs"], case["expected"]
    loss, (s, l_w, _) = objective(inputs, diffusion_weight=inputs["diffusion_weight"]), sides(inputs)
    preference = loss.preference(s).mean()
    close(preference, expected["preference_loss"])
    close(inputs["diffusion_weight"] * inputs["diffusion_loss"] + preference, expected["total_loss"])
    n = len(l_w)
    own = replace(
        s,
        logp_own_w=torch.full((n,), -inputs["diffusion_loss"], dtype=torch.float64),
        logp_own_l=torch.zeros(n).double(),
    )
    close(loss.win_loss(own, {}).mean(), expected["total_loss"])
    shared = loss.replace(diffusion_draw="pair").win_loss(s, {}).mean()
    close(shared, (preference + inputs["diffusion_weight"] * l_w.mean()).item())


@of_kind("consistency_aggregate")
@pytest.mark.parametrize("name", ["controlnet_pp", "condition_po"])
def test_the_mean_over_what_a_detector_saw(case, name):
    inputs, expected = case["inputs"], case["expected"]
    t, reward = torch.tensor(inputs["timesteps"]), torch.tensor(inputs["reward_loss"], dtype=torch.float64)
    seen = ((t >= inputs["t_min"]) & (t <= inputs["t_max"])).double()
    assert seen.tolist() == expected["mask"]
    nothing = torch.zeros_like(reward)
    s = Sides(rho_w=nothing, rho_l=nothing, logp_w=nothing, logp_l=nothing, consistency_w=reward * seen,
              consistency_l=nothing, seen_w=seen, seen_l=nothing)  # fmt: skip
    loss = objectives.get(name, consistency_weight=1.0)
    state = loss.next_state(loss.initial_state(), loss.statistics(s, None))
    close(loss.consistency(s, state).mean(), expected["value"])
    # the same comparisons in two halves, under the state of both
    halves = [loss.consistency(half(s, part), state) for part in (slice(0, 3), slice(3, None))]
    close(torch.cat(halves).mean(), expected["value"])


def half(s: Sides, rows: slice) -> Sides:
    given = {
        name: value[rows] for name in s.__dataclass_fields__ if isinstance(value := getattr(s, name), Tensor)
    }
    return replace(s, **given)


@of_kind("gradient_equivalence")
def test_open_gates_have_the_gradient_of_the_sigmoid_form_over_half_beta(case):
    inputs, expected = case["inputs"], case["expected"]
    found = {}
    for form, divided in (("gated", False), ("sigmoid", False), ("sigmoid", True)):
        s, l_w, _ = sides(inputs)
        loss_E = objective(inputs, form=form, per_beta=divided).win_loss(s, {})
        (found[form, divided],) = torch.autograd.grad(loss_E.sum(), [l_w])
    close(found["gated", False], expected["hinge_dloss_ddelta"])
    close(found["sigmoid", False], expected["sigmoid_dloss_ddelta"])
    close(found["sigmoid", True], expected["hinge_dloss_ddelta"])


def test_on_image_pairs_the_sigmoid_form_is_diffusion_dpo():
    generator = torch.Generator().manual_seed(0)
    rho_w, rho_l = torch.randn(2, 9, generator=generator, dtype=torch.float64) / 1000
    ours = objectives.get(
        "condition_po", form="sigmoid", label_smoothing=0.0, per_beta=False, diffusion_weight=0.0
    )
    logp = {"logp_w": rho_w - 0.1, "logp_l": rho_l - 0.1}
    torch.testing.assert_close(
        ours(rho_w, rho_l, **logp), objectives.get("diffusion_dpo")(rho_w, rho_l), **EXACT
    )


def test_equal_conditions_teach_nothing():
    error = torch.full((3,), 0.2, dtype=torch.float64, requires_grad=True)
    s = Sides(rho_w=0.2 - error, rho_l=0.2 - error, logp_w=-error, logp_l=-error)
    loss_E = objectives.get("condition_po", diffusion_weight=0.0).win_loss(s, {})
    close(loss_E, [0.5 * 0.01] * 3)
    (grad,) = torch.autograd.grad(loss_E.sum(), [error])
    close(grad, [0.0] * 3)


def test_the_weight_has_no_gradient_and_gates_are_told():
    inputs = next(case["inputs"] for case in CASES if case["name"] == "gates")
    loss, (s, _, _) = objective(inputs), sides(inputs)
    assert not loss.weight(s).requires_grad
    told = loss.diagnostics(s, {})
    assert told["condition_po/gate_open"].tolist() == [0.0, 1.0, 1.0, 1.0]
    assert "condition_po/gate_open" not in objective(inputs, form="sigmoid").diagnostics(s, {})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"beta": 0.0}, "beta must be positive"),
        ({"margin": -0.1}, "margin must not be negative"),
        ({"diffusion_weight": -1.0}, "diffusion_weight must not be negative"),
        ({"label_smoothing": 0.5}, r"label_smoothing must be in \[0, 0.5\)"),
        ({"form": "hinge"}, "form must be one of gated, sigmoid"),
        ({"margin": math.nan}, "margin must be a finite number"),
    ],
)
def test_impossible_settings(given, told):
    with pytest.raises(ValueError, match=told):
        objectives.get("condition_po", **given)
