"""BPO against golden vectors, and the properties that hold for every member of the family."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from prefopt import objectives
from prefopt.objectives import BPO

CASES = json.loads((Path(__file__).parents[1] / "data" / "bpo.json").read_text())
LOSSES = [c for c in CASES if "kind" not in c["inputs"]]
POPULATIONS = [c for c in CASES if c["inputs"].get("kind") == "population"]
FPO_POPULATIONS = [c for c in CASES if c["inputs"].get("kind") == "fpo_population"]


def f64(values: Any) -> Tensor:
    return torch.tensor(
        [math.nan if v is None else v for v in values] if isinstance(values, list) else values,
        dtype=torch.float64,
    )


def build(inputs: dict[str, Any]) -> BPO:
    names = {
        "beta": "beta",
        "lambda": "lambda",
        "s": "s",
        "r_min": "r_min",
        "r_max": "r_max",
        "gamma": "gamma",
    }
    names |= {"ratio": "ratio", "f": "f", "f_alpha": "f_alpha", "mix_weight_sba": "mix_weight"}
    hyper = {ours: inputs[theirs] for theirs, ours in names.items() if theirs in inputs}
    h = "sba" if inputs["h"] == "mix" else inputs["h"]
    return objectives.get("bpo", h=h, allow_unbounded=True, **hyper)


@pytest.mark.parametrize("case", LOSSES, ids=lambda c: c["name"])
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-10, 1e-13), (torch.float32, 5e-5, 1e-6)]
)
def test_vectors(case: dict[str, Any], dtype: torch.dtype, rtol: float, atol: float) -> None:
    inputs, expected = case["inputs"], case["expected"]
    objective = build(inputs)
    columns: dict[str, Tensor] = {}
    if dtype == torch.float32:  # from u, since float32 differences of log-probabilities are another subject
        objective = objective.replace(
            beta=1.0, ratio="dpo", gamma=0.0, s=objective.scale if objective.h == "sba" else None
        )
        rho_w = torch.tensor(expected["u"], dtype=dtype)
        rho_l = torch.zeros_like(rho_w)
        slope_name, sign = "grad_u", 1.0
    else:
        slope_name, sign = "grad_logp_w", 1.0
        if "margin" in inputs:
            rho_w, slope_name = f64(inputs["margin"]), "grad_margin"
            rho_l = torch.zeros_like(rho_w)
        elif "rho_w" in inputs:
            rho_w, rho_l = f64(inputs["rho_w"]), f64(inputs["rho_l"])
        else:
            reference = [f64(inputs.get(f"ref_logp_{k}", [0.0])) for k in "wl"]
            rho_w, rho_l = (f64(inputs[f"policy_logp_{k}"]) - r for k, r in zip("wl", reference, strict=True))
        if "len_w" in inputs:
            columns = {f"length_{k}": f64(inputs[f"len_{k}"]) for k in "wl"}
    rho_w, rho_l = rho_w.requires_grad_(), rho_l.requires_grad_()
    loss = objective(rho_w, rho_l, **columns)
    grad_w, grad_l = torch.autograd.grad(loss.sum(), [rho_w, rho_l])
    torch.testing.assert_close(loss.detach().double(), f64(expected["loss"]), rtol=rtol, atol=atol)
    torch.testing.assert_close(sign * grad_w.double(), f64(expected[slope_name]), rtol=rtol, atol=atol)
    if "grad_logp_l" in expected and dtype == torch.float64 and slope_name == "grad_logp_w":
        torch.testing.assert_close(grad_l, f64(expected["grad_logp_l"]), rtol=rtol, atol=atol)
    if dtype == torch.float64:
        u = f64(expected["u"])
        torch.testing.assert_close(objective.weight(u), -f64(expected["grad_u"]), rtol=1e-9, atol=1e-13)
        G, known = f64(expected["G_h"]), f64(expected["G_h"]).isfinite()
        torch.testing.assert_close(objective.G_h(u)[known], G[known], rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(objective.clipped(u), f64(expected["u_clipped"]), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("case", POPULATIONS, ids=lambda c: c["name"])
def test_votes_put_the_optimum_at_their_log_odds(case: dict[str, Any]) -> None:
    inputs, expected = case["inputs"], case["expected"]
    objective = build({**inputs, "beta": 1.0})
    votes = f64([[inputs["p_win"], 1 - inputs["p_win"], 0.0]])

    def loss_and_slope(at: float) -> tuple[float, float]:
        u = f64([at]).requires_grad_()
        loss = objective(u, torch.zeros_like(u), votes)
        return float(loss.detach()), float(torch.autograd.grad(loss.sum(), u)[0])

    assert loss_and_slope(expected["u_star"])[1] == pytest.approx(0, abs=1e-12)
    loss, slope = loss_and_slope(inputs["probe_u"])
    assert loss == pytest.approx(expected["loss_at_probe"], rel=1e-10)
    assert slope == pytest.approx(expected["grad_at_probe"], rel=1e-10)


@pytest.mark.parametrize("case", FPO_POPULATIONS, ids=lambda c: c["name"])
def test_pairwise_f_po_moves_the_optimum(case: dict[str, Any]) -> None:
    p, expected = case["inputs"]["p_win"], case["expected"]
    objective = objectives.get("f_po", f=case["inputs"]["f"], label_smoothing=0.0, beta=1.0)
    votes = f64([[p, 1 - p, 0.0]])
    best = minimize_scalar(
        lambda u: float(objective(f64([u]), f64([0.0]), votes)), bounds=(-10, 10), method="bounded"
    )
    assert 1 / (1 + math.exp(-best.x)) == pytest.approx(expected["M_star_grid"], abs=2e-5)
    assert abs(expected["M_star_grid"] - p) > 0.05


U = torch.linspace(-4, 4, 17, dtype=torch.float64)
MEMBERS = [
    BPO(h=h, lambda_=lam, beta=1.0, allow_unbounded=True)
    for h, lam in [
        ("lr", 0.0),
        ("kliep", 0.0),
        ("lsif", 0.0),
        *((h, x) for h in ("ba", "sba") for x in (-0.9, -0.5, 0, 1.2)),
    ]
]


def generator_h(objective: BPO, R: Tensor) -> Tensor:
    lam = objective.lambda_
    match objective.h:
        case "lr":
            return (R * R.log() - (1 + R) * (1 + R).log()) / 2
        case "kliep":
            return R * R.log() - R
        case "lsif":
            return (R - 1) ** 2
    power = R * R.log() if lam == 0 else (R ** (1 + lam) - R) / lam
    return power if objective.h == "ba" else power / (4 * (1 + lam))


@pytest.mark.parametrize("objective", MEMBERS, ids=lambda o: f"{o.h}{o.lambda_:g}")
def test_closed_forms_follow_from_h(objective: BPO) -> None:
    def derivative(R: Tensor) -> Tensor:
        R = R.clone().requires_grad_()
        return torch.autograd.grad(generator_h(objective, R).sum(), R)[0]

    R = torch.exp(-U)
    expected = derivative(R) * R - generator_h(objective, R) - derivative(1 / R)
    difference = objective.member_loss(U) - expected
    torch.testing.assert_close(difference, difference[:1].expand_as(U))  # up to a constant
    weight = objective.weight(U)
    assert bool((weight > 0).all())
    u = U.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective.member_loss(u).sum(), u)
    torch.testing.assert_close(-slope, weight)


def loss(u: Tensor = U, **hyper: Any) -> Tensor:
    return objectives.get("bpo", beta=1.0, allow_unbounded=True, **hyper)(u, torch.zeros_like(u))


def test_relations_within_the_family() -> None:
    torch.testing.assert_close(loss(h="lr"), objectives.get("dpo", beta=1.0)(U, 0 * U), rtol=0, atol=0)
    torch.testing.assert_close(loss(h="ba", lambda_=0.0), loss(h="kliep") - 1)
    torch.testing.assert_close(loss(h="ba", lambda_=1.0), loss(h="lsif"))
    torch.testing.assert_close(loss(lambda_=0.7, s=3.0), loss(h="ba", lambda_=0.7) / (3.0 * 1.7))
    torch.testing.assert_close(loss(lambda_=-0.2), loss(lambda_=-0.8))
    torch.testing.assert_close(loss(lambda_=-0.5), torch.expm1(-U / 2))
    torch.testing.assert_close(loss(lambda_=1e-8), loss(lambda_=0.0), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(loss(lambda_=-1 + 1e-8), loss(lambda_=0.0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss(mix_weight=0.3), 0.3 * loss() + 0.7 * loss(h="lr"))


def test_default_clip_where_the_loss_is_unbounded() -> None:
    high = -math.log(0.01)
    assert objectives.get("bpo", **{"lambda": 1.2}).clip == (-math.inf, high)
    assert objectives.get("bpo", h="kliep").clip == (-math.inf, high)
    assert objectives.get("bpo").clip == objectives.get("bpo", h="lr").clip == (-math.inf, math.inf)
    assert objectives.get("bpo", lambda_=1.2, allow_unbounded=True).clip == (-math.inf, math.inf)
    clipped = objectives.get("bpo", beta=1.0, lambda_=1.2)
    u = f64([20.0, 1.0]).requires_grad_()
    value = clipped(u, torch.zeros_like(u))
    torch.testing.assert_close(value[0].detach(), loss(f64([high]), lambda_=1.2)[0])
    (slope,) = torch.autograd.grad(value.sum(), u)
    assert slope[0] == 0
    assert slope[1] < 0


def test_simpo_ratio_matches_the_scale_of_the_logistic_loss() -> None:
    bpo = objectives.get("bpo", ratio="simpo", beta=2.0, gamma=1.6)
    assert bpo.scale == pytest.approx(4 * math.cosh(0.8))
    assert bpo.replace(s=4.0).scale == 4.0
    start = f64([-1.6])
    torch.testing.assert_close(bpo.weight(start), bpo.replace(h="lr").weight(start))
    assert not bpo.needs_reference
    a = [f64([-20.0, -30.0]), f64([-25.0, -9.0])]
    lengths = {"length_w": f64([10.0, 12.0]), "length_l": f64([5.0, 7.0])}
    simpo = objectives.get("simpo", beta=2.0, gamma=1.6)
    torch.testing.assert_close(bpo.replace(h="lr")(*a, **lengths), simpo(*a, **lengths))


@pytest.mark.parametrize("f", ["forward_kl", "jeffrey", "js", "alpha", "hellinger"])
def test_logistic_loss_on_the_f_po_ratio_is_f_po(f: str) -> None:
    m = torch.cat([U, f64([-40.0, 15.0, 30.0, 200.0])])
    bpo = objectives.get("bpo", h="lr", ratio="fpo", f=f, beta=1.0)
    f_po = objectives.get("f_po", f=f, label_smoothing=0.0, beta=1.0)
    torch.testing.assert_close(bpo(m, 0 * m), f_po(m, 0 * m), rtol=1e-9, atol=0)


@pytest.mark.parametrize("f", ["reverse_kl", "forward_kl", "js", "alpha", "chi2"])
def test_logistic_loss_on_the_f_dpo_ratio_is_f_dpo(f: str) -> None:
    rho = [f64([1.0, -2.0]), f64([0.5, 1.5])]
    bpo = objectives.get("bpo", h="lr", ratio="fdpo", f=f, f_alpha=0.3, beta=0.5)
    torch.testing.assert_close(bpo(*rho), objectives.get("f_dpo", f=f, alpha=0.3, beta=0.5)(*rho))


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"lambda_": -1.0}, "lambda"),
        ({"lambda_": math.inf}, "lambda_"),
        ({"s": 0.0}, "s must be positive"),
        ({"r_min": 1.5}, "r_min"),
        ({"r_min": 0.0}, "allow_unbounded"),
        ({"r_max": 0.5}, "r_max"),
        ({"mix_weight": 1.1}, "mix_weight"),
        ({"gamma": -1.0, "ratio": "simpo"}, "gamma"),
        ({"gamma": 1.0}, "simpo"),
        ({"ratio": "simpo", "gamma": 4.0, "r_max": 30.0}, "training would not move"),
        ({"ratio": "fpo", "f": "reverse_kl"}, "f > 0"),
        ({"ratio": "fdpo", "f": "jeffrey"}, "fdpo"),
        ({"ratio": "fdpo", "f": "alpha", "f_alpha": 1.0}, "f_alpha"),
        ({"h": "sbba"}, "did you mean sba"),
    ],
)
def test_bad_settings_are_refused(hyper: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objectives.get("bpo", **hyper)


def test_zero_length_is_no_silent_nan() -> None:
    bpo = objectives.get("bpo", ratio="simpo", beta=2.0)
    with pytest.raises(ValueError, match="comparison 0"):
        bpo(f64([-1.0]), f64([-1.0]), length_w=f64([0.0]), length_l=f64([1.0]))
