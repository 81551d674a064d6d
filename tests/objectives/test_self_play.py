"""Nash-MD against its policy gradient, by enumeration; XPO against its algorithm, written out anew."""

from __future__ import annotations

import math

import pytest
import torch

from prefopt import objectives

A, B = -1.3, 0.4


def nash(**hyper):
    return objectives.get("nash_md", **hyper)


def test_nash_md_has_the_papers_gradient():
    """-(P - 1/2 - tau log pi/mu) grad log pi, of a rho that is log pi minus a constant."""
    rho = torch.tensor([A, B, 3.0], dtype=torch.float64, requires_grad=True)
    probability = torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64)
    label = torch.tensor([True, False, True])
    nash(beta=0.25)(rho, label, probability=probability).sum().backward()
    by_hand = [-(p - 0.5 - 0.25 * r) for p, r in zip((0.9, 0.2, 0.5), (A, B, 3.0), strict=True)]
    assert rho.grad.tolist() == pytest.approx(by_hand)


def test_nash_md_without_a_probability_takes_the_label():
    rho = torch.tensor([A, B], dtype=torch.float64)
    label = torch.tensor([True, False])
    found = nash(beta=0.5)(rho, label)
    by_hand = [0.25 * A**2 - 0.5 * A, 0.25 * B**2 + 0.5 * B]
    assert found.tolist() == pytest.approx(by_hand)
    mixed = nash(beta=0.5)(rho, label, probability=torch.tensor([-1.0, 0.25]))
    assert mixed.tolist() == pytest.approx([by_hand[0], 0.25 * B**2 + 0.25 * B])


@pytest.mark.parametrize("coef", [0.0, 0.3, 1.0])
def test_nash_md_ascends_the_regularised_game(coef):
    """Over all answers of a small world: the mean of sampled gradients is that of P(pi beats mixture) - tau KL(pi, mu)."""
    generator = torch.Generator().manual_seed(3)
    size, tau = 5, 0.2
    logits = torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True)
    mu = torch.randn(size, generator=generator, dtype=torch.float64).log_softmax(0)
    raw = torch.randn(size, size, generator=generator, dtype=torch.float64)
    preferred = torch.sigmoid(raw - raw.T)  # intransitive: no reward makes it
    log_pi = logits.log_softmax(0)
    mixture = ((1 - coef) * log_pi + coef * mu).softmax(0).detach()
    value = log_pi.exp() @ preferred @ mixture - tau * (log_pi.exp() * (log_pi - mu)).sum()
    (wanted,) = torch.autograd.grad(value, logits, retain_graph=True)

    y, other = (
        index.flatten() for index in torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    )
    rho = (log_pi - mu)[y]
    losses = nash(beta=tau)(rho, torch.ones(len(y), dtype=torch.bool), probability=preferred[y, other])
    chance = (log_pi.exp()[y] * mixture[other]).detach()
    (found,) = torch.autograd.grad((chance * losses).sum(), logits)
    torch.testing.assert_close(-found, wanted)


def dpo(beta, rho_w, rho_l):
    return -math.log(1 / (1 + math.exp(-beta * (rho_w - rho_l))))


def test_xpo_holds_down_what_the_reference_wrote():
    rho_w, rho_l = (torch.tensor([x] * 3, dtype=torch.float64) for x in (A, B))
    found = objectives.get("xpo", beta=0.3, alpha=0.2)(
        rho_w, rho_l, reference_first=torch.tensor([1.0, 0.0, -1.0])
    )
    plain = dpo(0.3, A, B)
    assert found.tolist() == pytest.approx([plain + 0.2 * A, plain + 0.2 * B, plain])
    assert objectives.get("xpo", beta=0.3, alpha=0.2)(rho_w, rho_l).tolist() == pytest.approx([plain] * 3)


def test_xpo_asks_who_wrote_an_answer_and_not_which_won():
    rho_w, rho_l = (torch.tensor([x], dtype=torch.float64) for x in (A, B))
    shares = torch.tensor([[0.25, 0.75, 0.0]], dtype=torch.float64)
    found = objectives.get("xpo", beta=0.3, alpha=0.2)(
        rho_w, rho_l, shares, reference_first=torch.tensor([1.0])
    )
    votes = 0.25 * dpo(0.3, A, B) + 0.75 * dpo(0.3, B, A)
    assert found.tolist() == pytest.approx([votes + 0.2 * A])


def test_refused():
    with pytest.raises(ValueError, match="beta must be positive"):
        nash(beta=0.0)
    with pytest.raises(ValueError, match="alpha must be at least 0"):
        objectives.get("xpo", alpha=-1.0)
