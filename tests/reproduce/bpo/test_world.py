"""Labels of a noisy judge."""

from __future__ import annotations

from prefopt.reproduce.bpo.world import noisy_pairs

SEEDS = range(3, 5)


def test_labels_are_noisier_where_rewards_are_small():
    from prefopt.reproduce.bpo.sweeps import wrong_labels

    shares = [
        wrong_labels(noisy_pairs(SEEDS, 1000, scale=scale, test_prompts=5)) for scale in (10.0, 3.0, 1.0)
    ]
    assert 0.02 < shares[0] < 0.06 < shares[1] < 0.16 < shares[2] < 0.33
