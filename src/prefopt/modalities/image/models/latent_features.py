"""Pooled features of half a diffusion model: what a latent reward model sees of a noisy latent.

The first half is run part by part, with the parts' own modules, because diffusers has no switch that returns inner
features: time embedding, `conv_in`, down blocks, middle block of a U-Net; the first k blocks of an MMDiT. The rest is
deleted, about half of the weights. After "Diffusion Model as a Noise-Aware Latent Reward Model" (arXiv 2502.01051).

Shapes: B images, C channels, H height, W width of the latents; P tokens of the prompt, D their width, F pooled width;
V features of the down blocks, M features of the middle.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

UNET_ADDITIONS = (None, "text_time")


class HalfUNet(nn.Module):
    """Down and middle blocks of a `UNet2DConditionModel`, pooled over space.

    Takes the U-Net over and deletes its up blocks.

    Args:
        unet: conditioned on text alone, or as SDXL on text, pooled text and sizes.
        spatial_factor: image side over latent side, for SDXL's size conditions.

    Raises:
        ValueError: the U-Net has no middle block, or wants conditions that a judge does not have.
    """

    def __init__(self, unet: Any, spatial_factor: int = 8) -> None:
        super().__init__()
        config = unet.config
        addition = config.addition_embed_type
        if unet.mid_block is None or addition not in UNET_ADDITIONS or unet.class_embedding is not None:
            raise ValueError(
                f"this U-Net has mid block {type(unet.mid_block).__name__}, addition_embed_type {addition!r} and class "
                f"embedding {type(unet.class_embedding).__name__}; a latent reward model needs a middle block, "
                "addition_embed_type none or 'text_time', and no class embedding, as in SD 1.5, SD 2.1 and SDXL"
            )
        unet.up_blocks = nn.ModuleList()
        unet.conv_norm_out = unet.conv_act = unet.conv_out = None
        self.unet = unet
        self.down_dim = sum(block.resnets[-1].out_channels for block in unet.down_blocks)
        self.mid_dim: int = unet.mid_block.resnets[-1].out_channels
        self.image_side: int = int(_side(config.sample_size)) * spatial_factor

    @property
    def network(self) -> Any:
        """What is left of the U-Net."""
        return self.unet

    @property
    def in_channels(self) -> int:
        """Channels of the latents."""
        return int(self.unet.config.in_channels)

    def forward(
        self,
        x_t_BCHW: Tensor,
        t_B: Tensor,
        hidden_BPD: Tensor,
        pooled_BF: Tensor | None,
        with_down: bool = True,
    ) -> tuple[Tensor | None, Tensor]:
        """Features of noisy latents under prompts.

        Args:
            x_t_BCHW: noisy latents.
            t_B: timesteps.
            hidden_BPD: token states of the prompts.
            pooled_BF: pooled prompts (SDXL), else None.
            with_down: also pool the down blocks; the unconditional pass does not need them.

        Returns:
            (B, V) averages over space of each down block's output before its down-sampler, side by side, or None;
            (B, M) the same of the middle block. Both in single precision.
        """
        unet = self.unet
        x_BCHW = x_t_BCHW.to(unet.dtype)
        hidden_BPD = hidden_BPD.to(unet.dtype)
        if unet.config.center_input_sample:
            x_BCHW = 2 * x_BCHW - 1.0
        emb = unet.time_embedding(unet.get_time_embed(sample=x_BCHW, timestep=t_B), None)
        added = None if pooled_BF is None else self._added(pooled_BF.to(unet.dtype))
        aug = unet.get_aug_embed(emb=emb, encoder_hidden_states=hidden_BPD, added_cond_kwargs=added)
        emb = emb if aug is None else emb + aug
        if unet.time_embed_act is not None:
            emb = unet.time_embed_act(emb)
        hidden_BPD = unet.process_encoder_hidden_states(
            encoder_hidden_states=hidden_BPD, added_cond_kwargs=added
        )
        h_BCHW = unet.conv_in(x_BCHW)
        pooled: list[Tensor] = []
        for block in unet.down_blocks:
            h_BCHW, residuals = block(h_BCHW, emb, **_cross(block, hidden_BPD))
            if with_down:  # the last of `residuals` is after the down-sampler, where there is one
                pooled.append(_average(residuals[len(block.resnets) - 1]))
        h_BCHW = unet.mid_block(h_BCHW, emb, **_cross(unet.mid_block, hidden_BPD))
        return (torch.cat(pooled, 1) if with_down else None), _average(h_BCHW)

    def _added(self, pooled_BF: Tensor) -> dict[str, Tensor]:
        """SDXL's further conditions: an uncropped image of the size that the model was made for."""
        side = float(self.image_side)
        ids = torch.tensor(
            [[side, side, 0.0, 0.0, side, side]], device=pooled_BF.device, dtype=pooled_BF.dtype
        )
        return {"text_embeds": pooled_BF, "time_ids": ids.expand(len(pooled_BF), -1)}


