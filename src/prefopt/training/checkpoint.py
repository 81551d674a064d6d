"""Checkpoints that are there whole or not at all, and hold only tensors and plain JSON.

A checkpoint is written into a hidden folder, flushed to disk, and renamed; `state.json` carries the size and hash of
every other file, so a damaged one is recognised and passed over. Data order and learning rate are functions of the
step number, so nothing else needs saving for an exact resume.

    checkpoints/step-00000120/  weights.safetensors  optimizer.safetensors  objective.safetensors
                              feed.safetensors  state.json; of a reference that moves also reference.safetensors
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.files import WriteError, replace_folder


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or used; the message says why and what to do."""


def whole(tensor: Tensor) -> Tensor:
    """The full value of a possibly sharded tensor, on the host; every process must take part."""
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.cpu().contiguous()


def copy_into(target: Tensor, value: Tensor) -> None:
    """Overwrite `target`, sharded or not, with a full value."""
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        sharded: Any = target
        value = distribute_tensor(value.to(target.device), sharded.device_mesh, sharded.placements)
    with torch.no_grad():
        target.copy_(value)


def clean_name(name: str) -> str:
    """A parameter's name without what wrappers add."""
    return name.removeprefix("module.").replace("_orig_mod.", "").replace("_checkpoint_wrapped_module.", "")


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by clean name, each once (tied weights are one parameter)."""
    return {clean_name(name): p for name, p in model.named_parameters() if p.requires_grad}


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Any,
    objective_state: Mapping[str, Tensor],
    feed_state: Mapping[str, Tensor],
    extra: Mapping[str, Any],
    *,
    main: bool,
    keep: int,
    reference: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the checkpoint of a step; called by every process, written by the main one.

    Args:
        folder: of all checkpoints.
        step: steps taken.
        model: its trained parameters are saved.
        optimizer: of these.
        objective_state: running statistics.
        feed_state: of the feed.
        extra: for state.json.
        main: whether this process writes.
        keep: how many checkpoints stay.
        reference: weights of a reference that moves.

    Raises:
        CheckpointError: the disk is full or not writable; older checkpoints are untouched.
    """
    from safetensors.torch import save_file

    parameters = trained(model)
    weights = {name: whole(p) for name, p in parameters.items()}
    states: dict[str, Tensor] = {}
    seen: set[int] = set()
    numbers: dict[
        str, float | None
    ] = {}  # some optimizers count in plain numbers, and are to find them again
    for name, p in parameters.items():
        for key, value in optimizer.state.get(p, {}).items():
            if torch.is_tensor(value):
                held = whole(value)
                # bitsandbytes has one table of eight-bit values for all, and safetensors takes no tensor twice
                states[f"{name}/{key}"] = held.clone() if held.data_ptr() in seen else held
                seen.add(held.data_ptr())
            else:
                numbers[f"{name}/{key}"] = value
    final = folder / f"step-{step:08d}"
    if not main:
        return final

    def fill(partial: Path) -> None:
        partial.mkdir()
        files = {
            "weights.safetensors": weights,
            "optimizer.safetensors": states,
            "objective.safetensors": {k: v.detach().cpu().contiguous() for k, v in objective_state.items()},
            "feed.safetensors": {k: whole(v) for k, v in feed_state.items()},
        } | ({"reference.safetensors": dict(reference)} if reference else {})
        for name, tensors in files.items():
            save_file(tensors, partial / name)
        digests = {name: _digest(partial / name) for name in files}
        (partial / "state.json").write_text(
            json.dumps({"step": step, **extra, "numbers": numbers, "files": digests}, indent=1)
        )

    try:
        replace_folder(final, fill, f"the checkpoint of step {step}")
    except WriteError as error:
        raise CheckpointError(str(error)) from error
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as f:
        return {"size": path.stat().st_size, "blake2b": hashlib.file_digest(f, "blake2b").hexdigest()}


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The state of an intact checkpoint.

    Raises:
        CheckpointError: a file is missing or not as it was written.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text())
        bad = [name for name, digest in state["files"].items() if _digest(checkpoint / name) != digest]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint} is not a complete checkpoint ({error})") from error
    if bad:
        raise CheckpointError(f"{checkpoint} is damaged: {', '.join(bad)} is not as it was written")
    return state


def newest(folder: Path) -> Path | None:
    """The newest intact checkpoint of a run; damaged ones are passed over."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            read_state(path)
        except CheckpointError:
            continue
        return path
    return None


def restored(value: Any, p: nn.Parameter) -> Any:
    """A field of an optimizer's state as it was beside its parameter: sharded as that is, or of a shape of its own."""
    if not torch.is_tensor(value) or value.dim() == 0:
        return value  # step counters stay on the host, where the optimizer keeps them
    if value.shape != p.shape:  # factors of moments, eight-bit scales
        return value.to(p.device)
    field = torch.zeros_like(p, dtype=value.dtype, requires_grad=False)
    copy_into(field, value)
    return field


def reference_of(checkpoint: Path) -> dict[str, Tensor]:
    """Weights of the reference, where it moves.

    Raises:
        CheckpointError: there are none: it did not move in that run.
    """
    from safetensors.torch import load_file

    file = checkpoint / "reference.safetensors"
    if not file.exists():
        raise CheckpointError(
            f"{checkpoint} belongs to a run with a reference that stays: leave out sync_reference, or start over"
        )
    return load_file(file)


def load(
    checkpoint: Path, model: nn.Module, optimizer: Any
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Put weights and optimizer state back; returns the saved state, the objective's and the feed's.

    Raises:
        CheckpointError: damaged, or of a model with other parameters.
    """
    from safetensors.torch import load_file

    state = read_state(checkpoint)
    parameters = trained(model)
    weights = load_file(checkpoint / "weights.safetensors")
    if weights.keys() != parameters.keys() or any(weights[n].shape != p.shape for n, p in parameters.items()):
        odd = sorted(weights.keys() ^ parameters.keys())[:4]
        raise CheckpointError(
            f"{checkpoint} holds other trainable parameters than this model ({', '.join(odd) or 'shapes differ'}). "
            "Resume with the model and adapter settings that the run began with (see its config.yaml)"
        )
    by_name: dict[str, dict[str, Any]] = {}
    states = load_file(checkpoint / "optimizer.safetensors")
    for key, value in {**states, **state.get("numbers", {})}.items():
        name, _, field = key.rpartition("/")
        by_name.setdefault(name, {})[field] = value
    for name, p in parameters.items():
        copy_into(p, weights[name])
        if name not in by_name:
            continue
        optimizer.state[p] = {field: restored(value, p) for field, value in by_name[name].items()}
    return state, *(load_file(checkpoint / f"{name}.safetensors") for name in ("objective", "feed"))
