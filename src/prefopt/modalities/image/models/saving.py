"""Write what was trained of a pipeline so that plain diffusers reads it: a LoRA, or a whole pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from prefopt.modalities.image.models.pipelines import NETWORK, LoadedPipeline, component_classes
from prefopt.models.networks import scaled_lora, write_network


def write_trained(
    folder: Path, loaded: LoadedPipeline, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Write what was trained so that plain diffusers reads it.

    Adapters become `pytorch_lora_weights.safetensors` for `pipe.load_lora_weights(folder)`. Their scale alpha / r is
    multiplied into the weights: many programs take it for 1, whatever the metadata say. A network becomes a whole
    pipeline for `DiffusionPipeline.from_pretrained(folder)`, whose other parts are copied from the source unchanged.

    Args:
        folder: made if need be.
        loaded: the pipeline.
        state_dict: of the whole network, where its parameters are sharded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if loaded.adapter is None:
        name = NETWORK[loaded.family]
        write_network(folder / name, loaded.denoiser, state_dict)
        copy_components(folder, loaded, but=name)
    else:
        _write_lora(folder, loaded, state_dict)


def _write_lora(folder: Path, loaded: LoadedPipeline, state_dict: Mapping[str, Tensor] | None) -> None:
    from diffusers.utils import convert_state_dict_to_diffusers

    state = scaled_lora(loaded.denoiser, state_dict)
    if loaded.family != "sd3":
        state = convert_state_dict_to_diffusers(state)
    loaded.pipe.save_lora_weights(
        folder, **{f"{NETWORK[loaded.family]}_lora_layers": state}, safe_serialization=True
    )


def copy_components(folder: Path, loaded: LoadedPipeline, but: str) -> None:
    """All components but one, as the source has them, which keeps their dtype and needs no memory."""
    index = json.loads((loaded.folder / "model_index.json").read_text("utf-8"))
    # other formats can run code, other variants were not loaded
    left_out = shutil.ignore_patterns(
        "*.bin",
        "*.pt",
        "*.ckpt",
        "*.pkl",
        "*.msgpack",
        "*.h5",
        "*.onnx*",
        "*.py",
        "*.fp16*",
        "*.bf16*",
        "*.non_ema*",
    )
    for name in component_classes(loaded.folder):
        source = loaded.folder / name
        if name == but:
            continue
        if name == "safety_checker" and not any(source.glob("*.safetensors")):
            index[name] = [None, None]  # only as a pickle; everything else was loaded from safetensors
            continue
        shutil.copytree(source, folder / name, ignore=left_out)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
