"""The parts of the scene world's pipeline, untrained: the real classes, made as small as the pictures allow.

The model works on pixels: its autoencoder is not trained but built, and is the identity.

Legend of shape suffixes: B pictures, C = 3 channels, H = W = 16 rows and columns.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from prefopt.worlds.pixels import SIDE
from prefopt.worlds.scene.task import BRIGHTNESS, TEXTURE

TEXT_WIDTH = 32
MAX_TOKENS = 8
"""A caption has 6: four words, start and end."""
WORDS = ("a", "picture", *BRIGHTNESS, *TEXTURE)

CENTRE = -0.07
"""Mean of pixels in [-1, 1], which latents are without: samples cannot but keep the mean level of their noise."""
SCALE = 2.7
"""Of latents: pixels in [-1, 1] have a standard deviation of 0.37."""
POSTERIOR_LOG_VARIANCE = -20.0
BALLAST = 128.0
"""Its square over the signal's is the precision of the autoencoder: about 1e-4."""
HINT_CHANNELS = (16,)
"""Of one convolution at full resolution: every further one would halve it."""


def build_codec() -> Any:
    """An `AutoencoderKL` of one level that passes pixels through unchanged; its latents are pixels less `CENTRE`.

    Residual blocks add nothing. The last normalization and SiLU of each half are made linear: each channel x goes through
    them as x and -x, whose mean is zero and whose SiLUs differ by x; two constant channels, +-`BALLAST`, fix the variance.
    """
    from diffusers import AutoencoderKL

    codec = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(8,),
        layers_per_block=1,
        latent_channels=3,
        norm_num_groups=1,
        sample_size=SIDE,
        mid_block_add_attention=False,
        scaling_factor=SCALE,
    )
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.zero_()
        for half in (codec.encoder, codec.decoder):
            for k in range(3):
                half.conv_in.weight[k, k, 1, 1], half.conv_in.weight[3 + k, k, 1, 1] = 1, -1
                half.conv_out.weight[k, k, 1, 1], half.conv_out.weight[k, 3 + k, 1, 1] = 1, -1
            half.conv_in.bias[6:] = torch.tensor([BALLAST, -BALLAST])
            norm = half.conv_norm_out
            norm.weight.fill_(math.sqrt(2 * BALLAST**2 / 8 + norm.eps))
        codec.encoder.conv_out.bias[:3], codec.decoder.conv_out.bias[:3] = -CENTRE, CENTRE
        codec.encoder.conv_out.bias[3:] = POSTERIOR_LOG_VARIANCE
        torch.nn.init.dirac_(codec.quant_conv.weight)
        torch.nn.init.dirac_(codec.post_quant_conv.weight)
    return codec.eval()


def to_pixels(latents_BCHW: Tensor) -> Tensor:
    """What the autoencoder makes of the U-Net's latents, at once: pictures, not yet cut to [0, 1]."""
    return (latents_BCHW / SCALE + CENTRE) / 2 + 0.5


def build_unet(width: int) -> Any:
    """A `UNet2DConditionModel` of three levels on 16 x 16 pixels, which attends at 4 x 4 only."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(width, 2 * width, 2 * width),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        norm_num_groups=8,
    )


def build_controlnet(unet: Any) -> Any:
    """A `ControlNetModel` with the weights of the U-Net's lower half, whose outputs are zero at first."""
    from diffusers import ControlNetModel

    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=HINT_CHANNELS)
