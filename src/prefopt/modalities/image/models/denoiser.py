"""One interface to the networks of Stable Diffusion, SDXL and Stable Diffusion 3, and adapters on them.

    family   network                  conditions
    sd       UNet2DConditionModel     prompt_embeds
    sdxl     UNet2DConditionModel     prompt_embeds, pooled_prompt_embeds, time_ids (sizes, see `Conditions.with_sizes`)
    sd3      SD3Transformer2DModel    prompt_embeds, pooled_prompt_embeds

Names of conditions are those of the pipelines' arguments. `functools.partial(denoise, family)` is a function of
(network, x_t, timestep, conditions).

Legend: B batch, N prompts, C H W of the latents, S tokens, D width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prefopt.models.networks import add_network_lora
from prefopt.models.peft_settings import LoraSettings

Family = Literal["sd", "sdxl", "sd3"]

NEEDED: dict[Family, tuple[str, ...]] = {
    "sd": ("prompt_embeds",),
    "sdxl": ("prompt_embeds", "pooled_prompt_embeds", "time_ids"),
    "sd3": ("prompt_embeds", "pooled_prompt_embeds"),
}
"""Conditions that a family's network is given."""

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LORA_TARGETS: dict[Family, list[str]] = {
    "sd": ATTENTION,
    "sdxl": ATTENTION,
    # image and text stream of every joint attention, as in diffusers' SD3 LoRA script
    "sd3": [f"attn.{name}" for name in (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")],
}


@dataclass(frozen=True)
class Conditions:
    """What the network is told of N prompts.

    Attributes:
        tensors: by name, N rows each: prompt_embeds (N, S, D), pooled_prompt_embeds (N, D'), time_ids (N, 6).

    Example:
        >>> two = Conditions({"prompt_embeds": torch.zeros(2, 77, 768)})
        >>> again = Conditions.cat([two, two])[[0, 3, 3]]
        >>> len(again)
        3
    """

    tensors: dict[str, Tensor]

    def __post_init__(self) -> None:
        rows = {name: len(value) for name, value in self.tensors.items()}
        if len(set(rows.values())) != 1:
            raise ValueError(
                f"conditions need the same number of rows in each tensor; given {rows or 'none'}"
            )

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: Sequence[int] | slice | Tensor) -> Conditions:
        """Rows by a slice, a list of numbers or a tensor of indices or booleans; always N' rows, never one row's parts."""
        if isinstance(rows, int):
            raise TypeError(
                f"index conditions by a list, [{rows}]: a single number would drop the batch axis"
            )
        index = rows if isinstance(rows, slice | Tensor) else torch.as_tensor(list(rows), dtype=torch.long)
        return Conditions({name: value[index] for name, value in self.tensors.items()})

    @classmethod
    def cat(cls, parts: Sequence[Conditions]) -> Conditions:
        """All rows of several conditions, in order."""
        names = [tuple(sorted(part.tensors)) for part in parts]
        if len(set(names)) != 1:
            raise ValueError(f"only conditions of the same names can be joined; given {names}")
        return cls({name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Conditions:
        """Moved, and embeddings cast; sizes stay as they are, since half precision rounds 1023 to 1024."""
        return Conditions(
            {k: v.to(device, None if k == "time_ids" else dtype) for k, v in self.tensors.items()}
        )

    def with_sizes(self, sizes: Sequence[Sequence[int]]) -> Conditions:
        """With SDXL's size conditions, one row a prompt, or one row for all.

        Args:
            sizes: original height and width, crop top and left, target height and width, in pixels (SDXL, arXiv
                2307.01952, section 2.2).
        """
        ids = torch.tensor([list(row) for row in sizes], dtype=torch.float32)
        if ids.dim() != 2 or ids.shape[1] != 6 or len(ids) not in (1, len(self)):
            raise ValueError(
                f"sizes must be (original height, original width, crop top, crop left, target height, target width), 1 "
                f"or {len(self)} rows of 6; given shape {tuple(ids.shape)}"
            )
        device = next(iter(self.tensors.values())).device
        return Conditions(self.tensors | {"time_ids": ids.expand(len(self), 6).to(device)})

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        from safetensors.torch import save_file

        save_file({name: value.cpu().contiguous() for name, value in self.tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Conditions:
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        return cls(load_file(path))


def denoise(
    family: Family,
    denoiser: nn.Module,
    x_BCHW: Tensor,
    t_B: Tensor,
    conditions: Conditions | Mapping[str, Tensor],
) -> Tensor:
    """The network's output (noise, velocity, x_0 or flow, whatever it was trained for), B C H W.

    Args:
        family: of the network.
        denoiser: U-Net or transformer, possibly wrapped for several devices.
        x_BCHW: noisy latents on the scale of training, so without a scheduler's `scale_model_input`.
        t_B: timestep as the network takes it: 0..T-1, for sd3 sigma * T. One number, or one an example.
        conditions: B rows; see `NEEDED`.

    Raises:
        ValueError: a condition is missing, or has another number of rows.
    """
    given = conditions.tensors if isinstance(conditions, Conditions) else conditions
    check_conditions(family, given, len(x_BCHW))
    parameter = next(denoiser.parameters())
    device, dtype = parameter.device, parameter.dtype
    x_BCHW, t_B = x_BCHW.to(device, dtype), t_B.to(device).expand(len(x_BCHW))
    if family == "sd3":
        return denoiser(
            hidden_states=x_BCHW,
            timestep=t_B,
            encoder_hidden_states=given["prompt_embeds"].to(device, dtype),
            pooled_projections=given["pooled_prompt_embeds"].to(device, dtype),
            return_dict=False,
        )[0]
    return denoiser(x_BCHW, t_B, **unet_arguments(family, given, device, dtype), return_dict=False)[0]


def unet_arguments(
    family: Family, given: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Prompts and sizes under the names that a U-Net's `forward` has for them."""
    added = None
    if family == "sdxl":
        added = {
            "text_embeds": given["pooled_prompt_embeds"].to(device, dtype),
            "time_ids": given["time_ids"].to(device),
        }
    return {
        "encoder_hidden_states": given["prompt_embeds"].to(device, dtype),
        "added_cond_kwargs": added,
    }


def check_conditions(family: Family, given: Mapping[str, Tensor], rows: int) -> None:
    """Raise ValueError unless `given` holds what the family's network needs, `rows` rows each."""
    if missing := [name for name in NEEDED[family] if name not in given]:
        hint = "; add them with Conditions.with_sizes" if "time_ids" in missing else ""
        raise ValueError(
            f"a network of family {family} needs the conditions {', '.join(NEEDED[family])}; given "
            f"{', '.join(given) or 'none'}{hint}"
        )
    if wrong := {name: len(given[name]) for name in NEEDED[family] if len(given[name]) != rows}:
        raise ValueError(f"{rows} latents need {rows} rows of conditions; given {wrong}")


def add_lora(family: Family, denoiser: nn.Module, lora: LoraSettings) -> str:
    """Add adapters to a network's attention; see `prefopt.models.networks.add_network_lora`."""
    return add_network_lora(denoiser, lora, LORA_TARGETS[family])
