"""Which sample is the loser, and how like the winner samples are, against golden values."""

import json
from pathlib import Path

import pytest
import torch

from prefopt.sources.selection import cosine, min_similarity, quantile, select

CASES = json.loads((Path(__file__).parents[1] / "data" / "sopo.json").read_text())


def of_kind(kind):
    return [
        pytest.param(c["inputs"], c["expected"], id=c["name"]) for c in CASES if c["inputs"]["kind"] == kind
    ]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("inputs", "expected"), of_kind("selection"))
def test_selection(inputs, expected):
    selected = select(double(inputs["rewards"]).T)
    assert selected.worst_B.tolist() == expected["rejected_index"]
    torch.testing.assert_close(selected.worst_reward_B, double(expected["reward_l"]))
    assert (selected.worst_reward_B < inputs["tau"]).tolist() == expected["keep_rejected"]
    chosen, samples = double(inputs["emb_w"]), double(inputs["emb_samples"]).transpose(0, 1)
    torch.testing.assert_close(cosine(chosen, samples).T, double(expected["cosine"]), rtol=1e-12, atol=1e-12)
    least = min_similarity(chosen, samples, inputs["similarity"])
    torch.testing.assert_close(least, double(expected["sim_min"]), rtol=1e-12, atol=1e-12)
    beta_w = inputs["beta"] * (inputs["C"] - least)
    torch.testing.assert_close(beta_w, double(expected["beta_w"]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("inputs", "expected"), of_kind("selection_ties"))
def test_of_equal_losers_the_first(inputs, expected):
    assert select(double(inputs["rewards"]).T).worst_B.tolist() == expected["rejected_index"]


@pytest.mark.parametrize(("inputs", "expected"), of_kind("tau_quantile"))
def test_tau_of_a_quantile(inputs, expected):
    found = [quantile(double(inputs["rewards"]), q) for q in inputs["q"]]
    assert found == pytest.approx(expected["tau"], abs=1e-12)


def test_the_order_of_samples_changes_nothing():
    rewards, samples, chosen = torch.rand(4, 3), torch.randn(4, 3, 5), torch.randn(3, 5)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(select(rewards).worst_reward_B, select(rewards[order]).worst_reward_B)
    assert torch.equal(min_similarity(chosen, samples), min_similarity(chosen, samples[order]))


def test_more_samples_have_worse_losers():
    rewards = torch.rand(8, 200)
    means = [float(select(rewards[:k]).worst_reward_B.mean()) for k in (1, 2, 4, 8)]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[-1] > 0.3


def test_an_embedding_without_direction_has_cosine_0():
    assert cosine(torch.zeros(2, 4), torch.randn(3, 2, 4)).abs().max() == 0
    assert min_similarity(torch.zeros(2, 4), torch.randn(3, 2, 4)).tolist() == [0.5, 0.5]


def test_rewards_that_are_no_numbers_are_not_the_least():
    rewards = torch.tensor([[0.1, 0.2], [float("nan"), 0.1]])
    with pytest.raises(ValueError, match=r"not finite at \[\[1, 0\]\]"):
        select(rewards)
    with pytest.raises(ValueError, match="not finite"):
        min_similarity(torch.ones(1, 2), torch.full((1, 1, 2), float("inf")))
    with pytest.raises(ValueError, match=r"lies in \[0, 1\]"):
        quantile(torch.zeros(3), 1.5)
