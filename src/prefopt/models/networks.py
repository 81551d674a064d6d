"""Adapters on a network of diffusers, and its weights in a folder: the same for images and motions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefopt.models.adapters import kept_flags
from prefopt.models.peft_settings import LoraSettings, peft_config

ADAPTER = "default"
"""Name of the trained adapter."""


def add_network_lora(network: nn.Module, lora: LoraSettings, targets: Sequence[str]) -> str:
    """Add fresh float32 adapters, the only trainable weights from then on; returns their name. They change nothing yet.

    Args:
        network: of diffusers.
        lora: settings.
        targets: layers that adapters are put on where the settings name none.

    Raises:
        ValueError: LoRA dropout, or a network with no layers of the asked names.
    """
    if lora.dropout:
        raise ValueError(
            f"lora_dropout={lora.dropout:g} is not possible for models that denoise: winner and loser must be scored by the "
            "same network, and steps must repeat. Set lora_dropout=0"
        )
    settings = replace(lora, fields={"init_lora_weights": "gaussian", **lora.fields})
    config = peft_config(settings, list(targets) if lora.target_modules is None else lora.target_modules)
    adapters: Any = network
    adapters.requires_grad_(False)
    adapters.add_adapter(config, adapter_name=ADAPTER)
    for parameter in adapter_parameters(network, ADAPTER).values():
        parameter.data = parameter.data.float()  # half precision rounds small updates away
        parameter.requires_grad_(True)
    return ADAPTER


def adapter_parameters(network: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """Parameters of one adapter, by names without the adapter's."""
    part = f".{name}."
    return {k.replace(part, ".", 1): p for k, p in network.named_parameters() if ".lora_" in k and part in k}


@contextlib.contextmanager
def adapters_off(network: nn.Module) -> Iterator[None]:
    """While open, run without adapters; afterwards as before, whatever happened inside.

    Which parameters are trainable stays as it is throughout.

    Raises:
        ValueError: the network has no adapters.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    if not layers:
        raise ValueError("the network has no adapters to switch off: add them with add_lora first")
    before = [layer.disable_adapters for layer in layers]
    try:
        with kept_flags(network):
            for layer in layers:
                layer.enable_adapters(False)
        yield
    finally:
        with kept_flags(network):
            for layer, disabled in zip(layers, before, strict=True):
                layer.enable_adapters(not disabled)


def scaled_lora(network: Any, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A network's adapters on the CPU, their scale (alpha / r, or what rsLoRA and patterns make of it) multiplied into them.

    Args:
        network: of diffusers, with adapters.
        state_dict: of the network, where its parameters are sharded.
    """
    from peft import get_peft_model_state_dict

    scales = {
        name: float(layer.scaling[ADAPTER])
        for name, layer in network.named_modules()
        if ADAPTER in (getattr(layer, "scaling", None) or {})
    }
    state = get_peft_model_state_dict(network, state_dict=state_dict, adapter_name=ADAPTER)
    scaled = {k: v * scales[k.partition(".lora_B.")[0]] if ".lora_B." in k else v for k, v in state.items()}
    return {k: v.detach().cpu().contiguous() for k, v in scaled.items()}


def merge_lora(network: Any) -> None:
    """Add a network's adapters to its weights, in place, and take them off.

    Raises:
        ValueError: the merged weights are not finite.
    """
    network.fuse_lora(safe_fusing=True)
    network.unload_lora()


def write_network(folder: Path, network: Any, state_dict: Mapping[str, Tensor] | None) -> None:
    """One network as diffusers saves it, of whole weights where they are given."""
    if state_dict is not None:
        with torch.device("meta"):
            network = type(network).from_config(network.config)
        network.load_state_dict(state_dict, assign=True)
    network.save_pretrained(folder, safe_serialization=True)
