"""The log-linear world against slow, obvious computations; training of several seeds at once."""

from __future__ import annotations

import pytest
import torch

from prefopt import objectives
from prefopt.reproduce import loglinear
from prefopt.reproduce.bpo.world import noisy_pairs
from prefopt.reproduce.ties.worlds import metric_world

SEEDS = range(3, 5)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.05)


@pytest.fixture(scope="module")
def world():
    return metric_world(SEEDS, prompts=20, test_prompts=15, features=10)


def test_measures_against_plain_loops(world):
    w_SD = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    test = world.test
    for s in range(2):
        kl = utility = entropy = wins = 0.0
        for n in range(15):
            p = (test.phi_SNKD[s, n] @ w_SD[s]).softmax(0).tolist()
            u = test.utility_SNK[s, n].tolist()
            kl += sum(x * torch.tensor(x * 8).log().item() for x in p) / 15
            entropy -= sum(x * torch.tensor(x).log().item() for x in p) / 15
            utility += sum(x * y for x, y in zip(p, u, strict=True)) / 15
            wins += (
                sum(p[i] / 8 * (1.0 if u[i] > u[j] else 0.5 * (i == j)) for i in range(8) for j in range(8))
                / 15
            )
        assert float(loglinear.kl(test, w_SD)[s]) == pytest.approx(kl, rel=1e-4)
        assert float(loglinear.entropy(test, w_SD)[s]) == pytest.approx(entropy, rel=1e-4)
        assert float(loglinear.expected_utility(test, w_SD)[s]) == pytest.approx(utility, rel=1e-4, abs=1e-6)
        assert float(loglinear.win_rate(test, w_SD)[s]) == pytest.approx(wins, rel=1e-4)


def test_log_ratios_are_those_of_the_normalised_policy(world):
    w_SD = torch.randn(2, 10, generator=torch.Generator().manual_seed(1))
    log_p_SNK = loglinear.log_policy(world.train, w_SD) - world.train.log_ref_SNK
    both = world.clear.cat(world.tied)
    for pairs in (both, both.take(torch.tensor([3, 31]))):  # all, and a batch small enough to be scored alone
        rho_w_SE, rho_l_SE = loglinear.log_ratios(world.train, pairs, w_SD)
        for s in range(2):
            for e, (n, i, j) in enumerate(
                zip(pairs.prompt_SE[s], pairs.winner_SE[s], pairs.loser_SE[s], strict=True)
            ):
                assert float(rho_w_SE[s, e]) == pytest.approx(float(log_p_SNK[s, n, i]), abs=1e-5)
                assert float(rho_l_SE[s, e]) == pytest.approx(float(log_p_SNK[s, n, j]), abs=1e-5)


def test_seeds_trained_together_are_the_seeds_trained_alone(world):
    rk = objectives.get("dpo_rk", beta=0.5)

    def fit(mined, **more):
        return loglinear.fit(
            rk, mined.train, mined.clear.cat(mined.tied), steps=20, optimizer=adam, clip_norm=0.05, **more
        )

    together = fit(world)
    for i, seed in enumerate(SEEDS):
        alone = fit(metric_world(range(seed, seed + 1), prompts=20, test_prompts=15, features=10))
        torch.testing.assert_close(together[i], alone[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(together, fit(world)), "the same seeds must give the same weights"


def test_ties_count_as_wins_for_an_objective_without_a_tie_term(world):
    dpo, w_SD = objectives.get("dpo", beta=0.5), torch.full((2, 10), 0.3)
    as_wins = loglinear.mean_loss(dpo, world.train, world.tied, w_SD)
    rho_w_SE, rho_l_SE = loglinear.log_ratios(world.train, world.tied, w_SD)
    torch.testing.assert_close(as_wins, torch.nn.functional.softplus(-0.5 * (rho_w_SE - rho_l_SE)).mean(-1))


def test_divergence_is_an_error_not_a_number():
    data = noisy_pairs(SEEDS, 50, scale=1.0, test_prompts=5)
    ipo = objectives.get(
        "ipo", beta=1.0
    )  # quadratic: a step too large flies off without overflowing a loss first
    with pytest.raises((FloatingPointError, ValueError)):
        loglinear.fit(ipo, data.train, data.pairs, steps=60, optimizer=lambda ps: torch.optim.SGD(ps, lr=1e3))
