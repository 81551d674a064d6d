"""Rotary positions that change with the length of what is read: longrope, dynamic scaling.

Such a module looks at the largest position of a whole batch, and some remember the largest that they ever saw. A score
would depend on its neighbours, on padding, and on what was scored before. Here every sequence is given the positions
that it has alone: the module is asked once for each kind of length in the batch, as if it were new.

What a module does is found by asking it, with positions and nothing else; no layer runs.

Legend: R rows, T row length.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from prefopt.likelihoods.positions import positions_in
from prefopt.likelihoods.stand_in import standing_in

LOOKED_AT = 4  # positions that are compared
FAR = 2**20  # lengths that are tried where the configuration names none


@dataclass(frozen=True, slots=True)
class Switch:
    """Which lengths are read with the same positions.

    Attributes:
        after: tokens up to which all lengths are.
        varying: whether every longer length has positions of its own, rather than all the same.

    Example:
        >>> [Switch(8, varying=False).kind(n) for n in (3, 8, 9, 20)]
        [8, 8, 9, 9]
        >>> [Switch(8, varying=True).kind(n) for n in (3, 8, 9, 20)]
        [8, 8, 9, 20]
    """

    after: int
    varying: bool

    def kind(self, length: int) -> int:
        """A length that stands for all that are read with the same positions as this one."""
        if length <= self.after:
            return self.after
        return length if self.varying else self.after + 1

    def kinds(self, length: Tensor) -> Tensor:
        """The same of many lengths."""
        beyond = length if self.varying else torch.full_like(length, self.after + 1)
        return torch.where(length <= self.after, torch.full_like(length, self.after), beyond)


_found: WeakKeyDictionary[nn.Module, tuple[Switch | None, list[nn.Module]]] = WeakKeyDictionary()


def switch_of(model: nn.Module) -> Switch | None:
    """Where the positions of a model change with the length; None where they never do."""
    return _look(model)[0]


def _look(model: nn.Module) -> tuple[Switch | None, list[nn.Module]]:
    """The switch, and the modules that have one."""
    if model not in _found:
        switches: list[Switch] = []
        modules = []
        for module in model.modules():
            if "rotary" in type(module).__name__.lower() or hasattr(module, "inv_freq"):
                found = [s for kind in _layer_types(module) if (s := _try(module, kind)) is not None]
                switches += found
                modules += [module] if found else []
        # where layers differ, the finest that serves all of them
        switch = (
            Switch(min(s.after for s in switches), len(set(switches)) > 1 or switches[0].varying)
            if switches
            else None
        )
        _found[model] = switch, modules
    return _found[model]


def _layer_types(module: nn.Module) -> list[dict[str, Any]]:
    """Further arguments with which a module may be called."""
    if "layer_type" not in inspect.signature(module.forward).parameters:
        return [{}]
    kinds = getattr(module, "rope_type", None)
    return [{"layer_type": name} for name in kinds] if isinstance(kinds, dict) else [{}]


def _try(module: nn.Module, options: dict[str, Any]) -> Switch | None:
    config = getattr(module, "config", None)
    far = 2 * ((positions_in(config) if config is not None else None) or FAR)
    buffer = next(module.buffers(), None)
    x = torch.zeros(1, 1, 1, device=None if buffer is None else buffer.device)

    def table(length: int) -> list[Tensor]:
        ids = torch.tensor([[*range(LOOKED_AT), length - 1]], device=x.device)
        out = as_new(module, x)(x, ids, **options)
        return [part[..., :LOOKED_AT, :] for part in (out if isinstance(out, tuple) else (out,))]

    def same(a: int, b: int) -> bool:
        return all(torch.equal(p, q) for p, q in zip(table(a), table(b), strict=True))

    try:
        low, high = LOOKED_AT, far
        if same(low, high):
            return None
        while high - low > 1:  # low is read like the shortest, high is not
            middle = (low + high) // 2
            low, high = (middle, high) if same(LOOKED_AT, middle) else (low, middle)
        return Switch(low, varying=not (same(high, far) and same(high, (high + far) // 2)))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return None  # called in another way, so not one of those that look at the largest position


def as_new(module: nn.Module, x: Tensor) -> nn.Module:
    """A copy that has seen nothing, with the module's own forward."""
    fresh = copy.copy(module)
    fresh.__dict__.pop("forward", None)
    fresh._buffers = {k: None if b is None else b.clone() for k, b in module._buffers.items()}
    for options in _layer_types(fresh):
        # a short row makes those that remember a long one forget it
        fresh(x, torch.zeros((1, 1), dtype=torch.long, device=x.device), **options)
    return fresh


