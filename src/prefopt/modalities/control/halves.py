"""A frozen U-Net in two halves: what comes before a ControlNet's residuals, and what comes after.

    first     time and size embeddings, conv_in, down blocks, mid block     sees x_t, timestep, prompt
    second    up blocks, norm, conv_out                                     sees the residuals too

A ControlNet adds to the skip connections and to what leaves the mid block. So the first half is the same under every control
image, and needs no gradient. Both halves are the steps of `diffusers.UNet2DConditionModel.forward` (0.42), made of the
network's own parts; that method is their judge.

Legend: N items, M states (distinct x_t, timestep and prompt), C H W of a feature map, E width of the time embedding, S D of a
prompt's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SIZES = (None, "text", "text_time")
"""Kinds of embeddings beside the timestep's that come from a prompt and its sizes alone."""


class Features(NamedTuple):
    """What the first half makes of M states."""

    time_ME: Tensor
    prompt_MSD: Tensor
    skips_MCHW: tuple[Tensor, ...]
    mid_MCHW: Tensor


def obstacle(base: nn.Module) -> str | None:
    """What a network has that the halves would leave out, in words; None where they leave out nothing."""
    from diffusers import UNet2DConditionModel

    if type(base) is not UNet2DConditionModel:
        return f"it is a {type(base).__name__}"
    if base._forward_hooks or base._forward_pre_hooks or "forward" in vars(base):
        return "something is hooked to its forward pass"
    if any(parameter.requires_grad for parameter in base.parameters()):
        return "it is not frozen"
    if base.class_embedding is not None:
        return "it takes class labels"
    if base.encoder_hid_proj is not None:
        return "it projects prompts or images (an IP-Adapter, or a network that is not conditioned on text alone)"
    if base.config.addition_embed_type not in SIZES:
        return f"its addition_embed_type is {base.config.addition_embed_type}"
    if base.config.center_input_sample:
        return "it centers its input"
    return None


@torch.no_grad()
def first_half(
    base: Any, x_MCHW: Tensor, t_M: Tensor, prompt_MSD: Tensor, added: Mapping[str, Tensor] | None
) -> Features:
    """Up to what leaves the mid block.

    Args:
        base: a `UNet2DConditionModel` without `obstacle`.
        x_MCHW: noised latents.
        t_M: timesteps.
        prompt_MSD: embeddings.
        added: pooled embeddings and sizes (SDXL).
    """
    time_ME = base.time_embedding(base.get_time_embed(sample=x_MCHW, timestep=t_M))
    more_ME = base.get_aug_embed(emb=time_ME, encoder_hidden_states=prompt_MSD, added_cond_kwargs=added)
    if more_ME is not None:
        time_ME = time_ME + more_ME
    if base.time_embed_act is not None:
        time_ME = base.time_embed_act(time_ME)
    hidden_MCHW = base.conv_in(x_MCHW)
    skips = [hidden_MCHW]
    for block in base.down_blocks:
        hidden_MCHW, own = block(hidden_states=hidden_MCHW, temb=time_ME, **_prompt(block, prompt_MSD))
        skips += own
    if base.mid_block is not None:
        hidden_MCHW = base.mid_block(hidden_MCHW, time_ME, **_prompt(base.mid_block, prompt_MSD))
    return Features(time_ME, prompt_MSD, tuple(skips), hidden_MCHW)


def second_half(
    base: Any,
    found: Features,
    spread: Callable[[Tensor], Tensor],
    down_NCHW: Sequence[Tensor],
    mid_NCHW: Tensor,
) -> Tensor:
    """From the residuals to the output, N C H W, with gradients to the residuals.

    Args:
        base: as in `first_half`.
        found: features of M states.
        spread: from M rows to those of N items.
        down_NCHW: the ControlNet's residuals of the skip connections.
        mid_NCHW: of the mid block's output.
    """
    time_NE, prompt_NSD = spread(found.time_ME), spread(found.prompt_MSD)
    skips = [spread(own) + more for own, more in zip(found.skips_MCHW, down_NCHW, strict=True)]
    hidden_NCHW = spread(found.mid_MCHW) + mid_NCHW
    height, width = found.skips_MCHW[0].shape[-2:]
    # sides that halving does not divide: the way up is told the sizes met on the way down
    odd = any(side % 2**base.num_upsamplers for side in (height, width))
    for block in base.up_blocks:
        used = len(block.resnets)
        own, skips = tuple(skips[-used:]), skips[:-used]
        hidden_NCHW = block(
            hidden_states=hidden_NCHW,
            temb=time_NE,
            res_hidden_states_tuple=own,
            upsample_size=skips[-1].shape[2:] if odd and skips else None,
            **_prompt(block, prompt_NSD),
        )
    if base.conv_norm_out is not None:
        hidden_NCHW = base.conv_act(base.conv_norm_out(hidden_NCHW))
    output_NCHW: Tensor = base.conv_out(hidden_NCHW)
    return output_NCHW


def _prompt(block: nn.Module, prompt: Tensor) -> dict[str, Tensor]:
    """The prompt under its name, for blocks that look at it."""
    return {"encoder_hidden_states": prompt} if getattr(block, "has_cross_attention", False) else {}
