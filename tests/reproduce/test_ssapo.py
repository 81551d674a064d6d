"""SSAPO's reproduction: its solver, its world and its claims, against slow ways and constructed cases."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from prefopt.reproduce import loglinear
from prefopt.reproduce.ssapo import certificate as ssapo_certificate
from prefopt.reproduce.ssapo import claims as ssapo_claims
from prefopt.reproduce.ssapo import exact as ssapo_exact
from prefopt.reproduce.ssapo.claims import (
    CLEAN,
    FLIPS,
    GAP_NAMES,
    LINEAR_NAME,
    MANY,
    METHODS,
    RELEASED_NAMES,
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
    SPA_ROUNDS,
    Method,
    Stage,
    annotated,
    at_level,
    constants,
    labelled,
    make_world,
    run,
    train,
)
from prefopt.sources.annotation import annotate, least_confident
from prefopt.sources.gap_losses import Pieces
from prefopt.sources.worst_case import worst_case

SMALL = replace(QUICK, labels=40, prompts=(30, 40), test_prompts=40)


@pytest.fixture(scope="module")
def world():
    return make_world(range(3), SMALL)


@pytest.fixture(scope="module")
def policy(world):
    start = torch.zeros(3, world.delta_SLD.shape[-1], dtype=torch.float64)
    return train(DPO, labelled(world, 40, 0.25), start, steps=20, rate=0.05)


# -- S1, S5 --------------------------------------------------------------------------------------------------


def test_linear_program_by_hand():
    falling = Pieces(np.array([-1.0]), np.array([0.0]))  # h(x) = -x
    assert ssapo_exact.lp_value(np.array([1.0, 3.0]), falling, 0.0, 5.0, 0.5) == pytest.approx(-1.5)
    assert ssapo_exact.lp_value(np.array([1.0, 3.0]), falling, 0.0, 5.0, 9.0) == pytest.approx(0.0)
    hinge = Pieces(np.array([-2.0, 0.0]), np.array([2.0, 0.0]))  # 2 max(1 - x, 0): 1 gains 2 over 1, 3 over 3
    assert ssapo_exact.lp_value(np.array([1.0, 3.0]), hinge, 0.0, 5.0, 0.5) == pytest.approx(1.0)
    assert ssapo_exact.lp_value(np.array([1.0, 3.0]), hinge, 0.0, 5.0, 0.8) == pytest.approx(1.0 + 0.2)


def test_exactness_holds():
    result = ssapo_exact.exactness(range(2))
    assert len(result.claims) == 11
    assert {c.verdict for c in result.claims} == {"holds"}


def test_a_wrong_follower_is_found_out(monkeypatch):
    def weak(xi, *, epsilon, **rest):
        return worst_case(xi, epsilon=epsilon / 2, **rest)

    def strong(xi, *, epsilon, **rest):
        return worst_case(xi, epsilon=epsilon if "low" in rest else 2 * epsilon, **rest)

    monkeypatch.setattr(ssapo_exact, "worst_case", weak)
    assert ssapo_exact.against_solver(0)[0] > 1e-3
    assert ssapo_exact.theorems(0)["limit"] > 0.1
    monkeypatch.setattr(ssapo_exact, "worst_case", strong)
    assert ssapo_exact.theorems(0)["above"] > 0.1


def test_speed_tells_pairs_and_solver_apart():
    result = ssapo_exact.speed(range(2), (50, 300))
    assert [row[:2] for row in result.tables[0].rows] == [["exact", 50], ["exact", 300], ["HiGHS", 100]]
    assert all(0 <= row[3] <= row[2] <= row[4] for row in result.tables[0].rows)
    assert result.claims[0].measured == pytest.approx(result.tables[0].rows[1][4] / 1000)


# -- S2 ------------------------------------------------------------------------------------------------------


def test_robust_training_lowers_the_worst_loss():
    result = ssapo_certificate.certificate(range(3), steps=300)
    assert len(result.claims) == 2
    assert all(gain > 0 for claim in result.claims for gain in claim.per_seed)
    worst = {(row[0], row[1]): row[2] for row in result.tables[0].rows}
    assert all(worst[e, "dual"] < worst[e, "shift"] < worst[e, "DPO"] for e in ssapo_certificate.RADII)


def test_certificate_is_that_of_each_seed_alone():
    delta = ssapo_certificate.labelled_features(range(3))
    theta = torch.randn(3, delta.shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = ssapo_certificate.certify(delta, theta, 0.5)
    for s in range(3):
        low, high = ssapo_certificate.WINDOW
        xi = (delta[s] @ theta[s]).numpy()
        alone = worst_case(xi, epsilon=0.5, low=low, high=high, clip=True)
        penalty = ssapo_certificate.PENALTY * float(theta[s] @ theta[s])
        assert found.worst_S[s] == pytest.approx(alone.worst_value + penalty)
        assert found.center_S[s] == pytest.approx(alone.center_value + penalty)


# -- the world -----------------------------------------------------------------------------------------------


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


# -- claims --------------------------------------------------------------------------------------------------


def constructed(sign, seeds=6):
    """Stages in which everything is as the paper says (sign 1), or the opposite."""
    steps = count()

    def stage(rate):
        values = [rate + 0.01 * ((7 * next(steps)) % 5) for _ in range(seeds)]
        return Stage(values, values, [1.0] * seeds, [70.0] * seeds, [10.0] * seeds)

    gains = {SEED_ONLY: 0.0, AGAIN: 0.5, SELF: 4.0, SPA_ROUNDS: 5.0, ORACLE: 20.0, LINEAR_NAME: 9.0}
    gains |= {name: 8.0 + (i == 2) for i, name in enumerate(GAP_NAMES)}
    gains |= {name: 6.0 + (i == 1) for i, name in enumerate(RELEASED_NAMES)}
    found = {}
    for labels in FLIPS:
        found[labels] = {}
        for name, gain in gains.items():
            lost = sign * (10.0 if name == SELF else 5.0) * (labels == MANY and name != SEED_ONLY)
            lost *= gain < 20
            end = 50 + sign * gain - lost
            stages = [stage(50.0), stage(50 + (end - 50) / 3), stage(50 + 2 * (end - 50) / 3), stage(end)]
            found[labels][name] = stages[-1:] if name == SEED_ONLY else stages
    return found


def test_claims_follow_the_numbers_both_ways():
    with_the_paper = constructed(1)
    del with_the_paper[MANY]  # there constructed losses outweigh gains
    with_the_paper[MANY] = constructed(1)[CLEAN]
    made = [c for c in ssapo_claims.claims(with_the_paper) if "25 % of the labels" not in c.statement]
    assert len(made) >= 25
    assert {c.verdict for c in made if "25 % flipped labels" not in c.statement} == {"holds"}
    against = constructed(-1)
    against[MANY] = constructed(-1)[CLEAN]
    opposite = [c for c in ssapo_claims.claims(against) if "25 %" not in c.statement or "(" in c.statement]
    assert {c.verdict for c in opposite} == {"does not hold here"}
    for sign, verdict in ((1, "holds"), (-1, "does not hold here")):
        assert {c.verdict for c in ssapo_claims.flip_claims(constructed(sign))} == {verdict}
        curve = {n: constructed(sign)[CLEAN] for n in (40, 80)}
        assert {c.verdict for c in ssapo_claims.label_claims(curve)} == {verdict}


def test_radius_is_chosen_and_judged_on_different_seeds():
    found = constructed(1)[CLEAN]
    lucky = found[GAP_NAMES[0]][-1].win
    lucky[:3] = [63.0] * 3  # best where it is chosen, not on all seeds
    lucky[3:] = [51.0] * 3
    differences, name = ssapo_claims.against(found, GAP_NAMES, SELF)
    assert name == GAP_NAMES[0] == "SSAPO shift 0.01"
    assert len(differences) == 3
    assert max(differences) < 0
    found[GAP_NAMES[-1]][-1].win[:] = [40.0] * 6  # so that the other end of the range decides
    inside = ssapo_claims.inverted_u(found, GAP_NAMES, "SSAPO")
    assert inside.verdict == "does not hold here"
    assert inside.how.endswith("weakest at 0")


def test_a_gain_too_small_to_matter_counts_against():
    found = constructed(1)
    for labels, by in found.items():
        for name in GAP_NAMES:  # intervals around 0, all of it below half a point
            tiny = ([0.05, 0.1, -0.05] if labels == MANY else [0.1, -0.05, 0.05]) * 2
            by[name][-1].win[:] = [x + gain for x, gain in zip(by[SELF][-1].win, tiny, strict=True)]
    made = {c.statement: c for c in ssapo_claims.claims(found)}
    for statement in (
        f"S4: SSAPO beats epsilon = 0 ({CLEAN})",
        "S3: SSAPO loses less to 25 % flipped labels than epsilon = 0",
    ):
        low, high = made[statement].interval
        assert low < 0 < high < ssapo_claims.WORTH
        assert made[statement].verdict == "does not hold here"


def test_names_say_leader_and_radius():
    assert {"SSAPO shift 0.1", "SSAPO dual 0.3", "released 0.05"} < set(METHODS)


def test_command_prints_verdicts_and_names_its_files(tmp_path):
    from prefopt.cli.reproduce import command

    folder = tmp_path / "out"
    answer = CliRunner().invoke(command, ["ssapo", "--quick", "--seeds", "2", "--output", str(folder)])
    assert answer.exit_code == 0, answer.output
    record = json.loads((folder / "ssapo.json").read_text())
    assert len(record["claims"]) >= 40
    assert "verdicts mean nothing" in answer.output
    assert {p.suffix for p in folder.iterdir()} == {".json", ".html", ".png", ".svg"}
    for path in folder.iterdir():
        assert path.name in answer.output.replace("\n", "")
