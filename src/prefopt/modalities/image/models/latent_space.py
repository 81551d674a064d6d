"""Which latent space a model works in, as facts that can be stored with its weights and compared.

A model of noisy latents (a latent reward model above all) is meaningless in the latents of another VAE: "Diffusion
Model as a Noise-Aware Latent Reward Model" (arXiv 2502.01051) loses GenEval points with a judge from another VAE and
gains with one that shares it. Hashes of the weights would be too strict: a VAE in half precision, or one of which
only the decoder was tuned, has the same latents. So the identity is what the encoder makes of one test image.

Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

PROBE_SIDE = 32
"""Side of the test image in pixels; a multiple of every common VAE's spatial factor."""
TOLERANCE = 0.05
"""Largest relative distance between the encodings of one image that still counts as the same space. Half precision
moves an encoding by about 0.001; an unrelated encoder by about 1.4."""


def config_value(module: Any, name: str, default: Any = None) -> Any:
    """A value of a module's configuration, whether that is a mapping (diffusers) or an object."""
    config = getattr(module, "config", None)
    if isinstance(config, Mapping):
        return config.get(name, default)
    return getattr(config, name, default)


def encode_mode(vae: Any, image_BCHW: Tensor) -> Tensor:
    """The mean of a VAE's posterior, before scaling and shifting; for VAEs without a posterior, the latents.

    Args:
        vae: has `encode`, which returns an object with `latent_dist` or `latents`, or a tensor.
        image_BCHW: in [-1, 1].
    """
    out = vae.encode(image_BCHW)
    if hasattr(out, "latent_dist"):
        return out.latent_dist.mode()
    return out.latents if hasattr(out, "latents") else out


