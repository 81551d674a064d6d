"""What must hold of the small rules: selection, sparse directions, the oracle's refusals, random moves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import kstest

from prefopt.oracles.comparison import damped, doubt, is_noisy, oracle
from prefopt.oracles.direction import Selection, direction, onebit_sparse
from prefopt.oracles.perturbations import MOST, Perturbations, add_signed, sphere_radius
from prefopt.oracles.step import StepSettings


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_direction_knows_no_scale_and_is_odd_in_the_answers() -> None:
    z_MD, y_M = randn(9, 5), torch.tensor([1, -1, 1, 1, -1, 1, 1, -1, 1])
    g = direction(z_MD, y_M)[1]
    torch.testing.assert_close(direction(1e-3 * z_MD, y_M)[1], g)
    torch.testing.assert_close(direction(z_MD, -y_M)[1], -g)
    assert float(g.norm()) == pytest.approx(1.0)


@pytest.mark.parametrize("everything", [Selection(lambda_g=0.0), Selection(keep_fraction=1.0)])
def test_keeping_everything_keeps_the_length(everything: Selection) -> None:
    g_hat = direction(randn(4, 30), torch.tensor([1, 1, -1, 1]))[1]
    g, kept = everything(g_hat)
    assert torch.equal(g, g_hat)
    assert kept == 30


@pytest.mark.parametrize(
    ("fraction", "size", "count"), [(0.07, 100, 7), (0.01, 101, 2), (1e-9, 50, 1), (0.5, 7, 4)]
)
def test_a_share_is_rounded_up_and_ties_go_to_the_first(fraction: float, size: int, count: int) -> None:
    g, kept = Selection(keep_fraction=fraction)(torch.full((size,), -0.1))
    assert kept == count
    assert g.nonzero()[:, 0].tolist() == list(range(count))


def test_ties_are_cut_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefopt.oracles.direction.BLOCK", 4)
    g, kept = Selection(keep_fraction=0.5)(torch.tensor([0.1, 0.2, 0.1, 0.3, 0.1, 0.1, 0.0, 0.1, 0.2, 0.1]))
    assert kept == 5
    assert g.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 8]


def test_selection_leaves_its_input() -> None:
    g_hat = torch.tensor([[0.6, 0.1], [0.8, 0.0]])
    g, _ = Selection(lambda_g=0.5)(g_hat)
    assert g.tolist() == [[pytest.approx(0.6), 0.0], [pytest.approx(0.8), 0.0]]
    assert float(g_hat[0, 1]) == pytest.approx(0.1)


@pytest.mark.parametrize("s", [1.0, 1.7, 4.0, 9.9])
def test_onebit_sparse_is_the_maximum(s: float) -> None:
    for seed in range(5):
        u = randn(10, seed=seed)
        g, _ = onebit_sparse(u, s)
        assert float(g.norm()) <= 1 + 1e-9
        assert float(g.abs().sum()) <= math.sqrt(s) + 1e-9
        # a general solver on |u|, where the bounds are smooth
        a = u.abs().numpy()
        best = minimize(
            lambda x, a=a: -(a @ x),
            [0.1] * 10,
            bounds=[(0, 1)] * 10,
            constraints=[
                {"type": "ineq", "fun": lambda x: 1 - x @ x},
                {"type": "ineq", "fun": lambda x: math.sqrt(s) - x.sum()},
            ],
            options={"maxiter": 500},
        )
        assert float((u * g).sum()) == pytest.approx(-best.fun, abs=1e-5)


def test_onebit_sparse_shares_among_ties() -> None:
    g, _ = onebit_sparse(torch.tensor([2.0, -2.0, 1.0, 2.0]), 2.0)
    torch.testing.assert_close(g, torch.tensor([1.0, -1.0, 0.0, 1.0]) * math.sqrt(2) / 3)
    g, _ = onebit_sparse(torch.tensor([2.0, -2.0, 1.0]), 2.5)
    assert float(g.abs().sum()) == pytest.approx(math.sqrt(2.5), rel=1e-6)


def test_a_loose_bound_gives_the_plain_direction() -> None:
    z_MD, y_M = randn(6, 12), torch.tensor([1, -1, -1, 1, 1, -1])
    u, g_hat = direction(z_MD, y_M)
    g, tau = onebit_sparse(u, 12.0)
    torch.testing.assert_close(g, g_hat)
    assert tau == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_oracle_refuses_numbers_that_are_none(bad: float) -> None:
    with pytest.raises(FloatingPointError, match="1 of 2 changes of the rejected"):
        oracle(torch.ones(2, 1), torch.tensor([[-1.0], [bad]]))


def test_only_exact_ties_are_noisy_at_zero() -> None:
    assert is_noisy(torch.tensor([0.0, 1e-6, -1e-6]), 0.0).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: oracle(torch.ones(2, 1), torch.ones(2, 2)), "same shape"),
        (lambda: oracle(torch.ones(2, 0), torch.ones(2, 0)), "at least one pair"),
        (lambda: oracle(torch.ones(1), torch.ones(1), "most"), "not one of: mean, any, all"),  # type: ignore[arg-type]
        (lambda: is_noisy(torch.ones(1), -1.0), "delta is -1.0"),
        (lambda: is_noisy(torch.tensor([math.nan])), "1 of 1 reference margins are NaN"),
        (lambda: is_noisy(torch.ones(1), 1.0, "one_sided"), "two_sided, release"),  # type: ignore[arg-type]
        (lambda: damped(1.0, -1.0, 0.0, *[torch.ones(1)] * 3), "rho is -1.0"),
        (lambda: damped(1.0, 1.0, 0.0, *[torch.ones(0)] * 3), "0 samples"),
        (lambda: Selection(), "given none; needed exactly one"),
        (lambda: Selection(lambda_g=0.1, clip_sigma=2.0), "given lambda_g=0.1, clip_sigma=2.0"),
        (lambda: Selection(keep_fraction=0.0), "keep_fraction is 0.0"),
        (lambda: Selection(keep_fraction=1.1), "keep_fraction is 1.1"),
        (lambda: Selection(lambda_g=-0.1), "lambda_g is -0.1"),
        (lambda: Selection(clip_sigma=math.nan), "clip_sigma is nan"),
        (lambda: onebit_sparse(torch.ones(2), 0.5), "s is 0.5"),
        (lambda: Perturbations(0, -1), "iteration is -1"),
        (lambda: Perturbations(0, 0, "cube"), "gaussian, sphere"),  # type: ignore[arg-type]
        (lambda: Perturbations(0, 0).draw([MOST], (1,)), "out of range"),
        (lambda: StepSettings(perturbations=0), "perturbations is 0"),
        (lambda: StepSettings(radius=0.0), "radius is 0.0"),
        (lambda: StepSettings(gamma=-1.0), "gamma is -1.0"),
        (lambda: StepSettings(gate=1.0), "gate is 1.0"),
        (lambda: StepSettings(gate=-0.1), "gate is -0.1"),
        (lambda: StepSettings(accept_check="maybe"), "none, trial, actual"),  # type: ignore[arg-type]
        (lambda: StepSettings(perturbations=3, antithetic=True), "make it even"),
        (lambda: StepSettings(estimator="expected", mode="any"), "mode 'mean' alone"),
        (lambda: StepSettings(sparsity=0.5), "sparsity is 0.5"),
    ],
)
def test_refusals(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_doubt() -> None:
    assert doubt(0.2) is None
    assert "radius may be too large" in str(doubt(0.0))
    assert "round-off" in str(doubt(0.49))


@pytest.mark.parametrize("sampler", ["gaussian", "sphere"])
@pytest.mark.parametrize("antithetic", [False, True])
def test_moves_depend_on_their_index_alone(sampler: Any, antithetic: bool) -> None:
    moves = Perturbations(3, 5, sampler, antithetic)
    together = moves.draw(range(6), (4, 7))
    assert torch.equal(together, torch.cat([moves.draw([i], (4, 7)) for i in range(6)]))
    assert torch.equal(together[[4, 1]], moves.draw([4, 1], (4, 7)))
    if antithetic:
        assert torch.equal(together[1::2], -together[::2])
    if sampler == "sphere":
        torch.testing.assert_close(torch.linalg.vector_norm(together, dim=(1, 2)), torch.ones(6))


def test_moves_of_other_seeds_iterations_and_indices_differ() -> None:
    keys = {Perturbations(s, t).key(i) for s, t in ((0, 0), (0, 1), (1, 0), (0, 2**16)) for i in range(3000)}
    assert len(keys) > 4 * 3000 - 10  # seeds may share one by chance ...
    assert (
        len({Perturbations(0, t).key(i) for t in range(100) for i in range(1000)}) == 100_000
    )  # ... a run may not
    z = Perturbations(0, 0).draw(range(40), (50,)).double()
    correlation = torch.corrcoef(z) - torch.eye(40)
    assert float(correlation.abs().max()) < 0.6
    assert float(correlation.square().mean()) == pytest.approx(1 / 50, rel=0.15)


def test_moves_are_gaussian() -> None:
    assert kstest(Perturbations(1, 2).draw(range(200), (100,)).flatten().numpy(), "norm").pvalue > 0.01
    # neighbours in index, at the same entry: a weak spread of seeds would show here
    z = Perturbations(0, 0).draw(range(5000), (16,))
    assert kstest((z[1:, 0] - z[:-1, 0]).div(math.sqrt(2)).numpy()[::2], "norm").pvalue > 0.01


def test_sphere_radius_is_the_length_of_a_gaussian_move() -> None:
    z = Perturbations(0, 0).draw([0], (1000, 100))
    assert 0.01 * float(z.norm()) == pytest.approx(sphere_radius(0.01, 100_000), rel=0.01)


def test_sums_have_the_same_bits_in_any_pieces() -> None:
    z, y = Perturbations(0, 0).draw(range(33), (50,)), torch.tensor([1, -1, 1] * 11)
    whole, pieces = torch.zeros(50), torch.zeros(50)
    add_signed(whole, z, y)
    for start in range(0, 33, 5):
        add_signed(pieces, z[start : start + 5], y[start : start + 5])
    assert torch.equal(whole, pieces)
    torch.testing.assert_close(whole, direction(z, y)[0])
