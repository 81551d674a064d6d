"""A forecast of the memory a run needs, printed before the first step.

The parts that can be known are exact (weights, gradients, optimizer state, a resident reference, logits); activations
are estimated from the architecture's sizes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

OPTIMIZER_STATES = {"adamw": 2, "rmsprop": 1, "sgd": 0}


def forecast(
    model: nn.Module,
    *,
    optim: str,
    rows: int,
    length: int,
    reference_resident: bool,
    gradient_checkpointing: bool,
    autocast_bf16: bool,
) -> list[dict[str, Any]]:
    """Bytes by part, largest batch assumed.

    Args:
        model: the policy.
        optim: optimizer name.
        rows: padded rows of the largest micro-batch.
        length: its row length in tokens.
        reference_resident: whether a frozen copy stays in memory.
        gradient_checkpointing: keeps one hidden state a layer instead of all activations.
        autocast_bf16: activations in two bytes.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    parts = [
        {"part": "weights", "bytes": weights},
        {"part": "gradients", "bytes": trained},
        {"part": f"optimizer ({optim})", "bytes": OPTIMIZER_STATES[optim] * trained},
    ]
    if reference_resident:
        parts.append({"part": "reference copy", "bytes": weights})
    config: Any = getattr(model, "config", None)
    hidden = getattr(config, "hidden_size", None)
    layers = getattr(config, "num_hidden_layers", None)
    vocabulary = getattr(config, "vocab_size", None)
    width = 2 if autocast_bf16 else 4
    if hidden and layers:
        inner = getattr(config, "intermediate_size", None) or 4 * hidden
        kept = hidden if gradient_checkpointing else 10 * hidden + 4 * inner
        parts.append({"part": "activations (estimate)", "bytes": rows * length * layers * kept * width})
    if vocabulary:
        # the model's logits, their float32 copy at scored positions, and the gradient of both
        parts.append({"part": "logits", "bytes": rows * length * vocabulary * (2 * width + 8)})
    return parts


def image_forecast(model: nn.Module, *, optim: str, reference_resident: bool) -> list[dict[str, Any]]:
    """Bytes by part of an image run, without activations, which depend on the architecture's levels.

    Args:
        model: the network.
        optim: optimizer name.
        reference_resident: whether a frozen copy stays in memory.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    parts = [
        {"part": "weights", "bytes": weights},
        {"part": "gradients", "bytes": trained},
        {"part": f"optimizer ({optim})", "bytes": OPTIMIZER_STATES[optim] * trained},
    ]
    return parts + ([{"part": "reference copy", "bytes": weights}] if reference_resident else [])


def available(device: torch.device) -> int:
    """Bytes free on the device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def peak(device: torch.device) -> int:
    """Largest number of bytes this process has used so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource
    import sys

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def sentence(parts: list[dict[str, Any]], free: int) -> tuple[str, bool]:
    """The forecast in words, and whether it fits."""
    total = sum(part["bytes"] for part in parts)
    detail = ", ".join(f"{part['part']} {part['bytes'] / 2**30:.2f}" for part in parts)
    fits = total <= free
    text = f"about {total / 2**30:.2f} GiB needed ({detail}), {free / 2**30:.1f} GiB free"
    if not fits:
        text += (
            "; it may not fit: lower per_device_train_batch_size or max_length, or set gradient_checkpointing=true "
            "or use_peft=true"
        )
    return text, fits
