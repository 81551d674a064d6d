"""The f-divergence generators against 60-digit arithmetic."""

from __future__ import annotations

import mpmath
import pytest
import torch

from prefopt.objectives import get
from prefopt.objectives.generators import divergence, generator, log_generator
from prefopt.objectives.stable import log1mexp, log_expm1, softplus

V = [-200.0, -30.0, -3.0, -1.0, 0.0, 1.0, 1.38, 1.39, 2.0, 5.0, 12.0, 30.0, 300.0]


def exact(f: str, t: mpmath.mpf, a: mpmath.mpf) -> mpmath.mpf:
    log = mpmath.log
    return {
        "forward_kl": lambda: -log(t),
        "reverse_kl": lambda: t * log(t),
        "jeffrey": lambda: (t - 1) * log(t),
        "js": lambda: (t * log(t) - (1 + t) * log((1 + t) / 2)) / 2,
        "alpha": lambda: (t ** (1 - a) - (1 - a) * t - a) / (a * (a - 1)),
        "hellinger": lambda: (mpmath.sqrt(t) - 1) ** 2,
    }[f]()


@pytest.mark.parametrize("f", ["forward_kl", "reverse_kl", "jeffrey", "js", "alpha", "hellinger"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_generators(f: str, dtype: torch.dtype, rtol: float) -> None:
    a = 0.3
    v = torch.tensor(V, dtype=dtype)
    with mpmath.workdps(400):
        q = [1 / (1 + mpmath.exp(-mpmath.mpf(float(x)))) for x in v]
        ends = [exact(f, t, mpmath.mpf(a)) for t in q]
        logs = [float(mpmath.log(x)) if x > 0 else float("nan") for x in ends]
        smoothed = [
            float(
                sum(
                    mpmath.mpf(p) * exact(f, s / mpmath.mpf(p), mpmath.mpf(a))
                    for s, p in ((t, 0.95), (1 - t, 0.05))
                )
            )
            for t in q
        ]
    wide = {"rtol": rtol, "atol": 1e-30}
    torch.testing.assert_close(
        generator(f, v, a).double(), torch.tensor([float(x) for x in ends], dtype=torch.float64), **wide
    )
    if f != "reverse_kl":
        torch.testing.assert_close(
            log_generator(f, v, a).double(), torch.tensor(logs, dtype=torch.float64), **wide
        )
    got = divergence(f, v, 0.05, a).double()
    torch.testing.assert_close(got, torch.tensor(smoothed, dtype=torch.float64), rtol=rtol, atol=rtol)


def test_no_logarithm_of_a_negative_generator() -> None:
    with pytest.raises(ValueError, match="negative"):
        log_generator("reverse_kl", torch.zeros(1))


def test_stable_functions() -> None:
    x = torch.tensor([-1e-7, -1e-3, -0.5, -0.7, -5.0, -200.0], dtype=torch.float64, requires_grad=True)
    with mpmath.workdps(60):
        expected = [float(mpmath.log1p(-mpmath.exp(mpmath.mpf(v)))) for v in x.tolist()]
    torch.testing.assert_close(log1mexp(x), torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)
    assert torch.autograd.gradcheck(log1mexp, (x[1:5].detach().requires_grad_(),))
    tiny = torch.tensor([-1e-9], requires_grad=True)  # float32: e^x is 1, so the other branch is log 0 here
    assert float(torch.autograd.grad(log1mexp(tiny).sum(), tiny)[0]) == pytest.approx(-1e9)
    y = torch.tensor([21.0], dtype=torch.float64)
    assert float(softplus(y) - y) == pytest.approx(7.582560427911907e-10, rel=1e-5)
    assert log_expm1(0.0) == float("-inf")
    assert log_expm1(1e-9) == pytest.approx(-20.72326583644641)
    assert log_expm1(1e4) == 1e4


def test_alpha_must_be_a_proper_divergence() -> None:
    with pytest.raises(ValueError, match="alpha"):
        get("f_po", f="alpha", alpha=1.0)
