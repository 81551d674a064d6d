"""FlexAttention instead of a masked SDPA call for shared and packed rows on a GPU, chosen by trial.

SDPA's kernels compute the pairs of places that a mask hides; FlexAttention skips blocks of them. It is taken where rows
are shared or packed, the user named no attention, the model's class supports it, and scores and gradients of a few
made-up rows come out as they do with the attention that the model has. Else the model stays as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.likelihoods.capability import TOLERANCE, Ability, causal_lm, probes
from prefopt.likelihoods.plan import Plan, plan_rows

FLEX = "flex_attention"
LONG = 300  # tokens of the longest made-up row: blocks of the kernel have 128 places
GRADIENT = {torch.float64: 0.01, torch.float32: 0.01}
"""Relative error of a gradient that rounding may cause; 0.1 in shorter formats."""


@dataclass(frozen=True, slots=True)
class Attention:
    """What was decided.

    Attributes:
        name: attention of transformers to use; None for what the model has.
        reason: why FlexAttention is not used, where it was wanted.
    """

    name: str | None = None
    reason: str | None = None


def choose(
    model: nn.Module, ability: Ability, device_type: str, asked: str | None, trial: Callable[[], str | None]
) -> Attention:
    """Decide on FlexAttention, without touching the model.

    Args:
        model: a causal language model.
        ability: what it was found to allow.
        device_type: where it will run, "cuda" or another.
        asked: the user's choice, which stands.
        trial: None if FlexAttention gives what the present attention gives, else a sentence; called last.
    """
    inner: Any = causal_lm(model)
    if asked is not None or device_type != "cuda" or inner is None or ability.sharing == "plain":
        return Attention(asked)
    if inner.config._attn_implementation == FLEX:
        return Attention(FLEX)
    if not getattr(inner, "_supports_flex_attn", False):
        return Attention(reason=f"{type(inner).__name__} of this transformers does not support it")
    why = trial()
    return Attention(FLEX) if why is None else Attention(reason=why)


def try_flex(
    model: nn.Module, ability: Ability, score: Callable[[nn.Module, Plan, Ability], Tensor]
) -> str | None:
    """What is wrong with FlexAttention for this model, on its device and under the autocast in force; None: nothing.

    Args:
        model: a causal language model; left as it was.
        ability: layout to try.
        score: (model, plan, ability) -> (N, L) log-probabilities.
    """
    inner: Any = causal_lm(model)
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    device, dtype = parameter.device, parameter.dtype
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    items = probes(inner.config.get_text_config(), least=LONG)
    plan = plan_rows(items, 0, ability.sharing, 2**30).to(device)
    # the backward pass goes through all layers on its way to the first trained parameters; others need no memory
    first = [p for p in model.parameters() if p.requires_grad][:2]

    def run() -> tuple[Tensor, list[Tensor]]:
        with torch.set_grad_enabled(bool(first)):
            logp_NL = score(model, plan, ability)
            gradients = torch.autograd.grad(logp_NL.sum(), first, allow_unused=True) if first else ()
        return logp_NL.detach(), [g.detach() for g in gradients if g is not None]

    training = model.training
    model.eval()
    try:
        logp_NL, gradients = run()
        with attending(model, FLEX):
            if inner.config._attn_implementation != FLEX:
                return f"{type(inner).__name__} cannot change its attention"
            flex_NL, flex_gradients = run()
    except Exception as error:  # of compilers too, which raise whatever they like
        return f"it fails ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]})"
    finally:
        model.train(training)
    off = float((flex_NL - logp_NL).abs().max())
    if not off <= TOLERANCE.get(dtype, 0.1):
        return f"scores differ by up to {off:.2g} nats a token"
    for theirs, ours in zip(gradients, flex_gradients, strict=True):
        wrong, size = float((ours - theirs).norm()), float(theirs.norm())
        if not wrong <= GRADIENT.get(dtype, 0.1) * size:
            return f"gradients differ by {wrong:.2g}, of {size:.2g}"
    return None


@contextlib.contextmanager
def attending(model: nn.Module, name: str) -> Iterator[None]:
    """Within it, a model of transformers uses another of its attentions."""
    inner: Any = causal_lm(model)
    before = inner.config._attn_implementation
    try:
        inner.set_attn_implementation(name)
        yield
    finally:
        inner.set_attn_implementation(before)


@contextlib.contextmanager
def generating(model: nn.Module) -> Iterator[None]:
    """Within it, a model generates with SDPA if it scores with FlexAttention, which would compile for every length."""
    inner: Any = causal_lm(model)
    flex = inner is not None and getattr(inner.config, "_attn_implementation", None) == FLEX
    with attending(model, "sdpa") if flex and inner._supports_sdpa else contextlib.nullcontext():
        yield
