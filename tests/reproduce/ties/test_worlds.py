"""Pairs and ties mined from small worlds."""

from __future__ import annotations

import pytest
import torch

from prefopt.reproduce.ties.worlds import exam_world, metric_world

SEEDS = range(3, 5)


@pytest.fixture(scope="module")
def world():
    return metric_world(SEEDS, prompts=20, test_prompts=15, features=10)


def test_metric_pairs_are_extremes_and_closest_neighbours(world):
    # the metric is noisy, so clear pairs are right on average and ties small on average
    def gap(pairs):
        seed = torch.arange(2)[:, None]
        utility = world.train.utility_SNK
        return (
            utility[seed, pairs.prompt_SE, pairs.winner_SE] - utility[seed, pairs.prompt_SE, pairs.loser_SE]
        )

    assert float(gap(world.clear).mean()) > 1.0
    assert abs(float(gap(world.tied).mean())) < 0.3
    assert not bool(world.clear.tie_SE.any())
    assert bool(world.tied.tie_SE.all())
    assert not bool((world.tied.winner_SE == world.tied.loser_SE).any())


def test_exam_pairs_obey_the_recipe():
    exam = exam_world(SEEDS, difficulty=0.0, prompts=80, test_prompts=20)
    seed = torch.arange(2)[:, None]
    right = exam.train.utility_SNK
    for pairs, loser in ((exam.clear, 0.0), (exam.tied, 1.0)):
        assert bool((right[seed, pairs.prompt_SE, pairs.winner_SE] == 1.0).all())
        assert bool((right[seed, pairs.prompt_SE, pairs.loser_SE] == loser).all())
        assert not bool((pairs.winner_SE == pairs.loser_SE).any())
