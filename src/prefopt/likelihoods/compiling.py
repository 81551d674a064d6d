"""Feed-forward parts and norms as compiled code: what lies between matrix products, in fewer passes over memory.

Attention stays as it is: its masks and branches change from batch to batch, and a graph made for one would be made again
for the next. The parts see hidden states alone, of any number of rows and places, so one graph of each serves a run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from prefopt.likelihoods.capability import ATTENTIONS, causal_lm, last_mlp, layers_of, trunk_of


def check_compiler(device: str) -> None:
    """Raise RuntimeError if there is no C++ compiler and the kind of device, a CPU, needs one."""
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise RuntimeError(
            f"torch_compile=true needs a C++ compiler on a CPU, and there is no {compiler}: install one, name it in "
            "CXX, or leave torch_compile out"
        )


def compile_parts(model: nn.Module) -> int:
    """Let every layer's norms and feed-forward part run compiled wherever gradients are asked for.

    Without gradients (evaluation, generation) they stay as they were: lengths of one token would need graphs of their
    own. So does the last layer's feed-forward part, which reads scored places only, see `forward`. Nothing is compiled
    before the first forward pass.

    Args:
        model: holds a causal language model of transformers, on its device; changed in place.

    Returns:
        How many parts there are; 0 if the layers could not be told.
    """
    parts = list(parts_of(model))
    for part in parts:
        part.forward = where_gradients(part.forward)
    return len(parts)


def parts_of(model: nn.Module) -> Iterator[Any]:
    """What each layer does beside its attention."""
    inner = causal_lm(model)
    trunk = None if inner is None else trunk_of(inner)
    if trunk is None:
        return
    trimmed = last_mlp(trunk)
    for layer in layers_of(trunk):
        for name, part in layer.named_children():
            if name not in ATTENTIONS and part is not trimmed and not routes(part):
                yield part


def routes(part: nn.Module) -> bool:
    """Whether it sends tokens to experts: how many go where changes in every pass."""
    return any("expert" in name for name, _ in part.named_modules())


def where_gradients(plain: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled, and itself where no gradient is asked for."""
    compiled = torch.compile(plain, dynamic=True)

    def forward(*args: Any, **kwargs: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else plain)(*args, **kwargs)

    return forward
