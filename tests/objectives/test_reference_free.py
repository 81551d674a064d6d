"""Losses of log-probabilities alone against values computed from the papers' equations, digit by digit in mpmath."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mpmath import exp, log1p, mp, mpf
from torch import Tensor

from prefopt import objectives

mp.dps = 30
LOGP_W, LOGP_L = [-3.5, -20.25, -0.75, -41.0], [-4.0, -11.5, -9.0, -41.0]
LENGTH_W, LENGTH_L = [3, 9, 2, 17], [5, 4, 2, 23]
ROWS = range(4)


def loss(name: str, **hyper: Any) -> Tensor:
    objective = objectives.get(name, **hyper)
    rho_w, rho_l, length_w, length_l = (
        torch.tensor(values, dtype=torch.float64) for values in (LOGP_W, LOGP_L, LENGTH_W, LENGTH_L)
    )
    return objective(rho_w, rho_l, length_w=length_w, length_l=length_l)


def close(found: Tensor, expected: list[Any]) -> None:
    wanted = torch.tensor([float(x) for x in expected], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def smoothed(z: Any, e: float) -> Any:
    return (1 - mpf(e)) * log1p(exp(-z)) + mpf(e) * log1p(exp(z))


def mean_of_tokens(average: str) -> list[Any]:
    if average == "sequence":
        return [-mpf(LOGP_W[i]) / LENGTH_W[i] for i in ROWS]
    return [-mpf(LOGP_W[i]) * len(ROWS) / sum(LENGTH_W) for i in ROWS]


@pytest.mark.parametrize("average", ["sequence", "batch"])
@pytest.mark.parametrize("e", [0.0, 0.1])
def test_contrastive_po_sigmoid(average: str, e: float) -> None:
    nll = mean_of_tokens(average)
    found = loss("contrastive_po", beta=0.3, alpha=0.7, label_smoothing=e, average=average)
    close(found, [smoothed(mpf(0.3) * (mpf(LOGP_W[i]) - LOGP_L[i]), e) + mpf(0.7) * nll[i] for i in ROWS])


def test_contrastive_po_hinge() -> None:
    nll = mean_of_tokens("sequence")
    u = [mpf(0.3) * (mpf(LOGP_W[i]) - LOGP_L[i]) for i in ROWS]
    close(loss("contrastive_po", beta=0.3, loss="hinge"), [max(mpf(0), 1 - u[i]) + nll[i] for i in ROWS])
    assert min(u) < 1 < max(u)


def test_contrastive_po_ipo_compares_averages() -> None:
    nll = mean_of_tokens("sequence")
    gap = [mpf(LOGP_W[i]) / LENGTH_W[i] - mpf(LOGP_L[i]) / LENGTH_L[i] for i in ROWS]
    wanted = [(gap[i] - 1 / (2 * mpf(0.3))) ** 2 + nll[i] for i in ROWS]
    close(loss("contrastive_po", beta=0.3, loss="ipo"), wanted)


@pytest.mark.parametrize("name", ["hinge", "ipo"])
def test_label_smoothing_is_refused_where_it_would_not_be_read(name: str) -> None:
    with pytest.raises(ValueError, match=f"label_smoothing is for loss=sigmoid, and loss={name}"):
        objectives.get("contrastive_po", loss=name, label_smoothing=0.1)


def test_an_unknown_form_gets_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean hinge"):
        objectives.get("contrastive_po", loss="hing")


@pytest.mark.parametrize("alpha", [0.25, -0.5, 2.0])
@pytest.mark.parametrize("e", [0.0, 0.2])
def test_alpha_po(alpha: float, e: float) -> None:
    def reward(logp: float, length: int) -> Any:
        p = exp(mpf(logp) / length)
        return (1 - p ** -mpf(alpha)) / mpf(alpha)

    u = [mpf(2.5) * (reward(LOGP_W[i], LENGTH_W[i]) - reward(LOGP_L[i], LENGTH_L[i])) for i in ROWS]
    found = loss("alpha_po", beta=2.5, gamma=1.1, alpha=alpha, label_smoothing=e)
    close(found, [smoothed(u[i] - mpf(1.1), e) for i in ROWS])


def test_alpha_po_tends_to_simpo() -> None:
    simpo = loss("simpo", beta=2.5, gamma_beta_ratio=0.4)
    torch.testing.assert_close(loss("alpha_po", beta=2.5, gamma_beta_ratio=0.4, alpha=0.0), simpo)
    near = loss("alpha_po", beta=2.5, gamma_beta_ratio=0.4, alpha=1e-9)
    torch.testing.assert_close(near, simpo, rtol=1e-7, atol=0)
    assert objectives.get("alphapo") == objectives.get("alpha_po")


@pytest.mark.parametrize(("d", "u"), [(1.3, 0.6), (1.0, 1.0)])
def test_apo_zero_unpaired(d: float, u: float) -> None:
    rho, good = [3.0, -2.5, 0.0, 40.0], [True, False, False, True]
    sigma = [1 / (1 + exp(-mpf(0.2) * x)) for x in rho]
    expected = [mpf(d) * (1 - s) if ok else mpf(u) * s for s, ok in zip(sigma, good, strict=True)]
    objective = objectives.get("apo_zero_unpaired", beta=0.2, desirable_weight=d, undesirable_weight=u)
    found = objective(torch.tensor(rho, dtype=torch.float64), torch.tensor(good))
    torch.testing.assert_close(found, torch.tensor([float(x) for x in expected], dtype=torch.float64))
    assert not objective.branches


def test_bco_weighs_undesirable_samples_by_density_ratios() -> None:
    rho, good, ratio = [3.0, -2.5, 0.5, 40.0], [True, False, False, True], [2.0, 3.0, 0.25, 7.0]
    r = [mpf(0.2) * x for x in rho]
    delta = ((r[0] + r[3]) / 2 + (r[1] + r[2]) / 2) / 2  # of rewards as they are, whatever the weights
    loss = [log1p(exp(delta - r[i])) if good[i] else ratio[i] * log1p(exp(r[i] - delta)) for i in ROWS]
    objective, given = objectives.get("bco", beta=0.2), torch.tensor(rho, dtype=torch.float64)
    close(objective(given, torch.tensor(good), density_ratio=torch.tensor(ratio)), loss)


def test_apo_zero_is_its_unpaired_form_on_both_sides() -> None:
    rho_w, rho_l = torch.randn(2, 5, dtype=torch.float64)
    good = torch.ones(5, dtype=torch.bool)
    single = objectives.get("apo_zero_unpaired", beta=0.3)
    pairs = objectives.get("apo_zero", beta=0.3)(rho_w, rho_l)
    torch.testing.assert_close(single(rho_w, good) + single(rho_l, ~good), pairs)
