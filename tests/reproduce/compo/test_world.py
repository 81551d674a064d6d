"""The world of one softmax head: pairs that are nearly the same response."""

from __future__ import annotations

import pytest
import torch

from prefopt.reproduce.compo.world import STEP, changes, make_world, unit


def test_pairs_differ_in_their_last_token_alone():
    for alive in (None, 2):
        world = make_world(3, 20, alive=alive)
        for chosen, rejected in world.pairs:
            assert torch.equal(chosen.target_T[:-1], rejected.target_T[:-1])
            assert chosen.target_T[-1] != rejected.target_T[-1]
            assert max(int(chosen.target_T.max()), int(rejected.target_T.max())) < (alive or 50)
    longer = [float(r.hidden_TD.norm() / c.hidden_TD.norm()) for c, r in make_world(3, 50, noise=0.0).pairs]
    assert longer == pytest.approx([1.4] * 50)


def test_only_living_tokens_have_a_gradient():
    for alive, least in ((None, 0.9), (2, 0.0)):
        a, _ = make_world(0, 1, 64, 64, alive=alive, tokens=64).probe(0).gradients()
        rows = a.norm(dim=1) / a.norm()
        assert float((rows[2:] > 0.01).float().mean()) >= least
        if alive:
            assert float(rows[2:].max()) < 0.01


def test_a_step_changes_what_the_model_says():
    world = make_world(0, 1)
    probe = world.probe(0)
    g = unit(torch.randn(50, 16, generator=torch.Generator().manual_seed(0)))

    def logp(weight):
        return [
            float((r.hidden_TD @ weight.T).log_softmax(-1).gather(1, r.target_T[:, None]).sum())
            for r in world.pairs[0]
        ]

    before, after = logp(world.weight_VD), logp(world.weight_VD + STEP * g)
    assert changes(probe, g) == pytest.approx([y - x for x, y in zip(before, after, strict=True)], abs=1e-4)