class FirstBlocks(nn.Module):
    """The first blocks of an `SD3Transformer2DModel`, averaged over image tokens.

    Takes the transformer over and deletes what comes after. There is no down path, so `down_dim` is 0.

    Args:
        transformer: of the SD3 family.
        blocks: how many to run; the paper takes 18 of SD3-medium's 24.
    """

    def __init__(self, transformer: Any, blocks: int) -> None:
        super().__init__()
        total = int(transformer.config.num_layers)
        if not 1 <= blocks <= total:
            raise ValueError(
                f"feature_block must be from 1 to {total}, the blocks of this transformer; given {blocks}"
            )
        transformer.transformer_blocks = transformer.transformer_blocks[:blocks]
        transformer.norm_out = transformer.proj_out = None
        last = transformer.transformer_blocks[-1]
        for part in (getattr(last.attn, "to_add_out", None), last.ff_context):
            if part is not None:  # makes text tokens of which nothing is read any more
                part.requires_grad_(False)
        self.transformer = transformer
        self.down_dim = 0
        self.mid_dim: int = transformer.inner_dim

    @property
    def network(self) -> Any:
        """What is left of the transformer."""
        return self.transformer

    @property
    def in_channels(self) -> int:
        """Channels of the latents."""
        return int(self.transformer.config.in_channels)

    def forward(
        self,
        x_t_BCHW: Tensor,
        t_B: Tensor,
        hidden_BPD: Tensor,
        pooled_BF: Tensor | None,
        with_down: bool = True,
    ) -> tuple[Tensor | None, Tensor]:
        """Features of noisy latents under prompts; see `HalfUNet.forward`. The first result has no columns."""
        model = self.transformer
        dtype = model.dtype
        assert pooled_BF is not None
        h_BND = model.pos_embed(x_t_BCHW.to(dtype)).contiguous()
        emb = model.time_text_embed(t_B, pooled_BF.to(dtype))
        text_BPD = model.context_embedder(hidden_BPD.to(dtype))
        for block in model.transformer_blocks:
            if torch.is_grad_enabled() and model.gradient_checkpointing:
                text_BPD, h_BND = model._gradient_checkpointing_func(block, h_BND, text_BPD, emb, None)
            else:
                text_BPD, h_BND = block(hidden_states=h_BND, encoder_hidden_states=text_BPD, temb=emb)
        mid_BM = h_BND.float().mean(1)
        return (mid_BM[:, :0] if with_down else None), mid_BM


def _cross(block: Any, hidden_BPD: Tensor) -> dict[str, Tensor]:
    return {"encoder_hidden_states": hidden_BPD} if getattr(block, "has_cross_attention", False) else {}


def _average(h_BCHW: Tensor) -> Tensor:
    return h_BCHW.float().mean((2, 3))


def _side(sample_size: Any) -> int:
    """A U-Net's sample size, which may be a number or a pair."""
    return int(sample_size[0] if isinstance(sample_size, list | tuple) else sample_size or 64)
