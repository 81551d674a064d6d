"""What a checkpoint holds beside the model that is loaded from it: a vision tower, heads that predict several tokens.

Classes of transformers declare such weights as of no account and skip them. A model that is saved without them would have
lost them, so they go along: `write_left_out` copies them from the source.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from prefopt.models.adapters import shapes_of
from prefopt.models.loading_report import INDEX, WEIGHTS, files_of, is_remade
from prefopt.models.sources import file_of


def left_out(source: str, model: Any) -> list[str]:
    """Names of weights in the files of `source` that belong to parts which the loaded model does not have."""
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []
    skipped = [re.compile(pattern) for pattern in patterns]
    if not skipped:
        return []
    modules = {name for name, _ in model.named_modules()}
    names = {name for file in files_of(source) for name in shapes_of(file)}
    found = [name for name in names if any(pattern.search(name) for pattern in skipped)]
    return sorted(name for name in found if not is_remade(name) and not _has_place(name, modules, model))


def _has_place(name: str, modules: set[str], model: nn.Module) -> bool:
    """Whether the model has the module that a tensor would belong to, whatever older files call its parts."""
    parent = name.rpartition(".")[0]
    prefix = getattr(model, "base_model_prefix", "")
    return (
        parent in modules or f"{prefix}.{parent}" in modules or parent.removeprefix(f"{prefix}.") in modules
    )


def write_left_out(folder: Path, source: str, names: Sequence[str]) -> None:
    """Add weights of `source` to a model saved in `folder`, and the files that describe their inputs.

    Args:
        folder: as `save_pretrained` left it.
        source: folder or hub id that the model was loaded from.
        names: of the weights.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted = set(names)
    tensors: dict[str, Any] = {}
    for file in files_of(source):
        with safe_open(file, framework="pt") as opened:
            tensors |= {name: opened.get_tensor(name) for name in opened.keys() if name in wanted}  # noqa: SIM118
    index = folder / INDEX
    if index.exists():
        places = json.loads(index.read_text("utf-8"))["weight_map"]
    else:
        (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
        places = dict.fromkeys(
            shapes_of(folder / "model-00001-of-00002.safetensors"), "model-00001-of-00002.safetensors"
        )
    tensors = {name: tensor for name, tensor in tensors.items() if name not in places}
    last = "model-left-out.safetensors" if index.exists() else "model-00002-of-00002.safetensors"
    save_file(tensors, folder / last, metadata={"format": "pt"})
    places |= dict.fromkeys(tensors, last)
    size = sum((folder / name).stat().st_size for name in set(places.values()))
    values = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    index.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        described = file_of(source, name)
        if described is not None and not (folder / name).exists():
            shutil.copyfile(described, folder / name)
