"""The world of few labels, against slow ways."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from prefopt.reproduce import loglinear
from prefopt.reproduce.ssapo.claims import (
    GAP_NAMES,
    METHODS,
)
from prefopt.reproduce.ssapo.world import (
    AGAIN,
    BASELINES,
    BETA,
    DPO,
    DUAL,
    LEVEL,
    ORACLE,
    QUICK,
    RELEASED,
    SEED_ONLY,
    SELF,
    SHIFT,
    SPA,
    Method,
    annotated,
    at_level,
    constants,
    labelled,
    make_world,
    run,
    train,
)
from prefopt.sources.annotation import annotate, least_confident
from prefopt.sources.worst_case import worst_case

SMALL = replace(QUICK, labels=40, prompts=(30, 40), test_prompts=40)


@pytest.fixture(scope="module")
def world():
    return make_world(range(3), SMALL)


@pytest.fixture(scope="module")
def policy(world):
    start = torch.zeros(3, world.delta_SLD.shape[-1], dtype=torch.float64)
    return train(DPO, labelled(world, 40, 0.25), start, steps=20, rate=0.05)


def test_seeds_own_their_worlds(world):
    alone = make_world(range(1, 2), SMALL)
    assert torch.equal(alone.delta_SLD[0], world.delta_SLD[1])
    assert torch.equal(alone.noise[1][0], world.noise[1][1])
    assert not torch.equal(world.delta_SLD[0], world.delta_SLD[1])
    assert not torch.equal(world.noise[1][0], world.noise[1][1])
    assert torch.equal(alone.test.phi_SNKD[0], world.test.phi_SNKD[1])
    assert run(METHODS[SELF], alone, SMALL, 40, 0.25)[-1].win == pytest.approx(
        run(METHODS[SELF], world, SMALL, 40, 0.25)[-1].win[1:2]
    )


def test_labels_agree_with_the_reward_but_for_the_flipped(world):
    # the reward's direction, found from utilities
    for s in range(3):
        phi, utility = world.test.phi_SNKD[s].flatten(0, 1), world.test.utility_SNK[s].flatten()
        direction = torch.linalg.lstsq(phi, utility[:, None]).solution[:, 0]
        for labels, flipped, wrong in ((40, 0.0, 0), (40, 0.25, 10), (20, 0.1, 2)):
            agree = labelled(world, labels, flipped)[s] @ direction > 0
            assert int((~agree).sum()) == wrong
    with pytest.raises(ValueError, match="41 labelled pairs asked of a world of 40"):
        labelled(world, 41, 0.0)


def test_annotation_is_the_librarys(world, policy):
    candidates, noise = world.rounds[1], world.noise[1]
    mine = annotated(candidates, noise, policy)
    log_p = loglinear.log_policy(candidates, policy)
    for s in range(3):
        drawn = [
            [int((log_p[s, p] / 0.7 + noise[s, p, i]).argmax()) for i in (0, 1)] for p in range(len(noise[s]))
        ]
        logp = [log_p[s, p, drawn[p]].numpy() for p in range(len(drawn))]
        reference = [candidates.log_ref_SNK[s, p, drawn[p]].numpy() for p in range(len(drawn))]
        found = annotate(logp, reference, BETA, drawn)
        assert found.keep_P.tolist() == mine.keep_SP[s].tolist()
        assert 0 < found.keep_P.sum() < len(drawn)
        right = []
        for p in np.flatnonzero(found.keep_P):
            better, worse = drawn[p][found.chosen_P[p]], drawn[p][found.rejected_P[p]]
            phi, utility = candidates.phi_SNKD[s, p], candidates.utility_SNK[s, p]
            assert torch.equal(mine.delta_SPD[s, p], phi[better] - phi[worse])
            assert float(mine.xi_SP[s, p]) == pytest.approx(found.xi_P[p])
            right.append(bool(utility[better] > utility[worse]))
        assert float(mine.right_S[s]) == pytest.approx(np.mean(right))
        assert 0 < np.mean(right) < 1
    assert annotated(candidates, noise, policy, "truth").right_S.tolist() == [1.0] * 3


def test_constants_are_the_followers_on_the_kept_pairs(world, policy):
    pairs = annotated(world.rounds[0], world.noise[0], policy)
    for objective, epsilon in ((SHIFT, 0.1), (DUAL, 0.3), (RELEASED, 0.05)):
        columns = constants(Method("self", objective, epsilon), pairs)
        paper = {"space": "probability", "pieces": 6} if objective is RELEASED else {}
        for s, keep in enumerate(pairs.keep_SP):
            found = worst_case(pairs.xi_SP[s, keep].numpy(), epsilon=epsilon, **paper).columns()
            for name in found[0]:
                assert columns[name][s, keep].tolist() == [row[name] for row in found]
            assert not columns["robust_moved"][s, ~keep].any()
    flags = constants(Method("self", SPA), pairs)["spa_flag"]
    for s, keep in enumerate(pairs.keep_SP):
        assert flags[s, keep].bool().tolist() == least_confident(pairs.xi_SP[s, keep].numpy()).tolist()
        assert flags[s].sum() > 0


def test_identical_answers_teach_nothing(world):
    delta = labelled(world, 20, 0.0)
    start = torch.zeros(3, delta.shape[-1], dtype=torch.float64)
    padded = torch.cat([delta, torch.full_like(delta[:, :5], 9.0)], dim=1)
    keep = torch.arange(25).expand(3, 25) < 20
    alone = train(DPO, delta, start, steps=10, rate=0.05)
    assert torch.allclose(train(DPO, padded, start, steps=10, rate=0.05, keep_SE=keep), alone)
    assert not torch.allclose(train(DPO, padded, start, steps=10, rate=0.05), alone)


def test_without_an_adversary_ssapo_is_self_annotation(world):
    plain = run(METHODS[SELF], world, SMALL, 40, 0.25)
    for objective in (SHIFT, DUAL):
        assert run(Method("self", objective, 0.0), world, SMALL, 40, 0.25)[-1].win == plain[-1].win
        assert run(Method("self", objective, 0.3), world, SMALL, 40, 0.25)[-1].win != plain[-1].win


def test_level_takes_sharpness_out(world, policy):
    scaled = at_level(world.test, policy)
    assert loglinear.kl(world.test, scaled).tolist() == pytest.approx([LEVEL] * 3, abs=1e-9)
    assert torch.allclose(at_level(world.test, 7 * policy), scaled)
    assert torch.allclose(
        scaled / scaled.norm(dim=-1, keepdim=True), policy / policy.norm(dim=-1, keepdim=True)
    )


def test_runs_have_the_stages_they_should(world):
    for name, method in BASELINES.items():
        stages = run(method, world, SMALL, 40, 0.0)
        assert len(stages) == (1 if name == SEED_ONLY else 3)
        assert np.isnan(stages[-1].right).all() == (name in (SEED_ONLY, AGAIN))
        assert stages[0].win == run(METHODS[SEED_ONLY], world, SMALL, 40, 0.0)[0].win
    truth, self_made = (run(METHODS[n], world, SMALL, 40, 0.25)[-1] for n in (ORACLE, SELF))
    assert np.mean(truth.level) > np.mean(self_made.level) + 2
    assert truth.right == [100.0] * 3
    again = run(METHODS[AGAIN], world, SMALL, 40, 0.0)
    assert np.mean(again[-1].kl) > np.mean(again[0].kl)
    assert np.mean(run(METHODS[GAP_NAMES[-1]], world, SMALL, 40, 0.0)[-1].moved) > 30
