"""A ControlNet pipeline with a run's adapters merged, for plain diffusers.

Legend: B batch, C H W of the latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefopt.modalities.control.models import LoadedControl, denoise_controlled, load_control, write_control
from prefopt.modalities.image import LORA_FILE
from prefopt.modalities.image.merge import TIMESTEPS, check_lora, some_inputs
from prefopt.modalities.image.models.pipelines import NETWORK, stored_dtype
from prefopt.modalities.merging import Merged, check_same, difference
from prefopt.modalities.models import folder_of
from prefopt.models.loading import resolve_dtype
from prefopt.models.networks import merge_lora

COMPARED = "what base and ControlNet give for noise at three timesteps"


def merge(adapter: Path, folder: Path, dtype: str | None, run: Mapping[str, Any]) -> Merged:
    """Merge; see `prefopt.modalities.merging`."""
    check_lora(adapter)
    base = folder_of(str(run["model"]))
    loaded = load_control(base, controlnet=run.get("controlnet"), dtype="float32", trainable=False)
    kind: Any = resolve_dtype(dtype) if dtype else stored_dtype(loaded.folder / NETWORK[loaded.family])
    net = loaded.pipe.controlnet
    net.load_lora_adapter(adapter, weight_name=LORA_FILE, prefix=None)
    before = some_outputs(loaded)
    merge_lora(net)
    worst = check_same(before, some_outputs(loaded), COMPARED)
    net.to(kind)
    write_control(folder, loaded)
    again = load_control(str(folder), dtype="float32", trainable=False)
    stored = difference(before, some_outputs(again))
    return Merged(folder, base, str(kind).removeprefix("torch."), COMPARED, worst, stored)


@torch.no_grad()
def some_outputs(loaded: LoadedControl) -> Tensor:
    """(B, C, H, W) what the two networks give for fixed noise, prompts and control images."""
    x_BCHW, told = some_inputs(loaded.family, loaded.pipe.unet.config)
    shape = (len(TIMESTEPS), 3, *(int(loaded.pipe.vae_scale_factor) * n for n in x_BCHW.shape[2:]))
    told["control"] = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    output = denoise_controlled(loaded.family, loaded.denoiser, x_BCHW, torch.tensor(TIMESTEPS), told)
    return output.float()
