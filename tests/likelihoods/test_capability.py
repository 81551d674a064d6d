"""Dense layouts against one row at a time, in transformers' real classes: scores, gradients, and what is found out."""

from __future__ import annotations

import random
from array import array
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likelihoods.architectures import ARCHITECTURES, VOCABULARY, WHOLE_MLP, WHOLE_QUERIES, NoDowncast, build
from prefopt.likelihoods.attention import rows_of
from prefopt.likelihoods.capability import Ability, ability_of
from prefopt.likelihoods.plan import EncodedText, plan_rows
from prefopt.likelihoods.tokens import TokenLikelihood

LAYOUTS = {"shared": ["shared", "packed", "plain"], "packed": ["packed", "plain"], "plain": ["plain"]}
WIDE = 2**20  # joins all that can be joined
FLOAT32_INSIDE = {
    "opt, learned positions",
    "recurrent gemma",
    "mamba",
    "jamba",
}  # rounds in ways NoDowncast misses


def likelihood_of(sharing="plain", own_head=False, own_mlp=True, own_queries=True):
    likelihood = TokenLikelihood(SimpleNamespace(pad_token_id=0, eos_token_id=2), max_length=None)
    likelihood.ability = Ability(sharing, own_head, own_head and own_mlp, own_head and own_queries, WIDE, 128)
    return likelihood


def draw_items(rng):
    """Groups of completions of one prompt, which may begin alike too; one group is longer than any window here."""
    items = []
    for group in range(4):
        prompt = [rng.randint(3, VOCABULARY - 1) for _ in range(20 if group == 0 else rng.randint(1, 9))]
        first = [rng.randint(3, VOCABULARY - 1) for _ in range(rng.randint(1, 12))]
        for _ in range(rng.randint(1, 3)):
            tail = [rng.randint(3, VOCABULARY - 1) for _ in range(rng.randint(1, 9))]
            items.append(
                EncodedText(array("i", prompt + first[: rng.randint(0, len(first))] + tail), len(prompt))
            )
    return items


def scores_and_gradients(model, likelihood, batches):
    """Per-item scores, log sum p^2, and the gradients of a sum with mixed signs."""
    model.zero_grad()
    logp, p2, n = [], [], 0
    for batch in batches:
        scores = likelihood.score(model, likelihood.plan(batch), extras={"log_p2"})
        factor_N = torch.tensor([(k % 3) - 1.3 for k in range(n, n + len(batch))], dtype=scores.logp_NL.dtype)
        (scores.logp_N * factor_N).sum().backward()
        n += len(batch)
        logp += scores.logp_N.tolist()
        p2 += scores.log_p2_N.tolist()
    gradients = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    return torch.tensor(logp, dtype=torch.float64), torch.tensor(p2, dtype=torch.float64), gradients


def parts_of(name):
    return name not in WHOLE_MLP, name not in WHOLE_QUERIES


