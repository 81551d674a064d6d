"""A text-to-motion pipeline to train: its denoiser, or adapters on it, and writing what was trained.

Legend: B motions, F frames, D features.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.models.dropout import disable_dropout
from prefopt.models.loading import resolve_dtype
from prefopt.models.networks import adapters_off, add_network_lora, scaled_lora, write_network
from prefopt.models.peft_settings import LoraSettings

INDEX = "model_index.json"
CLASS = "MotionPipeline"
DENOISER = "denoiser"
ATTENTION = ("to_q", "to_k", "to_v", "to_out")


@dataclass
class LoadedMotion:
    """A text-to-motion pipeline with its network ready to train.

    Attributes:
        pipe: a `prefopt.motion.pipeline.MotionPipeline`.
        source: folder as given.
        folder: the files it was loaded from.
        adapter: name of the trained adapter, None under full fine-tuning.
    """

    pipe: Any
    source: str
    folder: Path
    adapter: str | None = None

    @property
    def model(self) -> nn.Module:
        """The trained network."""
        network: nn.Module = self.pipe.denoiser
        return network

    def as_reference(self) -> contextlib.AbstractContextManager[None]:
        """While open, the network works as before training: without its adapter.

        Raises:
            ValueError: it has none.
        """
        if self.adapter is None:
            raise ValueError(
                f"{self.source} is trained without adapters: load a frozen copy as the reference"
            )
        return adapters_off(self.model)


def index_of(source: str) -> dict[str, Any]:
    """What a folder says that it holds; empty where it is no pipeline's."""
    try:
        found = json.loads((Path(source).expanduser() / INDEX).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_motion_folder(source: str) -> bool:
    """Whether a folder holds a text-to-motion pipeline."""
    return index_of(source).get("_class_name") == CLASS


def facts_of(source: str) -> dict[str, Any]:
    """What is known of a pipeline from its small files: codec, fps, width, max_frames, unit_length, mask_padding.

    Raises:
        FileNotFoundError: there is no pipeline.
        ValueError: a part of it cannot be read.
    """
    folder = Path(source).expanduser()
    index = index_of(source)
    if index.get("_class_name") != CLASS:
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) if folder.is_dir() else "no folder"
        raise FileNotFoundError(
            f"{source} holds no text-to-motion pipeline: needed {INDEX} of a {CLASS}, as save_pretrained writes it; found {there}. "
            "Checkpoints of MDM are converted by `prefopt build motion-model`"
        )
    parts = {}
    for name in ("stats", DENOISER):
        try:
            parts[name] = json.loads((folder / name / "config.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{folder / name}/config.json cannot be read ({error}): save the pipeline again"
            ) from error
    network = parts[DENOISER]
    return {
        "codec": parts["stats"]["codec"],
        "fps": float(parts["stats"]["fps"]),
        "width": int(network["features"]),
        "max_frames": int(network["max_frames"]),
        "mask_padding": bool(network["mask_padding"]),
        "unit_length": int(index.get("unit_length", 4)),
    }


def load_motion_model(
    source: str, *, dtype: str = "auto", lora: LoraSettings | None = None, trainable: bool = True
) -> LoadedMotion:
    """Load a pipeline; everything is frozen but its denoiser, or the denoiser's adapters.

    Args:
        source: folder saved by `save_pretrained`.
        dtype: of the denoiser: "auto" for float32, or a dtype's name.
        lora: train new adapters instead of the weights.
        trainable: False freezes everything (references).

    Raises:
        FileNotFoundError, ValueError: no pipeline, or one that cannot be read.
        OSError: weights that are not safetensors.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers import logging as transformers_logging

    from prefopt.motion.pipeline import MotionPipeline

    facts_of(source)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    folder = Path(source).expanduser()
    pipe = MotionPipeline.from_pretrained(folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.denoiser, pipe.text_encoder, pipe.stats):
        part.requires_grad_(False).eval()
    kind = resolve_dtype(dtype)
    if isinstance(kind, torch.dtype) and kind != pipe.denoiser.dtype:
        pipe.denoiser.to(kind)
    loaded = LoadedMotion(pipe, source, folder)
    network = loaded.model
    disable_dropout(network)
    network.requires_grad_(trainable and lora is None)
    if lora is not None and trainable:
        loaded.adapter = add_network_lora(network, lora, ATTENTION)
    network.eval()
    return loaded


def denoise_motion(
    network: nn.Module, x_BFD: Tensor, t_B: Tensor, conditions: Mapping[str, Tensor]
) -> Tensor:
    """(B, F, D) what the network gives for noised z-scores; a `likelihoods.denoising.Network`."""
    parameter = next(network.parameters())
    device, dtype = parameter.device, parameter.dtype
    out: Tensor = network(
        x_BFD.to(device, dtype),
        t_B.to(device),
        conditions["text"].to(device, dtype),
        conditions["length"].to(device),
    )
    return out


def write_trained(folder: Path, loaded: LoadedMotion, state: Mapping[str, Tensor] | None = None) -> None:
    """Write what was trained: a whole pipeline, or the denoiser's adapters, their scale multiplied into them.

    Args:
        folder: made if need be.
        loaded: the pipeline.
        state: of the whole denoiser, where its parameters are sharded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if loaded.adapter is not None:
        from safetensors.torch import save_file

        from prefopt.motion.lora import LORA_FILE

        save_file(scaled_lora(loaded.model, state), folder / LORA_FILE)
        return
    write_network(folder / DENOISER, loaded.model, state)
    for name, entry in index_of(str(loaded.folder)).items():
        if isinstance(entry, list) and name != DENOISER:
            left_out = shutil.ignore_patterns("*.bin", "*.pt", "*.ckpt", "*.pkl", "*.py")
            shutil.copytree(loaded.folder / name, folder / name, ignore=left_out)
    shutil.copy2(loaded.folder / INDEX, folder / INDEX)
