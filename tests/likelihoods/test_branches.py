"""Attention run by run: the runs are those of the rows, and the result is that of the masked call."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likelihoods.architectures import NoDowncast, build
from likelihoods.test_capability import check, draw_items, likelihood_of
from likelihoods.test_layout import WIDE, arrays, sequences
from prefopt.likelihoods import attention, branches, forward, tokens
from prefopt.likelihoods.branches import Branches, runs_of
from prefopt.likelihoods.layout import lay_out
from prefopt.likelihoods.plan import plan_rows


@given(sequences, st.sampled_from(["shared", "packed"]))
def test_runs_see_what_their_places_see(lists, sharing):
    for row in lay_out(arrays(lists), sharing, WIDE).rows:
        runs = runs_of(row.until)
        assert [place for run in runs for place in range(run.start, run.end)] == list(range(len(row.ids)))
        for run in runs:
            above = [k for a, b in run.above for k in range(a, b)]
            for q in range(run.start, run.end):
                seen = [k for k in range(len(row.ids)) if k <= q < row.until[k]]
                assert seen == above + list(range(run.start, q + 1))


def test_a_run_is_as_long_as_it_can_be():
    assert [(r.start, r.end, r.above) for r in runs_of([9, 9, 9, 6, 6, 6, 9, 9, 9])] == [
        (0, 3, ()), (3, 6, ((0, 3),)), (6, 9, ((0, 3),))
    ]  # fmt: skip
    packed = runs_of([2, 2, 5, 5, 5])
    assert [(r.start, r.end, r.above) for r in packed] == [(0, 2, ()), (2, 5, ())]


def test_pays_where_much_is_hidden():
    def row(prompt, *completions):
        until, total = [prompt + sum(completions)] * prompt, prompt
        for length in completions:
            total += length
            until += [total] * length
        return until

    assert Branches.of([row(150, 300, 300)] * 4, 752).worthwhile
    assert Branches.of([row(1500, 60, 60)] * 2, 1624).worthwhile
    assert not Branches.of([row(30, 8, 8)] * 4, 48).worthwhile  # calls cost more than what they leave out


# two full-attention models; gemma alternates, and its windowed layers keep their mask
@pytest.mark.parametrize("name", ["llama", "gpt2, learned positions", "gemma3, windows"])
def test_the_same_scores_and_gradients(name, monkeypatch):
    monkeypatch.setattr(branches, "CALL", -(10**6))  # always
    calls = []
    attend = Branches.attend
    monkeypatch.setattr(
        Branches, "attend", lambda self, *args, **more: calls.append(1) or attend(self, *args, **more)
    )
    model = build(name)
    with NoDowncast():
        check(model, draw_items(random.Random(7)), "shared", True, 1e-9)
    assert len(calls) == {"gemma3, windows": 1}.get(name, 2)  # layers of full attention


@given(sequences, st.sampled_from(["shared", "packed"]), st.randoms(use_true_random=False))
def test_runs_of_some_places(lists, sharing, rng):
    """They hold the places, see what the whole runs let them see, and are cut to the stretch that is asked for."""
    for row in lay_out(arrays(lists), sharing, WIDE).rows:
        wanted = sorted(rng.sample(range(len(row.ids)), rng.randint(1, len(row.ids))))
        whole = Branches.of([row.until], len(row.ids))
        (runs,) = whole.at([wanted]).rows
        assert set(wanted) <= {place for run in runs for place in range(run.start, run.end)}
        assert all(run.start in wanted and run.end - 1 in wanted for run in runs)
        for run in runs:
            above = [k for a, b in run.above for k in range(a, b)]
            for q in range(run.start, run.end):
                seen = [k for k in range(len(row.ids)) if k <= q < row.until[k]]
                assert seen == above + list(range(run.start, q + 1))
        assert whole.at([range(len(row.ids))]) == whole


@pytest.mark.parametrize("layout", ["shared", "packed", "plain"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2, learned positions"])
def test_the_last_layer_attends_from_scored_places(name, layout, monkeypatch):
    monkeypatch.setattr(tokens, "plan_rows", partial(plan_rows, apart=True))
    queries = {}
    attend = Branches.attend

    def spy(self, attention, module, *args, **more):
        places = [k for run in self.rows[0] for k in range(run.start, run.end)]
        queries.setdefault(module.layer_idx, []).append(len(places))
        return attend(self, attention, module, *args, **more)

    monkeypatch.setattr(Branches, "attend", spy)
    model, items = build(name), draw_items(random.Random(9))
    with NoDowncast():
        check(model, items, layout, True, 1e-9)
    plan = plan_rows(items, 0, layout, 2**20, 128)
    first = plan.scored_P[plan.scored_P < plan.input_ids_RT.shape[1]]
    assert queries[1][-1] == len(first)  # before, the judge: one row at a time
    assert (0 in queries) is (layout != "plain")
    assert all(count > len(first) for count in queries.get(0, []))


def test_experts_in_balance_need_every_place(monkeypatch):
    """The balance is over all places, so none may be left out where it is asked for."""
    model = build("mixtral")
    likelihood = likelihood_of("shared", True, own_mlp=False)
    plan = likelihood.plan(draw_items(random.Random(10)))
    asked = []
    monkeypatch.setattr(
        forward, "at_places", lambda whole, places: asked.append(1) or (lambda hidden: whole(hidden))
    )
    likelihood.score(model, plan)
    assert len(asked) == 2
    model.config.output_router_logits = True
    likelihood.score(model, plan)
    assert len(asked) == 2


def test_padding_gets_zeros_and_other_masks_are_left_alone(monkeypatch):
    monkeypatch.setattr(branches, "CALL", -(10**6))
    attention.install()
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    module = torch.nn.Module()
    q, k, v = torch.randn(3, 1, 2, 6, 4)
    until = torch.tensor([5, 5, 4, 4, 5, 6])
    places = torch.arange(6)
    mask = (places <= places[:, None]) & (places[:, None] < until)
    masked, _ = sdpa(module, q, k, v, mask[None, None])
    mask = mask[None, None].clone()
    mask._branches = Branches.of([until[:5].tolist()], 6)
    apart, _ = sdpa(module, q, k, v, mask)
    torch.testing.assert_close(apart[:, :5], masked[:, :5])
    assert not apart[:, 5:].any()
