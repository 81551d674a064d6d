"""The arms with a small language model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from prefopt.reproduce import lm
from prefopt.reproduce.compo import lm as compo_lm
from prefopt.reproduce.compo.lm import ALL, CLEAN, COMPO, EVERY, Outcome


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
def tiny(cache):
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
