"""A transformer that removes noise from a motion, given a text: the network of MDM (arXiv 2209.14916).

One token a frame, and before them one that carries timestep and text. Sizes and behaviour are those of the released models
with `MotionDenoiser()` (`converting.py` reads their weights), where queries, keys and values are one matrix each, so that adapters
can be put on them.

Legend: B motions, F frames, D features of a frame, S = F + 1 tokens, W width, E width of a text's embedding.
"""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class MotionDenoiser(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """What a noised motion looked like before, or its noise, as the scheduler's `prediction_type` says.

    Args:
        features: D.
        max_frames: longest motion; samples of models without `mask_padding` have this length, and are cut.
        width, layers, heads, feedforward, dropout: of the transformer.
        text_width: E.
        norm_first: whether norms stand before attention and feed-forward parts, with one behind the last layer.
        mask_padding: whether frames behind a motion's end are hidden from attention. The released models see them.

    Example:
        >>> network = MotionDenoiser(features=36, max_frames=32, width=16, layers=1, heads=2, feedforward=32, text_width=8)
        >>> x, text = torch.zeros(2, 32, 36), torch.zeros(2, 8)
        >>> network(x, torch.tensor([0, 5]), text, torch.tensor([32, 20])).shape
        torch.Size([2, 32, 36])
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]  # noqa: RUF012 (diffusers' name and form)

    @register_to_config
    def __init__(
        self,
        features: int = 263,
        max_frames: int = 196,
        width: int = 512,
        layers: int = 8,
        heads: int = 4,
        feedforward: int = 1024,
        dropout: float = 0.1,
        text_width: int = 512,
        norm_first: bool = False,
        mask_padding: bool = True,
    ) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise ValueError(f"width={width} must be even and divisible by heads={heads}")
        self.embed_frame = nn.Linear(features, width)
        self.embed_text = nn.Linear(text_width, width)
        self.embed_time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, feedforward, dropout, norm_first) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.to_features = nn.Linear(width, features)
        self.gradient_checkpointing = False

    def forward(self, x_BFD: Tensor, t_B: Tensor, text_BE: Tensor, length_B: Tensor | None = None) -> Tensor:
        """(B, F, D) output for noised motions.

        Args:
            x_BFD: noised z-scores.
            t_B: (B,) timesteps.
            text_BE: embeddings; zeros stand for no text.
            length_B: frames of each motion; None: all have F.

        Raises:
            ValueError: more frames than `max_frames`.
        """
        frames = x_BFD.shape[1]
        if frames > self.config.max_frames:
            raise ValueError(
                f"motions of {frames} frames for a model of at most {self.config.max_frames}: cut them"
            )
        width = int(self.config.width)
        time_BW = self.embed_time(sinusoids(t_B, width).to(x_BFD.dtype))
        prefix_BW = time_BW + self.embed_text(text_BE.to(x_BFD.dtype))
        h_BSW = torch.cat([prefix_BW[:, None], self.embed_frame(x_BFD)], 1)
        place_SW = sinusoids(torch.arange(frames + 1, device=x_BFD.device), width)
        h_BSW = self.drop(h_BSW + place_SW.to(h_BSW.dtype))
        mask_BS = None
        if length_B is not None and self.config.mask_padding:
            # the first token is no frame
            mask_BS = torch.arange(frames + 1, device=x_BFD.device) <= length_B[:, None]
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                h_BSW = self._gradient_checkpointing_func(block, h_BSW, mask_BS)
            else:
                h_BSW = block(h_BSW, mask_BS)
        out_BFD: Tensor = self.to_features(self.norm(h_BSW[:, 1:]))
        return out_BFD


class Block(nn.Module):
    """Self-attention and a feed-forward part, each with a norm before or behind it."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, norm_first: bool) -> None:
        super().__init__()
        self.heads, self.norm_first = heads, norm_first
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h_BSW: Tensor, mask_BS: Tensor | None) -> Tensor:
        """(B, S, W); tokens outside the mask are seen by none."""
        if self.norm_first:
            h_BSW = h_BSW + self.attend(self.norm_attention(h_BSW), mask_BS)
            return h_BSW + self.transform(self.norm_feedforward(h_BSW))
        h_BSW = self.norm_attention(h_BSW + self.attend(h_BSW, mask_BS))
        normed: Tensor = self.norm_feedforward(h_BSW + self.transform(h_BSW))
        return normed

    def attend(self, h_BSW: Tensor, mask_BS: Tensor | None) -> Tensor:
        """What attention adds."""
        q, k, v = (
            project(h_BSW).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        seen = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if mask_BS is None else mask_BS[:, None, None],
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        out: Tensor = self.dropout(self.to_out(seen.transpose(1, 2).flatten(2)))
        return out

    def transform(self, h_BSW: Tensor) -> Tensor:
        """What the feed-forward part adds."""
        out: Tensor = self.dropout(self.down(self.dropout(gelu(self.up(h_BSW)))))
        return out


def sinusoids(place_N: Tensor, width: int) -> Tensor:
    """(N, W) float32: sine and cosine of places (or timesteps), by turns, from fast to slow."""
    rate = torch.exp(
        torch.arange(0, width, 2, device=place_N.device, dtype=torch.float32) * (-math.log(10_000.0) / width)
    )
    angle = place_N.to(torch.float32)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
