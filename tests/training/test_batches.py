"""Per-item scores gathered at the ends of edges: which number goes where."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from conftest import ROWS
from prefopt import objectives
from prefopt.comparisons import Comparison, Edges, Encoded, Item, Outcome, collate
from prefopt.likelihoods.base import ItemScores
from prefopt.likelihoods.tokens import TokenLikelihood
from prefopt.models.loading import load_model, load_tokenizer
from prefopt.references import Reference
from prefopt.training.batches import Known, Scorer, join

T = torch.tensor
LOGP = T([[-1.0, -2.0], [-4.0, 0.0], [-8.0, -16.0]])
REFERENCE = T([[-0.5, -0.25], [-3.0, 0.0], [-1.0, -1.0]])
SCORES = ItemScores(logp_NL=LOGP, length_N=T([2, 1, 2]), log_p2_N=T([-0.1, -0.2, -0.3]))
# an item may be the winner of one comparison and the loser of another
EDGES = Edges(
    first_E=T([2, 0]), second_E=T([1, 2]), outcome_E3=T([[1.0, 0, 0]] * 2), weight_E=torch.ones(2),
    columns={"offset": T([7.0, 8.0])}, branches={}, all_wins=True,
)  # fmt: skip


def test_both_ends_of_every_edge():
    sides = join(Known(SCORES, REFERENCE), EDGES, objectives.get("dpo"))
    assert sides.logp_w.tolist() == [-24.0, -3.0]
    assert sides.logp_l.tolist() == [-4.0, -24.0]
    assert sides.rho_w.tolist() == [-22.0, -2.25]
    assert sides.rho_l.tolist() == [-1.0, -22.0]
    assert sides.length_w.tolist() == [2.0, 2.0]
    assert sides.length_l.tolist() == [1.0, 2.0]
    assert sides.columns["offset"].tolist() == [7.0, 8.0]
    assert sides.rho_tokens_w is None
    assert sides.branches == {}


def test_without_a_reference_rho_is_the_policys():
    sides = join(Known(SCORES, None), EDGES, objectives.get("simpo"))
    assert torch.equal(sides.rho_w, sides.logp_w)
    assert torch.equal(sides.rho_l, sides.logp_l)


def test_tokens_where_the_objective_needs_them():
    sides = join(Known(SCORES, REFERENCE), EDGES, objectives.get("ld_dpo"))
    assert torch.equal(sides.rho_tokens_w, (LOGP - REFERENCE)[[2, 0]])
    assert torch.equal(sides.rho_tokens_l, (LOGP - REFERENCE)[[1, 2]])


def test_extras_go_to_their_own_side():
    sides = join(Known(SCORES, REFERENCE), EDGES, objectives.get("wpo"))
    torch.testing.assert_close(sides.log_p2_w, T([-0.3, -0.1]))
    torch.testing.assert_close(sides.log_p2_l, T([-0.2, -0.3]))


def test_single_samples_have_a_baseline_of_zero():
    edges = replace(EDGES, second_E=T([-1, -1]), branches={"mismatched": T([4, 3])})
    beside = Known(ItemScores(logp_NL=T([[0.5], [0.6]]), length_N=T([1, 1])), T([[0.1], [0.1]]))
    sides = join(Known(SCORES, REFERENCE), edges, objectives.get("kto"), beside)
    torch.testing.assert_close(sides.rho("mismatched"), T([0.5, 0.4]))
    assert sides.rho_w.tolist() == [-22.0, -2.25]
    assert sides.rho_l.tolist() == [0.0, 0.0]
    assert sides.logp_l is None
    assert sides.length_l is None


@pytest.mark.parametrize("kind", ["live", "none"])
def test_mismatched_completions_are_scored_beside_the_batch(tiny_model, kind):
    policy = load_model(str(tiny_model))
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)))
    reference = Reference(
        kind, policy=policy, likelihood=likelihood, same_as_policy=True, device=torch.device("cpu"),
        load=lambda: load_model(str(tiny_model), trainable=False).model,
    )  # fmt: skip
    with torch.no_grad():
        for p in policy.model.parameters():
            p.mul_(1.1)

    def encode(prompt: str, completion: str):
        return likelihood.encode(Item({"prompt": prompt}, completion))

    edge = (Comparison(0, None, Outcome(1.0, 0.0, 0.0), branches={"mismatched": 1}),)
    pairs = list(pairwise(ROWS[:4]))
    batch = collate(
        Encoded(str(n), (encode(a["prompt"], a["chosen"]),), edge, (encode(a["prompt"], b["chosen"]),))
        for n, (a, b) in enumerate(pairs)
    )
    scorer = Scorer(likelihood, reference, objectives.get("kto"), torch.device("cpu"))
    sides, edges, width, *_ = scorer.sides(policy.model, batch)
    assert width == sum(len(item.ids) for item in batch.items)
    assert len(edges) == 3
    assert sides.rho_w.requires_grad
    assert not sides.rho("mismatched").requires_grad
    with torch.no_grad():
        plan = likelihood.plan([encode(a["prompt"], b["chosen"]) for a, b in pairs])
        expected = likelihood.score(policy.model, plan).logp_N
        if kind == "live":
            expected = expected - likelihood.score(reference._resident, plan).logp_N
    torch.testing.assert_close(sides.rho("mismatched"), expected, rtol=0, atol=1e-4)
    assert (sides.rho("mismatched") - sides.rho_w).abs().max() > 1e-2


def test_extras_are_asked_of_the_likelihood(tiny_model):
    policy = load_model(str(tiny_model))
    likelihood = TokenLikelihood(load_tokenizer(str(tiny_model)))
    device = torch.device("cpu")
    reference = Reference(
        "none",
        policy=policy,
        likelihood=likelihood,
        same_as_policy=True,
        device=device,
        load=lambda: policy.model,
    )
    items = tuple(
        likelihood.encode(Item({"prompt": ROWS[0]["prompt"]}, ROWS[0][s])) for s in ("chosen", "rejected")
    )
    batch = collate([Encoded("a", items, (Comparison(0, 1),))])
    for name, asked in (("wpo", True), ("dpo", False)):
        sides, *_ = Scorer(likelihood, reference, objectives.get(name), device).sides(policy.model, batch)
        assert (sides.log_p2_w is not None) is asked
        assert sides.entropy_w is None
    measured = Scorer(likelihood, reference, objectives.get("dpo"), device, frozenset({"entropy", "top1"}))
    sides, *_ = measured.sides(policy.model, batch)
    scores = likelihood.score(policy.model, likelihood.plan(items), {"entropy", "top1"})
    for name in ("entropy", "top1"):
        assert torch.equal(torch.cat(sides.both(name)), getattr(scores, f"{name}_N"))
        assert torch.equal(torch.cat(sides.swapped().both(name)), getattr(scores, f"{name}_N").flip(0))