def check(model, items, sharing, own_head, tolerance, name="llama"):
    exact = scores_and_gradients(model, likelihood_of(), [[item] for item in items])
    found = scores_and_gradients(model, likelihood_of(sharing, own_head, *parts_of(name)), [items])
    torch.testing.assert_close(found[0], exact[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found[1], exact[1], rtol=tolerance, atol=tolerance)
    assert found[2].keys() == exact[2].keys()
    largest = max(float(g.abs().max()) for g in exact[2].values())
    for name, gradient in exact[2].items():
        torch.testing.assert_close(
            found[2][name], gradient, rtol=0, atol=tolerance * max(1.0, largest), msg=name
        )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_found_out(name):
    architecture = ARCHITECTURES[name]
    likelihood = likelihood_of()
    model = build(name)
    ability = likelihood.adapt(model)
    assert (ability.sharing, ability.own_head) == (architecture.sharing, architecture.own_head), str(ability)
    assert (ability.own_mlp, ability.own_queries) == parts_of(name)
    assert bool(ability.reasons) == (architecture.sharing != "shared")
    assert not model.training


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layout_in_float64(name):
    architecture = ARCHITECTURES[name]
    tolerance = 2e-4 if name in FLOAT32_INSIDE else 1e-9
    model = build(name)
    items = draw_items(random.Random(1))
    with NoDowncast():
        for sharing in LAYOUTS[architecture.sharing]:
            check(model, items, sharing, architecture.own_head, tolerance, name)


@pytest.mark.parametrize("name", [n for n, a in ARCHITECTURES.items() if a.sharing == "shared"])
def test_shared_rows_in_float32(name):
    check(build(name, torch.float32), draw_items(random.Random(2)), "shared", True, 1e-5, name)


@pytest.mark.parametrize("name", ["llama", "mistral, window 8", "gpt2, learned positions"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_any_batch(name, seed):
    with NoDowncast():
        check(build(name), draw_items(random.Random(seed)), "shared", True, 1e-9)


@pytest.mark.slow  # it compiles kernels
@pytest.mark.parametrize("name", ["llama", "gemma3, windows"])
def test_flex_attention_gives_the_same(name):
    """As written, without its compiler: what that makes for a CPU reads memory that nobody set, and is never used there."""
    items = draw_items(random.Random(3))
    scores = []
    for attention in ("sdpa", "flex_attention"):
        model = build(name, torch.float32, attention)
        likelihood = likelihood_of("shared", True)
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            scores.append(likelihood.score(model, likelihood.plan(items)).logp_N)
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-5, atol=1e-5)


def test_windows_count_positions():
    """Of a shared prompt, the second completion sees as much as the first, though it lies further away."""
    name = "mistral, window 8"
    model, items = build(name), draw_items(random.Random(4))
    likelihood = likelihood_of("shared", True)
    plan = likelihood.plan(items)
    assert (plan.position_RT != torch.arange(plan.position_RT.shape[1])).any()
    unwindowed = build("mistral, window 8")
    unwindowed.config.sliding_window = None
    with torch.no_grad():
        right = likelihood.score(model, plan).logp_N
        other = likelihood.score(unwindowed, plan).logp_N
    assert (right - other).abs().max() > 1e-3  # the window matters here


def test_a_leak_below_rounding_is_found():
    """Scores within the tolerance are not enough: nothing of one sequence may reach another."""
    model = build("llama", torch.float32)
    layer = model.model.layers[0]

    def leak(module, args, output):
        return output + 1e-5 * output.mean(dim=1, keepdim=True)

    layer.register_forward_hook(leak)
    ability = likelihood_of().adapt(model)
    assert ability.sharing == "plain"
    assert any("one sequence changes the scores of another" in reason for reason in ability.reasons), ability


def test_attention_without_masks_keeps_plain_rows():
    model = build("llama")
    model.config._attn_implementation = "flash_attention_2"
    ability = ability_of(model, lambda m, plan, ability: torch.zeros(len(plan.length_N), plan.longest))
    assert ability.sharing == "plain"
    assert "flash_attention_2 takes no masks of blocks" in ability.reasons[0]


def test_masks_outside_a_plan_are_transformers_own():
    model = build("llama")
    ids = torch.randint(3, VOCABULARY, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with torch.no_grad():
        before = model(ids, attention_mask=mask).logits
        items = draw_items(random.Random(5))
        likelihood = likelihood_of("shared", True)
        likelihood.score(model, likelihood.plan(items))
        assert torch.equal(model(ids, attention_mask=mask).logits, before)
        with rows_of(plan_rows(items, 0)):  # a plain plan changes nothing either
            assert torch.equal(model(ids, attention_mask=mask).logits, before)
    assert "forward" not in vars(model)


def test_the_model_is_left_as_it_was():
    model = build("llama").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    likelihood_of().adapt(model)
    assert model.training
    assert "forward" not in vars(model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_gradient_checkpointing_on_shared_rows():
    items = draw_items(random.Random(6))
    model = build("llama")
    likelihood = likelihood_of("shared", True)
    plain = scores_and_gradients(model.train(), likelihood, [items])
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = scores_and_gradients(model, likelihood, [items])
    for name, gradient in plain[2].items():
        torch.testing.assert_close(again[2][name], gradient, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", ["mixtral", "qwen3 moe"])
@pytest.mark.parametrize("own_head", [True, False])
def test_experts_are_balanced_over_real_tokens(name, own_head):
    """The loss that transformers computes with padding masked, whatever the layout pads."""
    model = build(name)
    items = draw_items(random.Random(8))
    assert likelihood_of().score(model, plan_rows(items, 0)).auxiliary is None
    model.config.output_router_logits = True
    ids = [torch.tensor(item.ids[:-1]) for item in items]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    exact = model(padded, attention_mask=mask).aux_loss * model.router_aux_loss_coef
    for sharing in ("plain", "packed", "shared"):  # a shared prompt counts as often as it is read
        likelihood = likelihood_of(sharing, own_head, *parts_of(name))
        scores = likelihood.score(model, likelihood.plan(items), {"log_p2"})
        found = scores.auxiliary
        torch.testing.assert_close(found, exact)
        torch.testing.assert_close(scores.aux_loss * model.router_aux_loss_coef, exact)
        found.backward()
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
        with torch.no_grad():
            assert likelihood.score(model, likelihood.plan(items)).auxiliary is None
