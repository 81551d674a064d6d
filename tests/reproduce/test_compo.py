"""The experiments on ComPO against closed forms and constructed cases, at small sizes."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from prefopt.oracles.direction import expected_cosine
from prefopt.reproduce import lm
from prefopt.reproduce.compo import estimator as compo_estimator
from prefopt.reproduce.compo import keep as compo_keep
from prefopt.reproduce.compo import lm as compo_lm
from prefopt.reproduce.compo import memory as compo_memory
from prefopt.reproduce.compo.estimator import DPO, LIMIT, estimates, summary
from prefopt.reproduce.compo.keep import Kept, keep_fractions
from prefopt.reproduce.compo.lm import ALL, CLEAN, COMPO, EVERY, Outcome
from prefopt.reproduce.compo.memory import build, compo_iteration, peak_bytes
from prefopt.reproduce.compo.world import QUICK, STEP, Size, changes, make_world, unit

SMALL = Size(pairs=4, draws=2, moves=(800, 1600), keep_pairs=2, keep_moves=200, memory_moves=(10, 40))


@pytest.fixture(scope="module")
def found():
    return [estimates(seed, SMALL) for seed in (0, 1)]


# -- the world -----------------------------------------------------------------------------------------------


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


# -- M1 to M3 ------------------------------------------------------------------------------------------------


def test_summary_by_hand():
    steps = [[(0.1, -0.1, 0.2, 0.3), (0.3, -0.1, 0.4, 0.3)], [(-0.1, 0.1, 0.6, 0.3), (-0.1, -0.2, 0.0, 0.3)]]
    s = summary(steps)
    assert (s.chosen_falls, s.rejected_rises, s.both_right) == (0.5, 0.25, 0.5)
    assert (s.chosen, s.rejected, s.cosine, s.formula) == pytest.approx((0.05, -0.075, 0.3, 0.3))
    assert s.gain == pytest.approx(0.125 / STEP)
    # gains 0.2, 0.4 and -0.2, 0.1: squares 0.02 and 0.045 about their means, two degrees of freedom
    assert s.spread == pytest.approx(math.sqrt(0.065 / 2) / STEP)
    assert summary([[(0.1, -0.1, 1.0, 1.0)]]).spread == 0.0


def test_the_estimator_is_what_the_closed_forms_say(found):
    for f in found:
        for rate, p in f.rates:
            assert rate == pytest.approx(p, abs=0.03)  # 3200 moves: standard error 0.006
        for m in SMALL.moves:
            assert f.moved[m].cosine == pytest.approx(f.moved[m].formula, abs=0.05)  # standard error 0.012
        assert f.moved[LIMIT].cosine == pytest.approx(1.0)
    p = found[0].rates[0][1]
    assert found[0].moved[1600].formula == pytest.approx(expected_cosine(p, 1600, 800), rel=0.2)


def test_dpo_displaces_and_the_limit_does_not(found):
    for f in found:
        assert f.moved[DPO].chosen_falls > 0.5
        assert f.moved[LIMIT].both_right == 1.0
        assert f.by_scale[0.8] == (0.0, 0.0)
        assert f.by_scale[1.4][0] > f.by_scale[1.4][1] == 0.0
        assert f.moved[800].gain < f.moved[1600].gain < f.moved[LIMIT].gain < f.moved[DPO].gain


def test_claims_that_are_contradicted_say_so(found):
    verdicts = {c.statement: c.verdict for c in compo_estimator.claims([found[0]] * 3, SMALL)}
    assert verdicts["M3: more moves improve a pair more"] == "holds"
    swapped = replace(
        found[0], moved={**found[0].moved, 800: found[0].moved[1600], 1600: found[0].moved[800]}
    )
    verdicts = {c.statement: c.verdict for c in compo_estimator.claims([swapped] * 3, SMALL)}
    assert verdicts["M3: more moves improve a pair more"] == "does not hold here"
    assert verdicts["M1: the share of moves that help is 1/2 - phi / 2 pi"] == "holds"


# -- M4 ------------------------------------------------------------------------------------------------------


def test_keeping_fewer_shortens_the_published_step_alone():
    for by_share in keep_fractions(0, SMALL).values():
        norms = [by_share[share].norm for share in compo_keep.SHARES]
        assert norms[0] == pytest.approx(STEP)
        assert norms == sorted(set(norms), reverse=True)
        assert by_share[1.0].published == pytest.approx(by_share[1.0].scaled, rel=1e-3)
        assert abs(by_share[0.01].published) < abs(by_share[0.01].scaled)


def test_dense_gradients_lose_by_selection():
    dense = keep_fractions(1, replace(SMALL, keep_moves=800))["dense"]
    assert dense[1.0].scaled > dense[0.06].scaled > dense[0.0015].scaled


def test_keep_claims_tell_choice_of_entries_from_length():
    def of(published, scaled):
        return {
            s: Kept(0.05, 0.1, p, q) for s, p, q in zip(compo_keep.SHARES, published, scaled, strict=True)
        }

    seeds = [
        {
            "dense": of((5, 4, 3, 2, 1), (5, 4, 3, 2, 1)),
            "sparse": of((5, 4, 3 + e, 2, 1), (1, 2, 4 + e, 5, 3)),
        }
        for e in (0.0, 0.1, 0.2)
    ]
    verdicts = {c.statement.removeprefix("M4: "): c.verdict for c in compo_keep.claims(seeds)}
    stem = "sparse gradient: keeping 1 to 6 % of the entries beats keeping"
    assert verdicts[f"{stem} all (as published)"] == "does not hold here"
    assert verdicts[f"{stem} all (at equal length)"] == "holds"
    assert verdicts[f"{stem} 0.15 % (at equal length)"] == "holds"
    assert verdicts["dense gradient: keeping all beats keeping 1 to 6 % (at equal length)"] == "holds"


# -- M5 ------------------------------------------------------------------------------------------------------


def test_peaks_are_counted():
    def work():
        x = torch.empty(1000, 1000)
        for _ in range(3):
            y = x * 2
            del y
        return torch.empty(10)

    assert peak_bytes(work) == pytest.approx(8e6, rel=0.01)


def test_more_moves_need_no_more_memory():
    model, ids_2T = build(512)
    compo_iteration(model, ids_2T, 20)
    few, many = (peak_bytes(lambda m=m: compo_iteration(model, ids_2T, m)) for m in (20, 60))
    assert abs(many - few) < 10_000
    assert all(p.grad is None for p in model.parameters())


def test_memory_claims():
    result = compo_memory.experiment(replace(QUICK, memory_moves=(10, 40), memory_vocabulary=(512, 8192)))
    verdicts = [c.verdict for c in result.claims]
    # at this size the selection's blocks are as large as the head; the other claims do not depend on size
    assert verdicts[1:] == ["holds"] * 3


# -- the text world ------------------------------------------------------------------------------------------


def outcome(**values):
    unchanged = Outcome(0.3, 0.0, 0.0, 0.0, 90.0, 70.0, 5.0)
    return replace(unchanged, **values)


def test_text_world_claims_have_the_right_sign():
    arms = {
        ALL: outcome(chosen_falls=0.5, length=7.0),
        CLEAN: outcome(),
        COMPO: outcome(chosen_falls=0.1, rejected=-1.0, accuracy=95.0, score=80.0, own_right=1.0),
        EVERY: outcome(chosen_falls=0.1, own_right=1.0),
        compo_lm.LIMIT: outcome(chosen_falls=0.1, own_right=1.0),
    }
    assert {c.verdict for c in compo_lm.claims([arms] * 2)} == {"holds"}
    arms[COMPO] = outcome(chosen_falls=0.6, rejected=1.0, accuracy=80.0, score=60.0, length=9.0)
    against = [c for c in compo_lm.claims([arms] * 2) if c.verdict == "does not hold here"]
    assert len(against) == 9


@pytest.fixture(scope="module")
def tiny():
    """A model and tokenizer as small as can be, with tied embeddings."""
    model, tokenizer = lm.reference(compo_lm.QUICK.size)
    return SimpleNamespace(model=model, tokenizer=tokenizer)


def test_the_head_sees_what_the_scores_are_made_of(tiny):
    row = ("Unique: ant ant bee", "ant bee", "bee", False)
    chosen, rejected = compo_lm.hidden_pair(tiny.model, tiny.tokenizer, row)
    scores = lm.logp_of_rows(tiny.model, tiny.tokenizer, [row])
    for side, score in zip((chosen, rejected), scores, strict=True):
        log_p_TV = tiny.model.lm_head(side.hidden_TD).log_softmax(-1)
        assert float(log_p_TV.gather(1, side.target_T[:, None]).sum()) == pytest.approx(
            float(score), rel=1e-4
        )


def test_the_oracle_moves_the_head_and_not_the_embedding(tiny):
    rows = [("Unique: ant ant bee", "ant bee", "bee", False)]
    model = compo_lm.untied(tiny.model)
    start = tiny.model.lm_head.weight.clone()
    told = compo_lm.ask(
        model, tiny.tokenizer, rows, replace(compo_lm.QUICK, gate=0.0, keep=1.0), 0, "expected"
    )
    assert told.stepped == told.own_right == 1.0
    assert told.distance == pytest.approx(told.success_rate, rel=1e-3)  # gamma 1, a unit direction
    assert torch.equal(model.model.embed_tokens.weight, start)
    assert torch.equal(tiny.model.lm_head.weight, start)
    assert not torch.equal(model.lm_head.weight, start)


def test_a_shut_gate_changes_nothing(tiny):
    rows = [("Unique: ant ant bee", "ant bee", "bee", False)]
    model = compo_lm.untied(tiny.model)
    told = compo_lm.ask(model, tiny.tokenizer, rows, replace(compo_lm.QUICK, gate=0.9), 0, "sampled")
    assert (told.stepped, told.distance) == (0.0, 0.0)


@pytest.mark.slow
def test_quick_command(tmp_path):
    from prefopt.cli.reproduce import command

    done = CliRunner().invoke(
        command, ["compo", "--quick", "--seeds", "2", "--workers", "1", "--output", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    names = {path.name for path in tmp_path.iterdir()}
    assert {"compo.json", "compo.html", "compo_estimator.png", "compo_keep.png", "compo_lm.svg"} <= names