@contextlib.contextmanager
def own_positions(model: nn.Module, length_RT: Tensor) -> Iterator[None]:
    """Within it, every place of planned rows has the positions that its sequence has alone.

    Args:
        model: holds a model of transformers.
        length_RT: tokens of the sequence that a place belongs to; 0 for padding.
    """
    switch, modules = _look(model)
    if switch is None:
        yield
        return
    kind_RT = switch.kinds(length_RT) * (length_RT > 0)
    kinds = [kind for kind in kind_RT.unique().tolist() if kind]

    def forward_of(module: nn.Module) -> Callable[..., Any]:
        def forward(x: Tensor, position_ids: Tensor, *args: Any, **options: Any) -> Any:
            if position_ids.shape[-1] != kind_RT.shape[-1]:
                return as_new(module, x)(x, position_ids, *args, **options)
            whole: tuple[Tensor, ...] | None = None
            several = True
            for kind in kinds:
                here = kind_RT == kind
                # of other places nothing is used, and their positions must not count
                out = _as_long_as(as_new(module, x), kind, x, position_ids * here, args, options)
                several = isinstance(out, tuple)
                parts = out if isinstance(out, tuple) else (out,)
                if whole is not None:
                    here = here[..., None]
                    parts = tuple(torch.where(here, new, old) for new, old in zip(parts, whole, strict=True))
                whole = parts
            assert whole is not None
            return whole if several else whole[0]

        return forward

    with _standing_in(modules, forward_of):
        yield


def _as_long_as(
    module: nn.Module, length: int, x: Tensor, position_ids: Tensor, args: Sequence[Any], options: Any
) -> Any:
    """What a module gives for positions that are part of so long a sequence: one place more says so."""
    last = position_ids.new_full((*position_ids.shape[:-1], 1), length - 1)
    ids = torch.cat([position_ids, last], -1)
    out = module(x, ids, *args, **options)
    return tuple(part[..., :-1, :] for part in out) if isinstance(out, tuple) else out[..., :-1, :]


@contextlib.contextmanager
def forgetful(model: nn.Module) -> Iterator[None]:
    """Within it, no position depends on what was read before the present call, as `generate` needs it."""

    def forward_of(module: nn.Module) -> Callable[..., Any]:
        def forward(x: Tensor, *args: Any, **options: Any) -> Any:
            return as_new(module, x)(x, *args, **options)

        return forward

    with _standing_in(_look(model)[1], forward_of):
        yield


def companies(
    lengths: Sequence[int], new_tokens: int, batch_size: int, switch: Switch | None
) -> Iterator[list[int]]:
    """Indices of prompts in batches: one that may come to be read with other positions goes alone.

    Args:
        lengths: tokens of the prompts.
        new_tokens: that may follow.
        batch_size: prompts of a batch.
        switch: of the model.

    Example:
        >>> list(companies([9, 1, 2, 3], 1, 2, Switch(8, varying=False)))
        [[0], [1, 2], [3]]
    """
    over = [
        n for n, length in enumerate(lengths) if switch is not None and length + new_tokens > switch.after
    ]
    rest = sorted(set(range(len(lengths))) - set(over))
    yield from ([n] for n in over)
    for start in range(0, len(rest), batch_size):
        yield rest[start : start + batch_size]


@contextlib.contextmanager
def _standing_in(
    modules: Sequence[nn.Module], forward_of: Callable[[nn.Module], Callable[..., Any]]
) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(standing_in(module, forward_of(module)))
        yield
