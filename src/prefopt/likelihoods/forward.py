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

from prefopt.likelihoods.attention import queries_of
from prefopt.likelihoods.capability import Ability, causal_lm, last_attention, last_mlp, trunk_of
from prefopt.likelihoods.head import Finish, head_logp
from prefopt.likelihoods.plan import Plan
from prefopt.likelihoods.stand_in import standing_in


@contextlib.contextmanager
def scoring_forward(model: nn.Module, plan: Plan, extras: Sequence[str], ability: Ability) -> Iterator[None]:
    """Within it, a call of the model gives (logp_K, *extras) of the planned places instead of logits.

    The forward of the model of transformers is stood in for, not the call: whatever is wrapped around it (adapters,
    data parallelism, sharding) sees an ordinary call of its module.

    Args:
        model: holds a causal language model of transformers.
        plan: says which places are scored.
        extras: `head.measures` to give too.
        ability: which parts of the last layer may read scored places only. Nothing after its attention mixes
            places, so what they give elsewhere, zeros, no one reads. (Not under checkpointing, which comes back
            later, nor where experts are balanced over all places.)
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
        if not (comes_back(inner) or balances_experts(inner)):
            parts: list[nn.Module | None] = [last_mlp(trunk)] if ability.own_mlp else []
            if ability.own_queries:
                attention, projections = last_attention(trunk)
                parts += projections or [None]
                if attention is not None and plan.scored_branches is not None:
                    stack.enter_context(queries_of(attention, plan.scored_branches))
            for part in parts:
                if part is None:
                    raise NotImplementedError("this model does not say what the parts of its last layer are")
                stack.enter_context(standing_in(part, at_places(part.forward, plan.scored_P)))
        yield


def comes_back(model: nn.Module) -> bool:
    """Whether some of its layers forget their activations and compute them again (transformers has two names for it)."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def at_places(whole: Callable[[Tensor], Tensor], place_P: Tensor) -> Callable[[Tensor], Tensor]:
    """A module's forward that reads some places of its rows only and gives zeros at the others."""

    def forward(hidden_RTD: Tensor) -> Tensor:
        out_PD = whole(hidden_RTD.flatten(0, 1).index_select(0, place_P))
        shape = hidden_RTD.shape[:2]
        return (
            out_PD.new_zeros((shape.numel(), out_PD.shape[-1]))
            .index_copy(0, place_P, out_PD)
            .unflatten(0, shape)
        )

    return forward


def balances_experts(model: nn.Module) -> bool:
    """Whether the model's configuration asks for the loss that keeps its experts in balance."""
    inner: Any = causal_lm(model)
    return inner is not None and bool(getattr(inner.config.get_text_config(), "output_router_logits", False))


def experts_loss(model: nn.Module, router_logits: Any, plan: Plan) -> Tensor:
    """The model's own load-balancing loss, over real tokens: padding needs no expert, and a token counts once an item."""
    inner: Any = causal_lm(model)
    balance = sys.modules[type(inner).__module__].load_balancing_loss_func
    count_RT = torch.zeros(
        plan.input_ids_RT.shape
    )  # of a shared prompt as often as a row an item would have it
    for r, path in zip(plan.layout.row_of, plan.layout.path_of, strict=True):
        count_RT[r, path] += 1
    loss: Tensor = balance(
        router_logits, inner.num_experts, inner.num_experts_per_tok, count_RT.to(plan.input_ids_RT.device)
    )
    return loss


def balance_experts(model: nn.Module, coefficient: float) -> None:
    """Add the loss that keeps experts in balance to training, with this weight; 0: leave it out.

    Raises:
        ValueError: there are no experts, or the model does not tell which token went to which.
    """
    inner: Any = causal_lm(model)
    text: Any = None if inner is None else inner.config.get_text_config()
    known = hasattr(sys.modules[type(inner).__module__], "load_balancing_loss_func")
    if not (known and hasattr(text, "output_router_logits") and hasattr(inner, "num_experts_per_tok")):
        if not coefficient:
            return
        raise ValueError(
            f"{type(inner or model).__name__} is no mixture of experts that returns its router logits, so that there is no balance "
            f"to weigh by router_aux_loss_coef={coefficient:g}: leave it out"
        )
    text.output_router_logits = coefficient > 0
    inner.router_aux_loss_coef = coefficient


def balance_weight(model: nn.Module) -> float:
    """The weight of that loss."""
    inner: Any = causal_lm(model)
    return float(inner.router_aux_loss_coef)
