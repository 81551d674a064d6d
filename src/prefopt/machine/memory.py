"""A forecast of the memory a run needs, printed before the first step, and what there is.

Counted here: what the process holds already (program, data, weights, a resident reference), optimizer state and gradients.
Activations are each modality's own business (of tokens: `modalities/text/forecast.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from prefopt.machine.allocator import LARGEST

OPTIMIZER_STATES = {
    "ademamix": 3,
    "adamw": 2,
    "lion": 1,
    "rmsprop": 1,
    "adagrad": 1,
    "adafactor": 0,
    "sgd": 0,
}
"""Numbers that an optimizer keeps of each weight, by what its name contains; Adafactor's are rows and columns."""
LOADED_LATER = 64 * 2**20  # optimizer, report and drawing of a CPU run, in bytes; measured


def forecast_without_activations(
    model: nn.Module, *, optim: str, reference_resident: bool
) -> list[dict[str, Any]]:
    """Bytes by part, but for activations: a lower bound where the architecture does not tell them.

    Args:
        model: the policy, on its device.
        optim: optimizer name.
        reference_resident: whether a frozen copy stays in memory.
    """
    parts, held = standing(model, optim, reference_resident)
    return listed(parts | {"gradients": trained_bytes(model)}, held)


def standing(model: nn.Module, optim: str, reference_resident: bool) -> tuple[dict[str, int], set[str]]:
    """Bytes by part of what stays from step to step, and which of the parts are in memory already."""
    parts = {"weights": sum(p.numel() * p.element_size() for p in model.parameters())}
    if reference_resident:
        parts["reference copy"] = parts["weights"]
    parts["program"] = max(0, in_use(model) - sum(parts.values()))
    held = set(parts)
    if not on_gpu(model):
        parts["loaded later"] = LOADED_LATER
    return parts | {f"optimizer ({optim})": round(state_share(optim) * trained_bytes(model))}, held


def state_share(optim: str) -> float:
    """What an optimizer keeps, as a multiple of the bytes that it trains.

    Example:
        >>> state_share("adamw"), state_share("paged_adamw_8bit")
        (2.0, 0.5)
    """
    numbers = next(count for name, count in OPTIMIZER_STATES.items() if name in optim)
    return numbers / 4 if "8bit" in optim else float(numbers)


def mapped_bytes(model: nn.Module) -> int:
    """Bytes of gradients so large that the C library gives each a mapping of its own."""
    sizes = (p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return sum(size for size in sizes if size >= LARGEST)


def trained_bytes(model: nn.Module) -> int:
    """Bytes of the trainable parameters, and so of their gradients."""
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def listed(parts: dict[str, int], held: set[str]) -> list[dict[str, Any]]:
    """Parts as the manifest holds them; empty ones are left out."""
    return [{"part": name, "bytes": size, "held": name in held} for name, size in parts.items() if size]


def on_gpu(model: nn.Module) -> bool:
    """Whether the model's memory is a CUDA device's."""
    return next(model.parameters()).device.type == "cuda"


def in_use(model: nn.Module) -> int:
    """Bytes that this process holds now, on the model's device."""
    if on_gpu(model):
        return int(torch.cuda.memory_allocated(next(model.parameters()).device))
    import psutil

    return int(psutil.Process().memory_info().rss)


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
    """The forecast in words, and whether what is still missing fits into `free` bytes."""
    total = sum(part["bytes"] for part in parts)
    missing = sum(part["bytes"] for part in parts if not part.get("held"))
    detail = ", ".join(f"{part['part']} {part['bytes'] / 2**30:.2f}" for part in parts)
    fits = missing <= free
    text = (
        f"about {total / 2**30:.2f} GiB needed ({detail}), of which {missing / 2**30:.2f} are not in use yet; "
        f"{free / 2**30:.1f} GiB free"
    )
    if not fits:
        text += (
            "; it may not fit: lower per_device_train_batch_size (or set per_device_train_batch_tokens=auto) or max_length, or set gradient_checkpointing=true "
            "or use_peft=true"
        )
    return text, fits