@dataclass(frozen=True)
class LatentSpace:
    """Identity of a latent space.

    Attributes:
        channels: of the latents.
        spatial_factor: image side over latent side.
        scaling_factor, shift_factor: a model sees (z - shift_factor) * scaling_factor, z the encoder's output.
        probe: z of a fixed test image, flat.
    """

    channels: int
    spatial_factor: int
    scaling_factor: float
    shift_factor: float
    probe: tuple[float, ...]

    @classmethod
    def of(cls, vae: Any) -> LatentSpace:
        """The identity of a VAE's latents: encodes one image of 32 x 32 in single precision.

        Raises:
            ValueError: the encoding is not finite or not a batch of feature maps, or channels are scaled one by one.
        """
        if config_value(vae, "latents_mean") is not None:
            raise ValueError(
                f"the VAE ({type(vae).__name__}) scales each channel of its latents by itself (latents_mean in its "
                "configuration); latent reward models support one scaling_factor for all"
            )
        tensor = next(itertools.chain(vae.parameters(), vae.buffers()), torch.zeros(()))
        if tensor.dtype != torch.float32:  # SDXL's encoder overflows in half precision
            vae = copy.deepcopy(vae).float()
        with torch.no_grad():
            z_BCHW = encode_mode(vae, probe_image().to(tensor.device)).float().cpu()
        if z_BCHW.ndim != 4 or not bool(z_BCHW.isfinite().all()):
            raise ValueError(
                f"the VAE ({type(vae).__name__}) encodes a test image of shape (1, 3, {PROBE_SIDE}, {PROBE_SIDE}) to "
                f"shape {tuple(z_BCHW.shape)}, finite: {bool(z_BCHW.isfinite().all())}; needed finite latents of "
                "shape (1, channels, height, width)"
            )
        return cls(
            channels=z_BCHW.shape[1],
            spatial_factor=PROBE_SIDE // z_BCHW.shape[-1],
            scaling_factor=float(config_value(vae, "scaling_factor") or 1.0),
            shift_factor=float(config_value(vae, "shift_factor") or 0.0),
            probe=tuple(float(f"{value:.6g}") for value in z_BCHW.flatten().tolist()),
        )

    def encode(self, vae: Any, image_BCHW: Tensor) -> Tensor:
        """Latents as a model sees them, by the mean of the posterior.

        Args:
            vae: of this space.
            image_BCHW: in [-1, 1], on the VAE's device.
        """
        return (encode_mode(vae, image_BCHW) - self.shift_factor) * self.scaling_factor

    def distance(self, other: LatentSpace) -> float:
        """||z - z'|| / max(||z||, ||z'||) of the test image, infinite where the shapes differ."""
        if len(self.probe) != len(other.probe):
            return math.inf
        a, b = torch.tensor(self.probe), torch.tensor(other.probe)
        scale = max(float(a.norm()), float(b.norm()))
        return float((a - b).norm()) / scale if scale > 0 else 0.0

    def same_as(self, other: LatentSpace) -> bool:
        """Whether latents of one space can be read as latents of the other."""
        return (
            (self.channels, self.spatial_factor) == (other.channels, other.spatial_factor)
            and math.isclose(self.scaling_factor, other.scaling_factor, rel_tol=1e-4)
            and math.isclose(self.shift_factor, other.shift_factor, rel_tol=1e-4, abs_tol=1e-6)
            and self.distance(other) <= TOLERANCE
        )

    def __str__(self) -> str:
        return (
            f"{self.channels} channels at 1/{self.spatial_factor} of the image's side, scaling_factor "
            f"{self.scaling_factor:g}, shift_factor {self.shift_factor:g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LatentSpace:
        """From what `to_dict` gave, also after JSON made lists of tuples."""
        return cls(**{**values, "probe": tuple(values["probe"])})


@dataclass(frozen=True)
class NoiseSchedule:
    """What a timestep means: how many there are in training, and the noise level at five of them.

    `alphas_cumprod` holds the cumulative alpha product at 0, 1/4, 1/2, 3/4 and 1 of the way; it is empty for flow
    matching, where a timestep is the noise level itself times `num_train_timesteps`.
    """

    num_train_timesteps: int
    alphas_cumprod: tuple[float, ...]

    @classmethod
    def of(cls, scheduler: Any) -> NoiseSchedule:
        """The schedule of a diffusers scheduler."""
        steps = int(config_value(scheduler, "num_train_timesteps"))
        alphas = getattr(scheduler, "alphas_cumprod", None)
        if alphas is None:
            return cls(steps, ())
        at = torch.linspace(0, steps - 1, 5).round().long()
        return cls(steps, tuple(float(f"{value:.6g}") for value in torch.as_tensor(alphas)[at].tolist()))

    @property
    def is_flow(self) -> bool:
        """Whether timesteps are continuous noise levels (flow matching)."""
        return not self.alphas_cumprod

    def same_as(self, other: NoiseSchedule) -> bool:
        """Whether timestep t stands for the same noise level in both."""
        return (self.num_train_timesteps, len(self.alphas_cumprod)) == (
            other.num_train_timesteps,
            len(other.alphas_cumprod),
        ) and all(
            math.isclose(a, b, rel_tol=0.02, abs_tol=1e-4)
            for a, b in zip(self.alphas_cumprod, other.alphas_cumprod, strict=True)
        )


def probe_image() -> Tensor:
    """The test image, (1, 3, 32, 32) in [-1, 1]: waves of many lengths and a checkerboard, from a formula."""
    i = torch.arange(PROBE_SIDE, dtype=torch.float64)
    y, x = torch.meshgrid(i, i, indexing="ij")
    channels = [
        0.5 * torch.sin(0.21 * x + 0.13 * y * (c + 1))
        + 0.3 * torch.cos(0.9 * x - 1.7 * y + c)
        + 0.2 * torch.sin(2.3 * x + 0.7 * (c + 2) * y) * (((x // 4 + y // 8 + c) % 2) * 2 - 1)
        for c in range(3)
    ]
    return torch.stack(channels)[None].clamp(-1, 1).float()


def check_same_latents(trained: LatentSpace, given: LatentSpace) -> None:
    """Raise unless latents of `given` mean to a judge what its own latents mean.

    Raises:
        ValueError: with the facts of both spaces.
    """
    if not trained.same_as(given):
        raise ValueError(
            f"judge was trained in a different latent space: its own has {trained}; the one given has {given}; a test "
            f"image is encoded at a relative distance of {trained.distance(given):.3g} (allowed {TOLERANCE}). Use a "
            "judge that was trained from a model with this VAE, or train one"
        )


def check_same_schedule(trained: NoiseSchedule, given: NoiseSchedule) -> None:
    """Raise unless a timestep means the same noise level to both.

    Raises:
        ValueError: with the facts of both schedules.
    """
    if not trained.same_as(given):
        raise ValueError(
            f"judge was trained with a different noise schedule: its own is {trained}; the one given is {given}. A "
            "timestep would stand for another noise level: use a judge of the same family of models, or train one"
        )
