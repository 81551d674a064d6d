"""`ld_alpha`, `use_weighting` and `rpo_alpha` on other losses, against the papers' equations computed token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mpmath import exp, fsum, log, log1p, mp, mpf
from torch import Tensor

from prefopt import objectives
from prefopt.objectives import Mixture, registry

mp.dps = 30
LENGTHS = {"w": [3, 9, 2, 6], "l": [5, 4, 2, 6]}
ROWS, T, BETA = range(4), 9, 0.3
RNG = np.random.default_rng(7)
POLICY = {side: [list(-3 * RNG.random(n)) for n in LENGTHS[side]] for side in "wl"}
REFERENCE = {side: [list(-3 * RNG.random(n)) for n in LENGTHS[side]] for side in "wl"}
SQUARES = {side: [list(-2 * RNG.random(n)) for n in LENGTHS[side]] for side in "wl"}
"""log sum_v pi(v)^2 of every token."""


def padded(rows: list[list[float]]) -> Tensor:
    return torch.tensor([row + [0.0] * (T - len(row)) for row in rows], dtype=torch.float64)


def loss(name: Any, **hyper: Any) -> Tensor:
    objective = objectives.get(name, **hyper)
    given: dict[str, Tensor] = {}
    for side in "wl":
        policy, reference = padded(POLICY[side]), padded(REFERENCE[side])
        given |= {
            f"rho_{side}": (policy - reference).sum(-1),
            f"rho_tokens_{side}": policy - reference,
            f"logp_tokens_{side}": policy,
            f"logp_{side}": policy.sum(-1),
            f"log_p2_{side}": padded(SQUARES[side]).sum(-1),
            f"length_{side}": torch.tensor(LENGTHS[side], dtype=torch.float64),
        }
    kept = {name for need in objective.needs for name in (f"{need}_w", f"{need}_l")} | {"rho_w", "rho_l"}
    return objective(**{key: value for key, value in given.items() if key in kept})


def close(found: Tensor, expected: list[Any]) -> None:
    wanted = torch.tensor([float(x) for x in expected], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def decayed(rows: dict[str, list[list[float]]], side: str, a: float) -> list[Any]:
    out = []
    for i in ROWS:
        p = min(LENGTHS["w"][i], LENGTHS["l"][i])
        out.append(fsum(mpf(x) * (1 if t < p else mpf(a)) for t, x in enumerate(rows[side][i])))
    return out


def rho(side: str, a: float = 1.0) -> list[Any]:
    pairs = zip(decayed(POLICY, side, a), decayed(REFERENCE, side, a), strict=True)
    return [policy - reference for policy, reference in pairs]


def weights() -> list[Any]:
    def of(side: str, i: int) -> Any:
        terms = zip(POLICY[side][i], SQUARES[side][i], strict=True)
        return exp(fsum(mpf(logp) - square for logp, square in terms) / LENGTHS[side][i])

    return [of("w", i) * of("l", i) for i in ROWS]


def logistic(u: Any) -> Any:
    return log1p(exp(-u))


@pytest.mark.parametrize("a", [0.0, 0.4, 1.0])
def test_ld_alpha(a: float) -> None:
    w, lost = rho("w", a), rho("l", a)
    dpo = [logistic(mpf(BETA) * (w[i] - lost[i])) for i in ROWS]
    close(loss("dpo", beta=BETA, ld_alpha=a), dpo)
    close(loss("ld_dpo", beta=BETA, a=a), dpo)
    averages = [w[i] / LENGTHS["w"][i] - lost[i] / LENGTHS["l"][i] for i in ROWS]
    close(loss("ipo", beta=BETA, ld_alpha=a), [(m - 1 / (2 * mpf(BETA))) ** 2 for m in averages])
    zero = [
        1 / (1 + exp(mpf(BETA) * x)) + 1 / (1 + exp(-mpf(BETA) * y)) for x, y in zip(w, lost, strict=True)
    ]
    close(loss("apo_zero", beta=BETA, ld_alpha=a), zero)
    js = [logistic(mpf(BETA) * (log(1 / (1 + exp(-w[i]))) - log(1 / (1 + exp(-lost[i]))))) for i in ROWS]
    close(loss("f_dpo", beta=BETA, f="js", ld_alpha=a), js)


def test_ld_alpha_sorts_decayed_sums() -> None:
    a = 0.4
    policy = [x - y for x, y in zip(decayed(POLICY, "w", a), decayed(POLICY, "l", a), strict=True)]
    known = [x - y for x, y in zip(decayed(REFERENCE, "w", a), decayed(REFERENCE, "l", a), strict=True)]
    expected = {}
    for i, other in zip(sorted(ROWS, key=lambda i: policy[i]), sorted(known), strict=True):
        expected[i] = logistic(mpf(BETA) * (policy[i] - other))
    close(loss("aot", beta=BETA, ld_alpha=a), [expected[i] for i in ROWS])
    w, lost = rho("w", a), rho("l", a)
    for i, other in zip(sorted(ROWS, key=lambda i: w[i]), sorted(lost), strict=True):
        expected[i] = logistic(mpf(BETA) * (w[i] - other))
    close(loss("aot_unpaired", beta=BETA, ld_alpha=a), [expected[i] for i in ROWS])


def test_use_weighting() -> None:
    w, lost, weight = rho("w"), rho("l"), weights()
    dpo = [weight[i] * logistic(mpf(BETA) * (w[i] - lost[i])) for i in ROWS]
    close(loss("dpo", beta=BETA, use_weighting=True), dpo)
    close(loss("wpo", beta=BETA), dpo)
    hinge = [weight[i] * max(mpf(0), 1 - mpf(BETA) * (w[i] - lost[i])) for i in ROWS]
    close(loss("hinge", beta=BETA, use_weighting=True), hinge)
    weighted = objectives.get("dpo", use_weighting=True)
    logp = torch.zeros(1, requires_grad=True)
    one = torch.ones(1)
    given = {"log_p2_w": one, "log_p2_l": one, "length_w": one, "length_l": one}
    assert weighted(one, one, logp_w=logp, logp_l=logp, **given).requires_grad is False


@pytest.mark.parametrize("average", ["sequence", "batch"])
def test_rpo_alpha(average: str) -> None:
    w, lost = rho("w"), rho("l")
    divisor = LENGTHS["w"] if average == "sequence" else [mpf(sum(LENGTHS["w"])) / 4] * 4
    nll = [-fsum(map(mpf, POLICY["w"][i])) / divisor[i] for i in ROWS]
    expected = [(mpf(BETA) * (w[i] - lost[i]) - 0) for i in ROWS]
    wanted = [logistic(u) + mpf(0.2) * n for u, n in zip(expected, nll, strict=True)]
    close(loss("dpo", beta=BETA, rpo_alpha=0.2, average=average), wanted)
    assert objectives.get("dpo", rpo_alpha=0.2, average=average) == objectives.get(
        "dpo+0.2*sft", average=average
    )


def test_all_of_them_in_a_sum() -> None:
    a, weight = 0.4, weights()
    w, lost = rho("w", a), rho("l", a)
    expected = []
    for i in ROWS:
        bco = logistic(mpf(BETA) * w[i]) + logistic(-mpf(BETA) * lost[i])
        nll = -fsum(map(mpf, POLICY["w"][i])) / LENGTHS["w"][i]
        expected.append(
            weight[i] * (logistic(mpf(BETA) * (w[i] - lost[i])) + mpf(0.2) * bco + mpf(0.7) * nll)
        )
    for name, more in (("dpo+0.2*bco_pair", {"rpo_alpha": 0.7}), ("dpo+0.2*bco_pair+0.7*sft", {})):
        close(loss(name, beta=BETA, ld_alpha=a, use_weighting=True, **more), expected)
    listed = objectives.get(["dpo", "bco_pair"], weights=[1.0, 0.2], ld_alpha=a, rpo_alpha=0.7)
    assert listed == objectives.get("dpo+0.2*bco_pair+0.7*sft", ld_alpha=a)


def test_unset_values_change_nothing() -> None:
    plain = objectives.get("hinge", ld_alpha=None, use_weighting=False, rpo_alpha=None)
    assert plain == objectives.get("hinge")
    assert isinstance(objectives.get("hinge", ld_alpha=0.0), Mixture)


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("kto", {"ld_alpha": 0.5}, "single labelled samples"),
        ("bco", {"use_weighting": True}, "single labelled samples"),
        ("apo_zero_unpaired", {"rpo_alpha": 1.0}, "single labelled samples"),
        ("aot", {"use_weighting": True}, "compares rows with each other"),
        ("dpo+aot_unpaired", {"use_weighting": True}, "AOTUnpaired compares rows with each other"),
        ("beta_dpo", {"use_weighting": True}, "compares rows with each other"),
        ("wpo", {"use_weighting": True}, "already"),
        ("ld_dpo", {"ld_alpha": 0.5}, "weighs tokens itself"),
        ("simpo", {"ld_alpha": 0.5}, "no log-ratios"),
        ("dpo+orpo", {"ld_alpha": 0.5}, "ORPO has no log-ratios"),
        ("sft", {"rpo_alpha": 1.0}, "is that term already"),
        ("dpo+sft", {"rpo_alpha": 1.0}, "is that term already"),
        ("sft", {"ld_alpha": 0.5}, "no loser"),
        ("ssapo", {"use_weighting": True}, "robust_moved"),
        ("symmpo", {"use_weighting": True}, "beside the pair"),
        ("dpo", {"ld_alpha": 1.5}, r"ld_alpha must lie in \[0, 1\]"),
        ("dpo", {"use_weighting": 1.0}, "true or false"),
        ("dpo", {"rpo_alpha": 0.0}, "rpo_alpha must be positive"),
    ],
)
def test_no_place_for_it(name: str, given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        objectives.get(name, **given)


def test_average_goes_with_a_likelihood() -> None:
    with pytest.raises(TypeError, match="give rpo_alpha"):
        objectives.get("dpo", average="batch")


@pytest.mark.parametrize("name", objectives.names())
def test_what_is_listed_is_what_is_taken(name: str) -> None:
    values = {"ld_alpha": 0.5, "use_weighting": True, "rpo_alpha": 0.5}
    for key, value in values.items():
        if key in objectives.hyperparameter_names(name):
            assert isinstance(objectives.get(name, **{key: value}), Mixture)
        else:
            assert registry.refused(name, key)
            with pytest.raises(ValueError, match="Leave it out"):
                objectives.get(name, **{key: value})
