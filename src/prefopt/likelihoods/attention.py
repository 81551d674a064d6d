"""Attention over shared and packed rows, for any model that asks transformers for its masks.

Models of transformers do not write their masks: they describe the pattern of a layer (causal, sliding window,
chunks) as a function of two places and ask the interface named by their attention (`sdpa`, `eager`,
`flex_attention`) to make it. `rows_of` stands in that interface: it gives the pattern the *positions* of two tokens
instead of their places, so that windows and chunks count what the sequence counts, and lets a token see its own
ancestors alone. On a CPU, whose kernels compute what a mask hides, layers that are causal and no more attend branch by
branch (`branches`); on a GPU flex_attention skips hidden blocks itself. Outside `rows_of` the interface is transformers' own.

Legend: R rows, T row length, H attention heads or 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from prefopt.likelihoods.branches import Branches
from prefopt.likelihoods.plan import Plan

INTERFACES = ("sdpa", "eager", "flex_attention")
_plan: ContextVar[Plan | None] = ContextVar("plan", default=None)
_last: ContextVar[tuple[nn.Module, Branches] | None] = ContextVar("last", default=None)


def can_mask(model: nn.Module | None) -> bool:
    """Whether the attention of a model of transformers takes masks of blocks at all."""
    config: Any = getattr(model, "config", None)
    return getattr(config, "_attn_implementation", None) in INTERFACES


@contextlib.contextmanager
def rows_of(plan: Plan) -> Iterator[None]:
    """Within it, masks that models ask for are those of the plan's rows."""
    install()
    token = _plan.set(plan)
    try:
        yield
    finally:
        _plan.reset(token)


@contextlib.contextmanager
def queries_of(layer: nn.Module, branches: Branches) -> Iterator[None]:
    """Within it, a layer's attention is computed for the queries of some branches only, where it is causal."""
    token = _last.set((layer, branches))
    try:
        yield
    finally:
        _last.reset(token)


def install() -> None:
    """Stand in transformers' interfaces, once a process."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS as interfaces
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as attentions

    for name in INTERFACES:
        theirs = interfaces[name]
        if not hasattr(theirs, "_of_plans"):
            interfaces.register(name, of_plans(theirs))
    if not hasattr(attentions["sdpa"], "_of_plans"):
        attentions.register("sdpa", by_branches(attentions["sdpa"]))


def of_plans(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """transformers' mask interface, which heeds the plan in force."""
    from transformers.masking_utils import causal_mask_function

    def make_mask(*args: Any, **kwargs: Any) -> Any:
        plan = _plan.get()
        if plan is None or plan.until_RT is None:
            return theirs(*args, **kwargs)
        pattern = kwargs["mask_function"]
        until_RT, position_RT = plan.until_RT, plan.position_RT

        def sees(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            related = (k <= q) & (q < until_RT[row, k])
            allowed: Tensor = pattern(row, head, position_RT[row, q], position_RT[row, k])
            return related & allowed

        # the pattern holds for all tokens of a row; the mask of padding would only be multiplied in
        changed = {"mask_function": sees, "attention_mask": None, "allow_is_causal_skip": False}
        mask = theirs(*args, **{**kwargs, **changed})
        if pattern is causal_mask_function and isinstance(mask, Tensor):
            mask._branches = plan.branches  # type: ignore[attr-defined]
        return mask

    make_mask._of_plans = True  # type: ignore[attr-defined]
    return make_mask


def by_branches(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """transformers' attention, which takes rows apart where their mask says how."""

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> Any:
        branches, last = getattr(attention_mask, "_branches", None), _last.get()
        # no mask at all: plain causal rows
        causal = attention_mask is None or hasattr(attention_mask, "_branches")
        if last is not None and last[0] is module and causal:
            branches = last[1]
        if branches is None or query.device.type != "cpu" or query.shape[2] != branches.width:
            return theirs(module, query, key, value, attention_mask, **options)
        return branches.attend(theirs, module, query, key, value, **options), None

    attend._of_plans = True  # type: ignore[attr-defined]
    return attend
