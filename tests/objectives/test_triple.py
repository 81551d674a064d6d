"""Triple preference optimization against values computed from the paper's equations in mpmath."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mpmath import exp, log1p, mp, mpf
from torch import Tensor

from prefopt import objectives

mp.dps = 30
LOGP = {"w": [-3.5, -20.25, -0.75], "l": [-4.0, -11.5, -9.0], "reference": [-6.5, -2.0, -30.0]}
LENGTH = {"w": [3, 9, 2], "l": [5, 4, 2], "reference": [4, 1, 11]}
ROWS = range(3)


def loss(beta: float = 0.3, **hyper: Any) -> Tensor:
    objective = objectives.get("tpo", beta=beta, **hyper)
    logp, length = (
        {side: torch.tensor(values, dtype=torch.float64) for side, values in given.items()}
        for given in (LOGP, LENGTH)
    )
    further = {}
    if objective.branches:
        further = {"logp_reference": logp["reference"], "length_reference": length["reference"]}
    return objective(logp["w"], logp["l"], length_w=length["w"], length_l=length["l"], **further)


def close(found: Tensor, expected: list[Any]) -> None:
    wanted = torch.tensor([float(x) for x in expected], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def smoothed(u: Any, e: float) -> Any:
    return (1 - mpf(e)) * log1p(exp(-u)) + mpf(e) * log1p(exp(u))


def gap(i: int, averaged: bool) -> Any:
    w, lost = (mpf(LOGP[side][i]) / (LENGTH[side][i] if averaged else 1) for side in "wl")
    return w - lost


def nll(i: int, average: str = "sequence") -> Any:
    if average == "sequence":
        return -mpf(LOGP["reference"][i]) / LENGTH["reference"][i]
    return -mpf(LOGP["reference"][i]) * 3 / sum(LENGTH["reference"])


@pytest.mark.parametrize("average", ["sequence", "batch"])
@pytest.mark.parametrize("e", [0.0, 0.1])
def test_sigmoid(average: str, e: float) -> None:
    expected = [smoothed(mpf(0.3) * gap(i, False), e) + mpf(0.7) * nll(i, average) for i in ROWS]
    close(loss(tpo_alpha=0.7, label_smoothing=e, average=average), expected)


@pytest.mark.parametrize("gamma", [None, 1.6])
def test_tpo_l(gamma: float | None) -> None:
    expected = [smoothed(2 * gap(i, True) - mpf(gamma or 0.5), 0.1) + nll(i) for i in ROWS]
    given = {} if gamma is None else {"tpo_l_gamma": gamma}
    close(loss(beta=2.0, loss="tpo-l", label_smoothing=0.1, **given), expected)


def test_hinge_and_ipo() -> None:
    close(loss(loss="hinge"), [max(mpf(0), 1 - mpf(0.3) * gap(i, False)) + nll(i) for i in ROWS])
    close(loss(loss="ipo"), [(gap(i, True) - 1 / (2 * mpf(0.3))) ** 2 + nll(i) for i in ROWS])


def test_without_its_likelihood_there_is_no_third_answer() -> None:
    objective = objectives.get("tpo", tpo_alpha=0.0, average="batch")
    assert not objective.branches
    assert not objective.initial_state()
    close(loss(tpo_alpha=0.0), [smoothed(mpf(0.3) * gap(i, False), 0) for i in ROWS])


def test_the_gold_answer_counts_whoever_won() -> None:
    given = {"logp_reference": torch.tensor([-6.0]), "length_reference": torch.tensor([3.0])}
    one, lost = torch.ones(1), torch.tensor([[0.0, 1.0, 0.0]])
    objective = objectives.get("tpo", beta=0.3, average="batch")
    found = objective(torch.tensor([-2.0]), torch.tensor([-5.0]), lost, length_w=one, length_l=one, **given)
    turned = objective(torch.tensor([-5.0]), torch.tensor([-2.0]), length_w=one, length_l=one, **given)
    torch.testing.assert_close(found, turned)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"loss": "hinge", "label_smoothing": 0.1}, "label_smoothing is for loss=sigmoid"),
        ({"loss": "sigmoid", "tpo_l_gamma": 0.5}, "tpo_l_gamma is for loss=tpo-l"),
        ({"loss": "tpo_l"}, "did you mean tpo-l"),
        ({"tpo_alpha": -1.0}, "tpo_alpha must be at least 0"),
        ({"loss": "tpo-l", "tpo_l_gamma": -1.0}, "tpo_l_gamma must be at least 0"),
    ],
)
def test_values_that_cannot_be(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        objectives.get("tpo", **given)
