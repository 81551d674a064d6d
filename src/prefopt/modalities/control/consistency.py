"""ControlNet++'s reward of consistency: does the one-step estimate of an image show what its control image shows?

    xhat_0 = (x_t - sigma_t eps_theta) / alpha_t        loss(Detector(decode(xhat_0)), label)        (arXiv 2404.07987, section 3.2)

Only where there is little noise: at more, the estimate is a blur.

Legend: S items that are looked at, C H W of latents or pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefopt.modalities.control.detectors import DifferentiableDetector
from prefopt.modalities.image.models.pipelines import LoadedPipeline
from prefopt.modalities.image.models.tensors import latent_scale

LAST_TIMESTEP = 200
"""Of those that are looked at, as published."""


@dataclass(frozen=True)
class Consistency:
    """Decodes estimates and asks a detector, with gradients through both.

    Attributes:
        detector: differentiable.
        vae: frozen, in float32.
        shift: of latents, see `latent_scale`.
        scale: of latents.
        last_timestep: that is looked at.
    """

    detector: DifferentiableDetector
    vae: Any
    shift: Tensor
    scale: Tensor
    last_timestep: int = LAST_TIMESTEP

    @classmethod
    def of(cls, loaded: LoadedPipeline, detector: DifferentiableDetector, last_timestep: int) -> Consistency:
        """With a pipeline's VAE, which stays in memory for it."""
        shift, scale = latent_scale(loaded)
        return cls(detector, loaded.vae, shift, scale, last_timestep)

    def loss(self, x0_SCHW: Tensor, control_SCHW: Tensor) -> Tensor:
        """(S,) the detector's loss on latents, against what control images (S, 3, H, W) in [0, 1] show.

        Raises:
            ValueError: a control image that the detector cannot read.
        """
        with torch.autocast(x0_SCHW.device.type, enabled=False):
            z_SCHW = x0_SCHW.float() / self.scale + self.shift
            pixels_SCHW = self.vae.decode(z_SCHW, return_dict=False)[0] / 2 + 0.5
            labels = self.detector.read(control_SCHW.float())
            return self.detector.loss(pixels_SCHW.clamp(0, 1), labels).float()
