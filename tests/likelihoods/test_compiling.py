"""Compiled parts give the scores and gradients of the others, for rows of any length, and step aside without gradients."""

from __future__ import annotations

import random
import shutil
from array import array
from types import SimpleNamespace

import pytest
import torch

from likelihoods.architectures import build
from prefopt.likelihoods import compiling
from prefopt.likelihoods.capability import Ability
from prefopt.likelihoods.compiling import check_compiler, compile_parts, parts_of
from prefopt.likelihoods.plan import EncodedText
from prefopt.likelihoods.tokens import TokenLikelihood

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


def batch(seed: int, count: int) -> list[EncodedText]:
    rng = random.Random(seed)

    def draw(length: int) -> array[int]:
        return array("i", [rng.randint(3, 96) for _ in range(length)])

    items = []
    for _ in range(count):
        prompt = draw(rng.randint(3, 20))
        items += [EncodedText(prompt + draw(rng.randint(2, 9)), len(prompt)) for _ in range(2)]
    return items


def scores_and_gradients(model: torch.nn.Module, items: list[EncodedText]) -> list[torch.Tensor]:
    likelihood = TokenLikelihood(SimpleNamespace(pad_token_id=0, eos_token_id=2))
    likelihood.ability = Ability("shared", True, True, True, 2**20)
    model.zero_grad()
    logp_N = likelihood.score(model, likelihood.plan(items)).logp_N
    logp_N.square().sum().backward()
    return [logp_N.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@needs_compiler
@pytest.mark.parametrize("name", ["llama", "gpt-neox"])
def test_scores_and_gradients_of_rows_of_any_length(name):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    batches = [batch(seed, count) for seed, count in ((0, 3), (1, 2), (2, 4), (3, 5))]
    model = build(name, torch.float32)
    plain = [scores_and_gradients(model, items) for items in batches]
    assert compile_parts(model) == len(list(parts_of(model))) > 2
    compiled, graphs = [], []
    for items in batches:
        compiled.append(scores_and_gradients(model, items))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert 0 < graphs[0] == graphs[-1]  # none was made for the lengths of one batch
    for a, b in zip(plain, compiled, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-4 * float(x.abs().max()))


@needs_compiler
def test_nothing_is_compiled_without_gradients(monkeypatch):
    called = []
    monkeypatch.setattr(torch, "compile", lambda f, **options: lambda *a: called.append(f) or f(*a))
    model = build("llama")
    compile_parts(model)
    ids = torch.randint(3, 96, (1, 5))
    with torch.no_grad():
        model(ids)
    assert not called
    model(ids)
    assert len(called) == len(list(parts_of(model)))


def test_parts_are_all_but_attention_experts_and_what_reads_scored_places():
    """Two layers: norms of both and the feed-forward part of the first; none that sends tokens to experts."""
    assert sorted(type(p).__name__ for p in parts_of(build("llama"))) == ["LlamaMLP"] + ["LlamaRMSNorm"] * 4
    assert {type(p).__name__ for p in parts_of(build("mixtral"))} == {"MixtralRMSNorm"}
    assert list(parts_of(torch.nn.Linear(2, 2))) == []


def test_no_compiler_is_said_before_training(monkeypatch):
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"torch_compile=true needs a C\+\+ compiler"):
        check_compiler("cpu")
    check_compiler("cuda")
