"""Weights in the dtype that they are to be saved in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def in_dtype(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """A state dict whose floating-point tensors have this dtype; what shares memory shares it still.

    Args:
        state: of a model; left as it is.
        name: of a dtype of torch.

    Raises:
        ValueError: a finite weight would become infinite.

    Example:
        >>> in_dtype({"weight": torch.ones(2)}, "bfloat16")["weight"].dtype
        torch.bfloat16
    """
    kind: torch.dtype = getattr(torch, name)
    made: dict[tuple[int, torch.Size, tuple[int, ...]], Tensor] = {}
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        value = tensor.detach()
        if not value.is_floating_point() or value.dtype == kind:
            out[key] = value
            continue
        place = (value.data_ptr(), value.shape, value.stride())
        if place not in made:
            made[place] = value.to(kind)
            if bool((made[place].isinf() & value.isfinite()).any()):
                raise ValueError(
                    f"{key} holds {value.abs().max():.4g}, which {name} cannot hold ({torch.finfo(kind).max:.4g} at most). The run's "
                    "checkpoint is there: give resume=true with save_dtype=bfloat16, float32 or auto"
                )
        out[key] = made[place]
    return out
