"""Motions on fixed prompts and seeds through a run: moving figures for the reader, reward, distance to the start.

Legend: F frames, J joints, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prefopt.config import TrainConfig
from prefopt.modalities.motion.models import LoadedMotion
from prefopt.modalities.motion.scorers import padded
from prefopt.modalities.motion.store import MotionStore
from prefopt.runs.record import Record

Scorer = Callable[[Sequence[str], Tensor, Tensor], Tensor]
"""(prompts, features (B, F, D) in physical units, lengths (B,)) -> (B,) rewards."""
SHOWN = 6
"""Motions kept for the page; rewards are of all samples."""
PICTURE = 120
"""Pixels of a pose's height."""
DIGITS = 3
"""Of positions in metres: a millimetre."""


class MotionSamples:
    """One motion a prompt, drawn by the policy from the same noise each time.

    Args:
        config: number of prompts, steps, guidance.
        loaded: the policy's pipeline.
        store: for embeddings.
        conditions: texts and lengths ("prompt", "length"), held out where possible.
        scorer: of the motions; None for none.
        record: where motions go.
    """

    def __init__(
        self,
        config: TrainConfig,
        loaded: LoadedMotion,
        store: MotionStore,
        conditions: Sequence[Mapping[str, Any]],
        scorer: Scorer | None,
        record: Record,
    ) -> None:
        self.conditions = list(conditions)[: config.sample_prompts]
        self.prompts = [str(c["prompt"]) for c in self.conditions]
        self.lengths = [int(c["length"]) for c in self.conditions]
        self._seeds = [config.seed * 100_003 + n for n in range(len(self.prompts))]
        self._steps = min(config.num_inference_steps, loaded.pipe.scheduler.config.num_train_timesteps)
        codec = loaded.pipe.codec
        self.settings = {
            "num_inference_steps": self._steps,
            "guidance_scale": config.guidance_scale,
            "seeds": self._seeds[:SHOWN],
            "fps": loaded.pipe.stats.fps,
            "codec": codec.name,
            "parents": list(codec.skeleton.parents),
        }
        self._config, self._loaded, self._store, self._scorer = config, loaded, store, scorer
        self._record = record
        self._first: list[Tensor] | None = None

    def draw(self, step: int) -> list[Tensor]:
        """(F, D) features each, in physical units.

        Raises:
            ValueError: samples that are no numbers.
        """
        config = self._config
        drawn = self._loaded.pipe(
            self.prompts,
            self.lengths,
            num_inference_steps=self._steps,
            guidance_scale=config.guidance_scale,
            seeds=self._seeds,
            batch_size=config.per_device_eval_batch_size,
            text_embeds_BE=self._store.embeddings(self.prompts),
        ).features
        if not all(bool(x.isfinite().all()) for x in drawn):
            raise ValueError(f"samples after step {step} are not finite: the model has diverged")
        return list(drawn)

    def measure(self, drawn: list[Tensor], step: int) -> dict[str, float]:
        """sample_change: root mean square distance of joints to the first samples, metres; sample_jerk: mean of |d3x/dt3|, m/s3."""
        from prefopt.metrics.motion import jerk

        positions = [self._loaded.pipe.codec.positions(x) for x in drawn]
        position_BFJ3, length_B = padded(positions)
        found = {"sample_jerk": float(jerk(position_BFJ3, length_B, self._loaded.pipe.stats.fps).mean())}
        shown = [torch.round(p, decimals=DIGITS) for p in positions[:SHOWN]]
        if self._first is None:
            self._first = (self._read_first() if step else None) or shown
        apart = [
            (a - b).square().sum(-1).mean()
            for a, b in zip(shown, self._first, strict=False)
            if a.shape == b.shape
        ]
        if apart:
            found["sample_change"] = float(torch.stack(apart).mean().sqrt())
        return found

    def rewards(self, drawn: list[Tensor]) -> list[float | None]:
        """What the scorer gives."""
        if self._scorer is None:
            return [None] * len(drawn)
        features_BFD, length_B = padded(drawn)
        return list(self._scorer(self.prompts, features_BFD, length_B).tolist())

    def entries(self, drawn: list[Tensor], step: int) -> list[dict[str, Any]]:
        """Positions of joints of the first motions, and poses along time as a picture, of the first and of the newest ones."""
        from prefopt.motion.drawing import strip_picture

        codec, found = self._loaded.pipe.codec, []
        for n, features_FD in enumerate(drawn[:SHOWN]):
            motion = codec.positions(features_FD)
            poses = strip_picture(motion, codec.skeleton, self._loaded.pipe.stats.fps, size=PICTURE)
            path = self._record.picture_file(f"motion-{n}-{'newest' if step else 'first'}", poses)
            found.append({"motion": rounded(motion), "length": len(features_FD), "poses": path})
        return found

    def _read_first(self) -> list[Tensor] | None:
        """Positions of the samples before the first step, as the record has them; None where it has not."""
        prompts = (self._record.read("samples") or {}).get("prompts", [])
        found = []
        for row in prompts[:SHOWN]:
            first = next((g for g in row.get("generations", []) if g.get("step") == 0), None)
            if first is None or "motion" not in first:
                return None
            found.append(torch.tensor(first["motion"]))
        return found or None


def rounded(positions_FJ3: Tensor) -> list[list[list[float]]]:
    """Positions as a file holds them: metres to the millimetre."""
    return [[[round(x, DIGITS) for x in joint] for joint in frame] for frame in positions_FJ3.tolist()]
