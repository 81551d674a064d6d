"""A forward pass of a causal language model that gives scores in place of logits.

Legend: R rows, T row length, K scored tokens, P scored places, D hidden width.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.likelihoods.capability import causal_lm, last_mlp, trunk_of
from prefopt.likelihoods.head import Finish, head_logp
from prefopt.likelihoods.plan import Plan


@contextlib.contextmanager
def scoring_forward(model: nn.Module, plan: Plan, extras: Sequence[str], own_mlp: bool) -> Iterator[None]:
    """Within it, a call of the model gives (logp_K, *extras) of the planned places instead of logits.

    The forward of the model of transformers is stood in for, not the call: whatever is wrapped around it (adapters,
    data parallelism, sharding) sees an ordinary call of its module.

    Args:
        model: holds a causal language model of transformers.
        plan: says which places are scored.
        extras: `head.measures` to give too.
        own_mlp: nothing after the last layer's attention mixes places, so its feed-forward part reads scored ones
            only, and gives zeros elsewhere, which no one reads. (Not under checkpointing, which comes back later.)
    """
    inner: Any = causal_lm(model)
    trunk, head = trunk_of(inner), inner.get_output_embeddings()
    if trunk is None or head is None:
        raise NotImplementedError("this model does not say what its trunk and its head are")
    finish = Finish.of(inner.config.get_text_config())

    def forward(**inputs: Any) -> tuple[Tensor, ...]:
        given = {name: value for name, value in inputs.items() if value is not None and name != "return_dict"}
        outputs = trunk(**given)
        hidden_KD = outputs.last_hidden_state[plan.row_K, plan.position_K]
        logp_K, found = head_logp(head, hidden_KD, plan.target_K, finish, extras)
        balance = (
            [experts_loss(inner, outputs.router_logits, plan)] if "output_router_logits" in given else []
        )
        return logp_K, *(found[name] for name in extras), *balance

    with contextlib.ExitStack() as stack:
        stack.enter_context(standing_in(inner, forward))
        if own_mlp and not inner.is_gradient_checkpointing:
            mlp: Any = last_mlp(trunk)
            if mlp is None:
                raise NotImplementedError("this model does not say what its last feed-forward part is")
            whole, scored_RT = mlp.forward, torch.zeros_like(plan.input_ids_RT, dtype=torch.bool)
            scored_RT[plan.row_K, plan.position_K] = True

            def forward_mlp(hidden_RTD: Tensor) -> Tensor:
                out_PD = whole(hidden_RTD[scored_RT])
                return hidden_RTD.new_zeros(hidden_RTD.shape, dtype=out_PD.dtype).masked_scatter(
                    scored_RT[..., None], out_PD
                )

            stack.enter_context(standing_in(mlp, forward_mlp))
        yield


@contextlib.contextmanager
def standing_in(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Within it, the module's forward is another function."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def balances_experts(model: nn.Module) -> bool:
    """Whether the model's configuration asks for the loss that keeps its experts in balance."""
    inner: Any = causal_lm(model)
    return inner is not None and bool(getattr(inner.config.get_text_config(), "output_router_logits", False))


def experts_loss(model: nn.Module, router_logits: Any, plan: Plan) -> Tensor:
    """The model's own load-balancing loss times its coefficient, over real tokens: padding needs no expert."""
    inner: Any = causal_lm(model)
    balance = sys.modules[type(inner).__module__].load_balancing_loss_func
    loss: Tensor = balance(
        router_logits, inner.num_experts, inner.num_experts_per_tok, plan.attention_mask_RT
    )
    return inner.router_aux_loss_coef * loss
