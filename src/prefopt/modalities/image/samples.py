"""Images on fixed prompts and seeds through a run: pictures for the reader, reward, diversity, distance to the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.config import TrainConfig
from prefopt.modalities.image.models.pipelines import LoadedPipeline
from prefopt.modalities.image.models.tensors import generate_images
from prefopt.modalities.image.store import CachedImages
from prefopt.runs.record import Record

Scorer = Callable[[Sequence[str], Tensor], Tensor]
"""(prompts, images (B, 3, H, W) in [0, 1]) -> (B,) rewards."""
SHOWN = 8  # images kept as files; rewards are of all samples


class ImageSampler:
    """Draws one image a prompt each time it is asked, from the same noise each time.

    Args:
        config: number of prompts, steps, guidance.
        loaded: the policy's pipeline.
        store: for embeddings.
        prompts: texts, held out where possible.
        scorer: of the images; None for none.
        record: where pictures go.
        accelerator: for autocast.
    """

    def __init__(
        self,
        config: TrainConfig,
        loaded: LoadedPipeline,
        store: CachedImages,
        prompts: Sequence[str],
        scorer: Scorer | None,
        record: Record,
        accelerator: Any,
    ) -> None:
        self.prompts = list(prompts)[: config.sample_prompts]
        self.config, self.loaded, self.store, self.scorer = config, loaded, store, scorer
        self.record, self.accelerator = record, accelerator
        self._first: Tensor | None = None

    def take(self, step: int, label: str) -> dict[str, float]:
        """Generate, score and record; returns reward, diversity and distance to the first samples."""
        if not self.prompts:
            return {}
        config, model = self.config, self.loaded.model
        seeds = [config.seed * 100_003 + n for n in range(len(self.prompts))]
        model.eval()
        with self.accelerator.autocast():
            images_BCHW = generate_images(
                self.loaded,
                self.store.conditions_of(self.prompts),
                seeds,
                num_inference_steps=config.num_inference_steps,
                guidance_scale=config.guidance_scale,
                height=self.store.resolution,
                width=self.store.resolution,
                batch_size=config.per_device_eval_batch_size,
                unconditional=self.store.unconditional,
            )
        model.train()
        if not bool(images_BCHW.isfinite().all()):
            raise ValueError(f"samples after step {step} are not finite: the model has diverged")
        values: dict[str, float] = {}
        scores = None if self.scorer is None else self.scorer(self.prompts, images_BCHW).tolist()
        if scores is not None:
            values["reward"] = sum(scores) / len(scores)
        values["sample_saturation"] = float((images_BCHW.amax(1) - images_BCHW.amin(1)).mean())
        values["sample_change"] = self._change(step, images_BCHW[:SHOWN])
        self.record.samples(
            {
                "num_inference_steps": config.num_inference_steps,
                "guidance_scale": config.guidance_scale,
                "seeds": seeds[:SHOWN],
            },
            self.prompts[:SHOWN],
            [
                {
                    "step": step,
                    "label": label,
                    "image": self.record.image(file_name(step, n), images_BCHW[n]),
                    "score": None if scores is None else scores[n],
                }
                for n in range(min(SHOWN, len(self.prompts)))
            ],
        )
        return values

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

        folder = self.record.folder / "record" / "images"
        paths = [folder / f"{file_name(0, k)}.png" for k in range(n)]
        if not all(path.exists() for path in paths):
            return None
        pixels = [torch.from_numpy(np.array(Image.open(path))) for path in paths]
        return torch.stack(pixels).permute(0, 3, 1, 2).float()


def file_name(step: int, n: int) -> str:
    """Of the n-th sample of a step."""
    return f"step-{step:06d}-{n}"
