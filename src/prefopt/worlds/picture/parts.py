"""The parts of the picture world's Stable Diffusion, untrained: the real classes, made as small as the pictures allow.

The autoencoder's encoder is not trained but built: it computes exactly the principal components of 4 x 4 patches.

Legend of shape suffixes: B pictures, C channels, H rows, W columns, K = 12 latent channels, P = 48 numbers of a patch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from prefopt.worlds.picture.task import COLOURS, PLACES, SHAPES, SIZES
from prefopt.worlds.pixels import SIDE

LATENT_CHANNELS = 12
PATCH = 4
TEXT_WIDTH = 64
MAX_TOKENS = 12
"""A caption has 9: seven words and commas, start and end."""
WORDS = " ".join(["a", ",", *SIZES, *COLOURS, *SHAPES, *PLACES]).split()
"""Of the captions."""

POSTERIOR_LOG_VARIANCE = -8.0
BALLAST = 128.0
"""See `build_codec`. Its square over the signal's is the precision of the encoder: about 1e-4."""


def build_codec(images_BCHW: Tensor) -> Any:
    """An `AutoencoderKL` (16 x 16 to 4 x 4) whose encoder is the principal components of patches; its decoder is random.

    Two convolutions of stride 2 gather a patch's 48 numbers and project them; the residual blocks pass through. The
    encoder's last normalization and SiLU are made linear: each component x goes through them as x and -x, whose mean is
    zero and whose SiLUs differ by x; two constant channels, +-`BALLAST` in every group, fix the variance.

    Args:
        images_BCHW: in [0, 1]; the components are theirs.
    """
    from diffusers import AutoencoderKL

    groups = 4
    codec = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=groups,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )
    patches_NP = _patches(2 * images_BCHW - 1)
    mean_P = patches_NP.double().mean(0)
    _, _, axes = torch.linalg.svd(patches_NP.double() - mean_P, full_matrices=False)
    axes_KP = axes[:LATENT_CHANNELS]
    axes_KP = axes_KP * axes_KP.sum(1, keepdim=True).sign()  # an axis has no sign of its own
    latents_NK = (patches_NP.double() - mean_P) @ axes_KP.T
    codec.register_to_config(scaling_factor=round(1 / latents_NK.std().item(), 5))

    encoder = codec.encoder
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *codec.quant_conv.parameters()):
            parameter.zero_()
        for block in encoder.down_blocks:
            for resnet in block.resnets:
                if resnet.conv_shortcut is not None:
                    torch.nn.init.dirac_(resnet.conv_shortcut.weight)
        torch.nn.init.dirac_(encoder.conv_in.weight)
        # channel 4 c + 2 y + x of the first gathering: channel c of pixel (y, x) of a 2 x 2 block
        gather = encoder.down_blocks[0].downsamplers[0].conv.weight
        for c in range(3):
            for y in range(2):
                for x in range(2):
                    gather[4 * c + 2 * y + x, c, y, x] = 1
        # of the second: in each group of 8 channels three components, their negatives, and the ballast
        project, shift = (
            encoder.down_blocks[1].downsamplers[0].conv.weight,
            encoder.down_blocks[1].downsamplers[0].conv.bias,
        )
        plus = [8 * (k // 3) + k % 3 for k in range(LATENT_CHANNELS)]
        minus = [k + 3 for k in plus]
        # P runs over (channel, row, column); rows 2 Y + y, where Y is the second gathering's
        kernel = axes_KP.reshape(LATENT_CHANNELS, 3, 2, 2, 2, 2)  # K, c, Y, y, X, x
        kernel = kernel.permute(0, 1, 3, 5, 2, 4).reshape(LATENT_CHANNELS, 12, 2, 2).float()
        project[plus, :12, :2, :2], project[minus, :12, :2, :2] = kernel, -kernel
        offset_K = (axes_KP @ mean_P).float()
        shift[plus], shift[minus] = -offset_K, offset_K
        shift[6::8], shift[7::8] = BALLAST, -BALLAST
        norm = encoder.conv_norm_out
        norm.weight.fill_(math.sqrt(2 * BALLAST**2 / 8 + norm.eps))
        out = encoder.conv_out
        for k in range(LATENT_CHANNELS):
            out.weight[k, plus[k], 1, 1], out.weight[k, minus[k], 1, 1] = 1, -1
        out.bias[LATENT_CHANNELS:] = POSTERIOR_LOG_VARIANCE
        torch.nn.init.dirac_(codec.quant_conv.weight)
    return codec


def _patches(images_BCHW: Tensor) -> Tensor:
    """(N, 48) patches, channel by channel, row by row."""
    patches = torch.nn.functional.pixel_unshuffle(images_BCHW, PATCH)
    return patches.permute(0, 2, 3, 1).flatten(0, 2)


def build_unet(width: int) -> Any:
    """A `UNet2DConditionModel` of two levels on 4 x 4 latents."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE // PATCH,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(width, 2 * width),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        norm_num_groups=8,
    )
