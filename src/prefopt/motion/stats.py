"""Mean and standard deviation of features: what a model's z-scores are made with. A part of every motion model's folder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor


class MotionStats(ModelMixin, ConfigMixin):
    """Between physical units and z-scores.

    Args:
        codec: name of the features' codec.
        width: D.
        fps: frames a second.
        name: whose statistics these are, for errors ("HumanML3D train", "T2M evaluator").

    Example:
        >>> stats = MotionStats.of("stick", torch.zeros(36), torch.full((36,), 2.0), fps=8)
        >>> float(stats.normalize(torch.ones(1, 36))[0, 0])
        0.5
    """

    @register_to_config
    def __init__(self, codec: str, width: int, fps: float, name: str = "") -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("std_D", torch.ones(width))

    mean_D: Tensor
    std_D: Tensor

    @classmethod
    def of(
        cls,
        codec: str,
        mean_D: Tensor | Sequence[float],
        std_D: Tensor | Sequence[float],
        *,
        fps: float,
        name: str = "",
    ) -> MotionStats:
        """Statistics with these numbers.

        Raises:
            ValueError: other lengths, numbers that are not finite, a deviation of 0 or below.
        """
        mean, std = (torch.as_tensor(x, dtype=torch.float32) for x in (mean_D, std_D))
        if mean.dim() != 1 or mean.shape != std.shape:
            raise ValueError(
                f"mean and deviation have the shapes {tuple(mean.shape)} and {tuple(std.shape)}; needed (D,) each"
            )
        if not bool((mean.isfinite() & std.isfinite()).all()) or bool((std <= 0).any()):
            bad = int((~(mean.isfinite() & std.isfinite() & (std > 0))).nonzero()[0])
            raise ValueError(
                f"feature {bad} has the mean {float(mean[bad])} and the deviation {float(std[bad])}; needed finite numbers, the "
                "deviation above 0 (give constant features a deviation of 1)"
            )
        stats = cls(codec, len(mean), fps, name)
        stats.mean_D.copy_(mean)
        stats.std_D.copy_(std)
        return stats

    @property
    def codec(self) -> str:
        """Name of the features' codec."""
        return str(self.config.codec)

    @property
    def fps(self) -> float:
        """Frames a second."""
        return float(self.config.fps)

    def normalize(self, features_BFD: Tensor) -> Tensor:
        """Z-scores of features in physical units.

        Raises:
            ValueError: another number of features.
        """
        self._check(features_BFD)
        return (features_BFD - self.mean_D) / self.std_D

    def denormalize(self, z_BFD: Tensor) -> Tensor:
        """Features in physical units of z-scores."""
        self._check(z_BFD)
        return z_BFD * self.std_D + self.mean_D

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] != len(self.mean_D):
            raise ValueError(
                f"features of width {x.shape[-1]} for statistics of {self.config.name or self.codec}, which have {len(self.mean_D)}"
            )
