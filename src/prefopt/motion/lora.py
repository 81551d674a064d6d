"""Adapters of a denoiser in a file, on the pipeline that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LORA_FILE = "motion_lora_weights.safetensors"
"""What the file is called; the adapters' scale is multiplied into its weights."""


def load_lora(pipe: Any, folder: str | Path) -> None:
    """Put the adapters of a folder on a pipeline's denoiser, frozen.

    Args:
        pipe: a `MotionPipeline`.
        folder: that holds `LORA_FILE`.

    Raises:
        FileNotFoundError: it does not.
        ValueError: adapters for layers that the denoiser lacks.

    Example:
        >>> pipe = MotionPipeline.from_pretrained("base")  # doctest: +SKIP
        >>> load_lora(pipe, "run/model")                   # doctest: +SKIP
    """
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file

    file = Path(folder) / LORA_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no adapters of a motion model: needed {LORA_FILE}")
    state = load_file(file)
    ranks = {name: len(value) for name, value in state.items() if ".lora_A." in name}
    targets = sorted({name.split(".lora_")[0] for name in state})
    network = pipe.denoiser
    lacking = [name for name in targets if name not in dict(network.named_modules())]
    if lacking:
        raise ValueError(
            f"{file} has adapters for {', '.join(lacking[:3])}, which this denoiser lacks: give the pipeline that they were trained on"
        )
    # the scale is in the weights, so that alpha is r here
    rank = max(ranks.values())
    dora = any(".lora_magnitude_vector" in name for name in state)
    network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, use_dora=dora))
    set_peft_model_state_dict(network, state)
    network.requires_grad_(False).eval()
