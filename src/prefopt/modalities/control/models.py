"""ControlNet pipelines: loaded with the base network frozen and the ControlNet ready to train, called as one network, saved.

    family   base network             control network
    sd       UNet2DConditionModel     ControlNetModel
    sdxl     UNet2DConditionModel     ControlNetModel

Legend: B batch, C H W of the latents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from prefopt.modalities.control.beside import CONTROL, NEW, put_beside
from prefopt.modalities.control.network import ControlledNetwork, States
from prefopt.modalities.image import LORA_FILE
from prefopt.modalities.image.models.denoiser import (
    Conditions,
    Family,
    add_lora,
    check_conditions,
    unet_arguments,
)
from prefopt.modalities.image.models.pipelines import (
    NETWORK,
    LoadedPipeline,
    is_pipeline,
    open_pipeline,
    quiet,
)
from prefopt.modalities.image.models.saving import copy_components
from prefopt.models.loading import LoraSettings, disable_dropout
from prefopt.models.networks import scaled_lora, write_network

FAMILIES: dict[str, Family] = {
    "StableDiffusionControlNetPipeline": "sd",
    "StableDiffusionXLControlNetPipeline": "sdxl",
}
BASES: dict[str, Family] = {"StableDiffusionPipeline": "sd", "StableDiffusionXLPipeline": "sdxl"}
"""Pipelines that a ControlNet can be put beside."""


@dataclass
class LoadedControl(LoadedPipeline):
    """A ControlNet pipeline with its ControlNet ready to train."""

    @property
    def denoiser(self) -> ControlledNetwork:
        """Base network and ControlNet as one."""
        return self._network

    def __post_init__(self) -> None:
        self._join()

    def _join(self) -> None:
        self._network = ControlledNetwork(getattr(self.pipe, NETWORK[self.family]), self.pipe.controlnet)

    def share_base(self, other: LoadedControl) -> None:
        """Take the other's base network in place of an own copy: it is frozen in both."""
        setattr(self.pipe, NETWORK[self.family], getattr(other.pipe, NETWORK[other.family]))
        self._join()
        self.denoiser.plain_because = other.denoiser.plain_because


def is_control_pipeline(source: str) -> bool:
    """Whether a folder or hub id holds a pipeline with a ControlNet; reads its index only."""
    from diffusers import DiffusionPipeline

    if not is_pipeline(source):
        return False
    folder = Path(source).expanduser()
    with quiet():
        index = DiffusionPipeline.load_config(str(folder) if folder.is_dir() else source)
    return CONTROL in index


def families(controlnet: str | None) -> dict[str, Family]:
    """Pipelines that can be trained, with a ControlNet beside them or with their own."""
    return FAMILIES if controlnet is None else FAMILIES | BASES


def load_control(
    source: str,
    *,
    controlnet: str | None = None,
    seed: int = 0,
    dtype: str = "auto",
    lora: LoraSettings | None = None,
    trainable: bool = True,
) -> LoadedControl:
    """Load a ControlNet pipeline; everything is frozen but its ControlNet, or the ControlNet's adapters.

    Args:
        source: folder saved by `save_pretrained`, or a hub id.
        controlnet: in place of the pipeline's own: folder or hub id of a ControlNet, or "new"; see `beside.put_beside`.
        seed: of a new one.
        dtype: of both networks and the text encoders: "auto" for that of the base network's file, or a dtype's name.
        lora: train new adapters of the ControlNet instead of its weights; they are float32.
        trainable: False freezes everything (references).

    Raises:
        FileNotFoundError, ValueError: no such pipeline, or one that cannot be trained here.
        OSError: weights that are not safetensors.
    """
    from diffusers import ControlNetModel

    if controlnet == NEW and lora is not None:
        raise ValueError(
            "controlnet=new and use_peft=true exclude each other: adapters would be saved without the network that they "
            "belong to. Train a new ControlNet whole"
        )
    pipe, family, folder, kind = open_pipeline(source, dtype, families(controlnet))
    if controlnet is not None:
        pipe = put_beside(pipe, family, controlnet, seed)
    if not isinstance(pipe.controlnet, ControlNetModel):
        raise ValueError(
            f"{source} has several ControlNets or one of another class ({type(pipe.controlnet).__name__}): save a pipeline "
            "with one ControlNetModel"
        )
    loaded = LoadedControl(pipe, family, source, folder, _dtype=kind)
    disable_dropout(loaded.denoiser)
    loaded.denoiser.requires_grad_(False)
    if lora is not None and trainable:
        loaded.adapter = add_lora(family, pipe.controlnet, lora)
    else:
        pipe.controlnet.requires_grad_(trainable)
    loaded.denoiser.eval()
    return loaded


def denoise_controlled(
    family: Family,
    network: nn.Module,
    x_BCHW: Tensor,
    t_B: Tensor,
    conditions: Conditions | Mapping[str, Tensor],
    states: States | None = None,
) -> Tensor:
    """The network's output under prompts and control images, B C H W; see `image.models.denoiser.denoise`.

    Args:
        family: of the base network.
        network: a `ControlledNetwork`, possibly wrapped for several devices.
        x_BCHW: noisy latents.
        t_B: timesteps.
        conditions: B rows, with `control`.
        states: which rows differ in their control images alone.

    Raises:
        ValueError: a condition is missing, or has another number of rows.
    """
    given = conditions.tensors if isinstance(conditions, Conditions) else conditions
    check_conditions(family, given, len(x_BCHW))
    if "control" not in given or len(given["control"]) != len(x_BCHW):
        raise ValueError(
            f"{len(x_BCHW)} latents need as many control images; given {len(given.get('control', ()))}"
        )
    parameter = next(network.parameters())
    device, dtype = parameter.device, parameter.dtype
    output: Tensor = network(
        x_BCHW.to(device, dtype),
        t_B.to(device).expand(len(x_BCHW)),
        **unet_arguments(family, given, device, dtype),
        control=given["control"].to(device, dtype),
        # the halves call parts of the base network, and what is sharded is gathered for whole modules
        states=None if isinstance(parameter, DTensor) else states,
    )
    return output


def write_control(
    folder: Path, loaded: LoadedControl, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Write what was trained so that plain diffusers reads it.

    A ControlNet becomes a whole pipeline for `DiffusionPipeline.from_pretrained(folder)`, whose other parts are copied from the
    source unchanged. Adapters become a file for `pipe.controlnet.load_lora_adapter(folder, prefix=None)`; their scale is
    multiplied into the weights.

    Args:
        folder: made if need be.
        loaded: the pipeline.
        state_dict: of the whole network, where its parameters are sharded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = None
    if state_dict is not None:
        own = {k.removeprefix(f"{CONTROL}."): v for k, v in state_dict.items() if k.startswith(f"{CONTROL}.")}
    if loaded.adapter is None:
        write_network(folder / CONTROL, loaded.pipe.controlnet, own)
        copy_components(folder, loaded, but=CONTROL)
        name_control(folder, type(loaded.pipe).__name__)
        return
    from safetensors.torch import save_file

    save_file(scaled_lora(loaded.pipe.controlnet, own), folder / LORA_FILE)


def name_control(folder: Path, pipeline: str) -> None:
    """Say in a pipeline's index that it has a ControlNet: a base pipeline's does not."""
    path = folder / "model_index.json"
    index = json.loads(path.read_text("utf-8"))
    index |= {"_class_name": pipeline, CONTROL: ["diffusers", "ControlNetModel"]}
    path.write_text(json.dumps(index, indent=2) + "\n", "utf-8")
