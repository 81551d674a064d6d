"""When FlexAttention is taken by itself, and what its trial finds. A CPU has no backward pass for it."""

from __future__ import annotations

import pytest
import torch

from likelihoods.architectures import build
from likelihoods.test_capability import likelihood_of
from prefopt.likelihoods import flex
from prefopt.likelihoods.capability import Ability
from prefopt.likelihoods.flex import Attention, attending, choose, generating, try_flex

SHARED = Ability("shared", True, True, True)


def never():
    raise AssertionError("a trial is not needed here")


def trial_of(model, ability=SHARED):
    likelihood = likelihood_of()
    return try_flex(model, ability, lambda m, plan, a: likelihood._score(m, plan, (), a).logp_NL)


@pytest.fixture
def eager_for_flex(monkeypatch):
    """The trial compares with eager attention, which knows gradients on a CPU and takes the same masks."""
    monkeypatch.setattr(flex, "FLEX", "eager")


def test_taken_on_cuda_if_the_trial_finds_nothing_wrong():
    model = build("llama")
    assert choose(model, SHARED, "cuda", None, lambda: None) == Attention("flex_attention")
    assert choose(model, SHARED, "cuda", None, lambda: "it fails") == Attention(reason="it fails")
    assert model.config._attn_implementation == "sdpa"  # a decision, no more


def test_not_considered_elsewhere():
    model = build("llama")
    assert choose(model, SHARED, "cpu", None, never) == Attention()
    assert choose(model, SHARED, "cuda", "sdpa", never) == Attention("sdpa")  # the user's word
    assert choose(model, Ability("plain"), "cuda", None, never) == Attention()  # plain rows need no mask
    assert choose(torch.nn.Linear(2, 2), SHARED, "cuda", None, never) == Attention()


def test_a_class_without_support_says_so(monkeypatch):
    model = build("llama")
    monkeypatch.setattr(type(model), "_supports_flex_attn", False)
    found = choose(model, SHARED, "cuda", None, never)
    assert found == Attention(reason="LlamaForCausalLM of this transformers does not support it")


@pytest.mark.parametrize("name", ["llama", "mistral, window 8"])
@pytest.mark.parametrize("sharing", ["shared", "packed"])
def test_an_equal_attention_passes(name, sharing, eager_for_flex):
    model = build(name, torch.float32).train()
    assert trial_of(model, Ability(sharing, True, True, True)) is None
    assert model.config._attn_implementation == "sdpa"
    assert model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x + 0.05 * torch.arange(x.shape[-1]), "scores differ"),
        (lambda x: x + (x - x.detach()), "gradients differ"),  # the same numbers, twice the gradient
        (lambda x: x.to("nowhere"), "it fails (RuntimeError: "),
    ],
)
def test_an_unequal_attention_is_found_out(change, reason, eager_for_flex):
    model = build("llama", torch.float32)

    def hook(module, args, output):
        return change(output) if model.config._attn_implementation == "eager" else None

    model.model.layers[0].self_attn.o_proj.register_forward_hook(hook)
    assert reason in (trial_of(model) or "")
    assert model.config._attn_implementation == "sdpa"


def test_generation_uses_sdpa():
    model = build("llama")
    with attending(model, "flex_attention"):
        with generating(model):
            assert model.config._attn_implementation == "sdpa"
        assert model.config._attn_implementation == "flex_attention"
    model.config._attn_implementation = "eager"
    with generating(model):
        assert model.config._attn_implementation == "eager"


def test_a_model_on_a_cpu_keeps_its_attention():
    model, likelihood = build("llama"), likelihood_of("shared", True)
    assert likelihood.attention(model) == Attention()
    assert likelihood.attention(model, "eager") == Attention("eager")
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.slow  # it compiles kernels
@pytest.mark.parametrize("name", ["llama", "gemma3, windows"])
def test_the_real_one(name):
    model = build(name, torch.float32)
    assert "does not support backward on CPU" in trial_of(model)
    assert trial_of(model.requires_grad_(False)) is None
    assert model.config._attn_implementation == "sdpa"
