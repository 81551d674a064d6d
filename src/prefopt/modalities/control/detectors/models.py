"""Models of transformers as detectors: found out by their configuration, loaded when first used, frozen.

Legend: B images, C = 3, H W in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.models.loading_report import load_whole
from prefopt.models.sources import check_source, config_values, refuse_remote_code

BATCH = 16  # images at once; a detector's activations at 512 pixels take about as much as its weights


def place_of(source: str | Path) -> str:
    """A folder or hub id as transformers takes it.

    Raises:
        FileNotFoundError: a folder was meant that is not there, or holds no model.
    """
    check_source(str(source))
    folder = Path(source).expanduser()
    return str(folder) if folder.is_dir() else str(source)


def config_of(place: str, kinds: Collection[str], what: str) -> Any:
    """The configuration of a model of one of the kinds.

    Args:
        place: folder or hub id.
        kinds: model types that will do.
        what: such models are for, for messages.

    Raises:
        ValueError: another kind of model, or one that needs code of its own.
    """
    from transformers import AutoConfig

    values = config_values(place)
    refuse_remote_code(place, values)
    kind = values.get("model_type")
    if values and kind not in kinds:
        named = ", ".join(values.get("architectures") or [str(kind)])
        raise ValueError(
            f"{place} holds a {named}, which is no model for {what}: needed one of the types {', '.join(sorted(kinds))}"
        )
    config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    if config.model_type not in kinds:
        raise ValueError(f"{place} holds a {config.model_type}, which is no model for {what}")
    return config


def frozen(kind: Any, place: str, device: str) -> Any:
    """A model in single precision, without dropout, whose weights take no gradient.

    Raises:
        ValueError, OSError: see `load_whole`.
    """
    model = load_whole(kind, place, dtype=torch.float32, trust_remote_code=False)
    return model.eval().requires_grad_(False).to(device)


def in_pieces(function: Callable[[Tensor], Tensor], images_BCHW: Tensor, device: str) -> Tensor:
    """`function`, a model's on `device`, of some images at a time: without gradients, the results where the images are."""
    with torch.no_grad(), exactly(device):
        return torch.cat(
            [function(images_bCHW).to(images_BCHW.device) for images_bCHW in images_BCHW.split(BATCH)]
        )


def exactly(device: str) -> torch.autocast:
    """Within it, nothing is computed in half precision on a device, whatever surrounds it."""
    return torch.autocast(torch.device(device).type, enabled=False)
