"""E1 of `prefopt reproduce sopo`: densities, similarity, methods and measures in a plane."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from prefopt.reproduce.sopo import plane
from prefopt.sources.selection import cosine


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def policy() -> plane.Mixture:
    made = plane.Mixture(generator())
    with torch.no_grad():
        made.logits.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
        made.log_std += 0.3 * torch.randn(4, 2, generator=generator(1))
    return made


def test_densities_are_those_of_torch(policy):
    x_N2 = 4 * torch.randn(50, 2, generator=generator(2))
    parts = Independent(Normal(policy.means, policy.log_std.exp()), 1)
    expected = MixtureSameFamily(Categorical(logits=policy.logits), parts).log_prob(x_N2)
    torch.testing.assert_close(policy.logp(x_N2), expected)


def test_samples_have_the_density(policy):
    x_N2 = policy.sample(40000, generator())
    weight_M = policy.logits.softmax(0)
    torch.testing.assert_close(x_N2.mean(0), weight_M @ policy.means, atol=0.04, rtol=0)
    second = weight_M @ (policy.means.square() + (2 * policy.log_std).exp())
    torch.testing.assert_close(x_N2.square().mean(0), second, atol=0.15, rtol=0)


def test_the_start_is_far_from_what_is_preferred():
    start = plane.Mixture(generator())
    assert torch.allclose(start.log_std.exp().square(), torch.tensor(2.0))
    assert (start.means - torch.tensor(plane.START)).abs().max() < 1.2
    found = plane.measure(start.sample, start.logp, 4000)
    assert found.far > 0.6
    assert found.reward < 0.15


def test_similarity_is_a_gaussian_of_the_distance():
    x_N2, y_N2 = (2 * torch.randn(200, 2, generator=generator(k)) for k in (3, 4))
    expected = torch.exp(-(x_N2 - y_N2).square().sum(1) / 8)
    torch.testing.assert_close(
        cosine(plane.embedding(x_N2), plane.embedding(y_N2)), expected, atol=1e-5, rtol=0
    )


def test_the_worst_of_the_samples_is_drawn_beside_each_winner(policy):
    winner_B2 = plane.preferred(16, generator(5))
    found = plane.drawn(policy, winner_B2, generator(6))
    x_KB2 = policy.sample(4 * 16, generator(6)).view(4, 16, 2)
    reward_KB = torch.stack([plane.reward(x_B2) for x_B2 in x_KB2])
    torch.testing.assert_close(found.reward_B, reward_KB.amin(0))
    torch.testing.assert_close(plane.reward(found.worst_B2), reward_KB.amin(0))
    torch.testing.assert_close(plane.reward(found.best_B2), reward_KB.amax(0))
    squared_KB = (x_KB2 - winner_B2).square().sum(-1)
    torch.testing.assert_close(found.similarity_B, torch.exp(-squared_KB / 8).amin(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", plane.METHODS)
def test_every_method_starts_at_log_2(method):
    start = plane.Mixture(generator())
    given_B2 = torch.randn(8, 2, generator=generator(1))
    loss = plane.loss_of(method, 0.5, start, start, plane.preferred(8, generator(2)), given_B2, generator(3))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_the_control_is_the_likelihood_of_winners():
    start, x_B2 = plane.Mixture(generator()), plane.preferred(8, generator(2))
    loss = plane.loss_of(plane.SFT, 0.0, start, start, x_B2, x_B2, generator(3))
    assert loss.item() == pytest.approx(-start.logp(x_B2).mean().item(), rel=1e-6)


def test_measures_are_what_they_say():
    at = torch.tensor([[2.0, 2.0], [1.0, -2.5], [1.0, -2.5], [-9.0, 9.0]])
    found = plane.measure(lambda n, _: at, None, 4)
    assert found.coverage == pytest.approx(1 / 4)  # of the centre that fewer are near to
    assert found.far == pytest.approx(1 / 4)
    assert found.reward == pytest.approx(3 / 4, abs=1e-5)
    assert math.isnan(found.nll)


def test_training_goes_where_a_method_leads():
    def after(method: str, steps: int) -> plane.Measured:
        policy = plane.trained(0, method, 0.1, steps)
        return plane.measure(policy.sample, policy.logp, 2000)

    base = after(plane.SFT, 0)
    fixed, fresh, control = (after(method, 60) for method in (plane.OFFLINE, plane.SOPO, plane.SFT))
    assert fresh.nll < base.nll
    assert control.nll < base.nll
    assert fresh.far < fixed.far < base.far


def test_a_seed_is_repeatable_and_has_every_method():
    found = plane.one_seed(1, steps=2, n=50)
    assert str(found) == str(plane.one_seed(1, steps=2, n=50))  # as text: the NLL of what is preferred is NaN
    assert set(found.measured) == {*plane.JOBS, (plane.PREFERRED, 0.0)}
    assert set(found.samples) == {plane.BASE, plane.SFT, *plane.METHODS}
    assert found.measured != plane.one_seed(2, steps=2, n=50).measured
