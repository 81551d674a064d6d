"""Images under true conditions: what building and judging draw, each from a seed of its own.

Legend: B images, H W in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.modalities.control.models import LoadedControl
from prefopt.modalities.control.rows import Conditioned
from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.models.pipelines import borrowed, text_identity, vae_identity
from prefopt.modalities.image.models.tensors import encode_prompts, encode_unconditional, generate_images
from prefopt.models.identity import fingerprint, plain
from prefopt.sources.pictures import Crop
from prefopt.worlds import base


@dataclass(frozen=True)
class Drawing:
    """How images are drawn.

    Attributes:
        resolution: side in pixels.
        crop: of control images, as of training.
        num_inference_steps: of the pipeline's own scheduler.
        guidance_scale: of classifier-free guidance; 1 is none.
        seed: of all noise.

    Raises:
        ValueError: a guidance that is no number.
    """

    resolution: int
    crop: Crop = "center"
    num_inference_steps: int = 20
    guidance_scale: float = 7.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale must be a finite number; given {self.guidance_scale}")


@dataclass
class Artist:
    """Draws images under prompts and control images; each depends on its own condition, id and number alone, up to rounding.

    Attributes:
        loaded: the pipeline.
        how: settings.

    Raises:
        ValueError: a resolution that the pipeline does not draw.
    """

    loaded: LoadedControl
    how: Drawing
    _unconditional: Conditions | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        factor = int(self.loaded.pipe.vae_scale_factor)
        if self.how.resolution % factor:
            raise ValueError(
                f"resolution must be divisible by {factor}, as the VAE is; given {self.how.resolution}"
            )

    @property
    def depends_on(self) -> dict[str, Any]:
        """What names these images in a journal: all that they depend on besides prompt, control image and id."""
        loaded = self.loaded
        return {
            "model": fingerprint(loaded.model),
            "vae": vae_identity(loaded),
            "text": text_identity(loaded),
            "scheduler": [type(loaded.scheduler).__name__, plain(loaded.scheduler.config)],
            "drawing": asdict(self.how),
        }

    def draw(self, wanted: Sequence[Conditioned], controls_BCHW: Tensor, number: int = 0) -> Tensor:
        """(B, 3, H, W) images in [0, 1], float32 on the CPU.

        Args:
            wanted: prompts, and ids that name the noise.
            controls_BCHW: (B, 3, H, W) control images in [0, 1], as the model is given them.
            number: of the sample under each condition.

        Raises:
            ValueError: the model draws what is not finite.
        """
        loaded, how = self.loaded, self.how
        with ExitStack() as stack:
            stack.enter_context(borrowed(loaded, "text_encoders", "vae"))
            if self._unconditional is None and how.guidance_scale > 1:
                self._unconditional = encode_unconditional(loaded)
            found = encode_prompts(loaded, [one.prompt for one in wanted])
            images_BCHW = generate_images(
                loaded,
                Conditions({**found.tensors, "control": controls_BCHW}),
                [seed_of(how.seed, one.id, number) for one in wanted],
                num_inference_steps=how.num_inference_steps,
                guidance_scale=how.guidance_scale,
                height=how.resolution,
                width=how.resolution,
                batch_size=len(wanted),
                unconditional=self._unconditional,
            )
        check_finite(images_BCHW, loaded.source)
        return images_BCHW


def check_finite(images_BCHW: Tensor, source: str) -> None:
    """Raise ValueError for samples that hold NaN or infinity: as bytes they would pass for pictures."""
    if not bool(images_BCHW.isfinite().all()):
        raise ValueError(
            f"samples of {source} are not finite: its weights have diverged, or it needs float32 where it works in half "
            "precision"
        )


def as_batch(levels: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    """(B, 3, H, W) in [0, 1] of 8-bit pictures (3, H, W)."""
    return torch.from_numpy(np.stack(levels)).float() / 255


def seed_of(seed: int, name: str, number: int) -> int:
    """A seed for one sample, the same in every process."""
    return base.seed_of(f"{seed} {number} {name}")
