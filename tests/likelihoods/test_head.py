"""The head in pieces against log-softmax of all logits: values, gradients, measures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prefopt.likelihoods import head as module
from prefopt.likelihoods.head import Finish, head_logp, is_plain

K, D, V = 23, 6, 40
FINISHES = [Finish(), Finish(scale=0.3), Finish(softcap=2.0), Finish(scale=1.7, softcap=5.0)]


@pytest.fixture(
    autouse=True, params=[(0, 16), (2**20, 16), (2**20, 64)], ids=["made again", "kept", "one piece"]
)
def small_pieces(request, monkeypatch):
    kept, tokens = request.param
    monkeypatch.setitem(module.PIECE, "cpu", tokens * 4 * V)  # of 16 tokens: two, the second not full
    monkeypatch.setitem(module.KEPT, "cpu", kept)
    monkeypatch.setattr(module, "BLOCK", 5 * 4 * V)  # five rows a block: the last of a piece has one


def inputs(dtype=torch.float64, bias=True):
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(D, V, bias=bias, dtype=dtype)
    with torch.no_grad():
        for p in head.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 2)
    hidden_KD = torch.randn(K, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return head, hidden_KD, torch.randint(V, (K,), generator=generator), torch.randn(K, generator=generator)


def direct(head, hidden_KD, finish):
    z_KV = head(hidden_KD) * finish.scale
    z_KV = z_KV if finish.softcap is None else finish.softcap * torch.tanh(z_KV / finish.softcap)
    return z_KV.log_softmax(-1)


class Doubled(nn.Linear):
    """Not a plain linear layer, so that the general path is taken."""

    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("finish", FINISHES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_values_and_gradients(finish, bias, plain):
    head, hidden_KD, target_K, weight_K = inputs(bias=bias)
    if not plain:
        head.__class__ = Doubled
    assert is_plain(head) is plain
    logp_K, found = head_logp(head, hidden_KD, target_K, finish, ["log_p2", "entropy", "top1"])
    logp_KV = direct(head, hidden_KD, finish)
    exact_K = logp_KV.gather(-1, target_K[:, None])[:, 0]
    torch.testing.assert_close(logp_K, exact_K, rtol=0, atol=1e-12)
    p_KV = logp_KV.exp()
    torch.testing.assert_close(found["log_p2"], p_KV.square().sum(-1).log(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found["entropy"], -(p_KV * logp_KV).sum(-1), rtol=0, atol=1e-12)
    assert torch.equal(found["top1"], (logp_KV.argmax(-1) == target_K).double())
    assert not any(value.requires_grad for value in found.values())
    inputs_of = [hidden_KD, *head.parameters()]
    ours = torch.autograd.grad((logp_K * weight_K).sum(), inputs_of, retain_graph=plain)
    if plain:  # twice: kept logits are overwritten by the first backward pass
        again = torch.autograd.grad((logp_K * weight_K).sum(), inputs_of)
        assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(ours, again, strict=True))
    theirs = torch.autograd.grad((exact_K * weight_K).sum(), inputs_of)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_gradcheck():
    head, hidden_KD, target_K, _ = inputs()

    def logp(h, w, b):
        head.weight, head.bias = nn.Parameter(w), nn.Parameter(b)
        return module.HeadLogp.apply(h, target_K, w, b, Finish(0.7, 3.0), 16, ())[0]

    given = (hidden_KD, *(p.detach().clone().requires_grad_() for p in head.parameters()))
    assert torch.autograd.gradcheck(logp, given)


def test_the_weights_gradient_adds_up_in_float32(monkeypatch):
    """With one token a piece, a running sum in bf16 would lose most of the small terms."""
    monkeypatch.setitem(module.PIECE, "cpu", 1)  # the least: 16 tokens a piece
    generator = torch.Generator().manual_seed(1)
    head = nn.Linear(D, V, bias=False).to(torch.bfloat16)
    hidden = torch.ones(4096, D, dtype=torch.bfloat16)
    target_K = torch.randint(V, (4096,), generator=generator)
    head_logp(head, hidden, target_K, Finish())[0].sum().backward()
    exact = nn.Linear(D, V, bias=False, dtype=torch.float64)
    exact.weight.data.copy_(head.weight.data)
    direct(exact, hidden.double(), Finish()).gather(-1, target_K[:, None]).sum().backward()
    error = (head.weight.grad.double() - exact.weight.grad).norm() / exact.weight.grad.norm()
    assert error < 0.02


@pytest.mark.parametrize("trained", ["hidden", "weight"])
def test_only_what_is_trained_gets_a_gradient(trained):
    head, hidden_KD, target_K, _ = inputs(bias=False)
    hidden_KD.requires_grad_(trained == "hidden")
    head.weight.requires_grad_(trained == "weight")
    head_logp(head, hidden_KD, target_K, Finish())[0].sum().backward()
    assert (hidden_KD.grad is not None) is (trained == "hidden")
    assert (head.weight.grad is not None) is (trained == "weight")


def test_under_autocast_products_are_bf16_and_sums_float32():
    head, hidden_KD, target_K, _ = inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logp_K, _ = head_logp(head, hidden_KD, target_K, Finish())
        exact_K = head(hidden_KD).float().log_softmax(-1).gather(-1, target_K[:, None])[:, 0]
    assert logp_K.dtype == torch.float32
    torch.testing.assert_close(logp_K, exact_K, rtol=0, atol=1e-5)
    logp_K.sum().backward()
    assert head.weight.grad.dtype == torch.float32


def test_no_logits_are_kept():
    head, hidden_KD, target_K, _ = inputs(bias=False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        head_logp(head, hidden_KD, target_K, Finish())
    assert max(kept) == V * D  # the weight itself; logits would be K * V
    assert K * V not in kept
