"""Images on fixed prompts and seeds through a run: pictures for the reader, reward, diversity, distance to the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.config import TrainConfig
from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.models.pipelines import LoadedPipeline
from prefopt.modalities.image.models.tensors import generate_images
from prefopt.modalities.image.store import CachedImages
from prefopt.runs.record import Record

Scorer = Callable[[Sequence[str], Tensor], Tensor]
"""(prompts, images (B, 3, H, W) in [0, 1]) -> (B,) rewards."""
SHOWN = 8  # images kept as files; rewards are of all samples


class ImageSamples:
    """One image a prompt, drawn by the policy from the same noise each time.

    Args:
        config: number of prompts, steps, guidance.
        loaded: the policy's pipeline.
        store: for embeddings.
        prompts: texts, held out where possible.
        scorer: of the images; None for none.
        record: where pictures go.
    """

    def __init__(
        self,
        config: TrainConfig,
        loaded: LoadedPipeline,
        store: CachedImages,
        prompts: Sequence[str],
        scorer: Scorer | None,
        record: Record,
    ) -> None:
        self.prompts = list(prompts)[: config.sample_prompts]
        self._seeds = [config.seed * 100_003 + n for n in range(len(self.prompts))]
        self.settings = {
            "num_inference_steps": config.num_inference_steps,
            "guidance_scale": config.guidance_scale,
            "seeds": self._seeds[:SHOWN],
        }
        self._config, self._loaded, self._store, self._scorer = config, loaded, store, scorer
        self._record = record
        self._first: Tensor | None = None

    def draw(self, step: int) -> Tensor:
        """(B, 3, H, W) images in [0, 1]."""
        config, store = self._config, self._store
        images_BCHW = generate_images(
            self._loaded,
            self.conditions(),
            self._seeds,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            height=store.resolution,
            width=store.resolution,
            batch_size=config.per_device_eval_batch_size,
            unconditional=store.unconditional,
        )
        if not bool(images_BCHW.isfinite().all()):
            raise ValueError(f"samples after step {step} are not finite: the model has diverged")
        return images_BCHW

    def conditions(self) -> Conditions:
        """What the samples are drawn under."""
        return self._store.conditions_of(self.prompts)

    def measure(self, drawn: Tensor, step: int) -> dict[str, float]:
        """sample_saturation, and sample_change: distance to the first samples."""
        return {
            "sample_saturation": float((drawn.amax(1) - drawn.amin(1)).mean()),
            "sample_change": self._change(step, drawn[:SHOWN]),
        }

    def rewards(self, drawn: Tensor) -> list[float | None]:
        """What the scorer gives."""
        if self._scorer is None:
            return [None] * len(drawn)
        return list(self._scorer(self.prompts, drawn).tolist())

    def entries(self, drawn: Tensor, step: int) -> list[dict[str, Any]]:
        """Paths of the first images, written now."""
        return [
            {"image": self._record.picture(file_name(step, n), picture_CHW)}
            for n, picture_CHW in enumerate(drawn[:SHOWN])
        ]

    def _change(self, step: int, images_BCHW: Tensor) -> float:
        """Root mean square distance to the samples of step 0, in the 8 bits of their files: a resumed run reads them."""
        levels_BCHW = images_BCHW.clamp(0, 1).mul(255).round()
        if self._first is None:
            kept_BCHW = self._read_first(len(levels_BCHW)) if step else None
            self._first = levels_BCHW if kept_BCHW is None else kept_BCHW
        return float((levels_BCHW - self._first).square().mean().sqrt() / 255)

    def _read_first(self, n: int) -> Tensor | None:
        """(n, 3, H, W) pixels from 0 to 255; None where the files are gone."""
        from PIL import Image

        folder = self._record.folder / "record" / "images"
        paths = [folder / f"{file_name(0, k)}.png" for k in range(n)]
        if not all(path.exists() for path in paths):
            return None
        pixels = [torch.from_numpy(np.array(Image.open(path))) for path in paths]
        return torch.stack(pixels).permute(0, 3, 1, 2).float()


def file_name(step: int, n: int) -> str:
    """Of the n-th sample of a step."""
    return f"step-{step:06d}-{n}"
