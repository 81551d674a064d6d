"""Motions and text embeddings of a run: motions from their files as they are needed, texts once and then from disk.

Legend: N items, F frames, D features, E width of a text's embedding.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefopt.modalities.motion.models import LoadedMotion
from prefopt.modalities.motion.refs import MotionRef
from prefopt.models.identity import fingerprint
from prefopt.shards import ShardCache, chunks, text_key

TEXT_BATCH = 64
SHARD_ITEMS = 4096
KEPT_BYTES = 2**30
"""Of motions in memory; those used longest ago are read again."""


class MotionStore:
    """What a denoiser of motions is trained on, by content key.

    Args:
        loaded: the pipeline.
        options: `share`, `wait` and `progress` of `ShardCache.fill`.
    """

    def __init__(self, loaded: LoadedMotion, **options: Any) -> None:
        pipe = loaded.pipe
        self.loaded, self.options = loaded, options
        self.shape = (pipe.max_frames, len(pipe.stats.mean_D))
        stats = hashlib.blake2b(
            torch.stack([pipe.stats.mean_D, pipe.stats.std_D]).cpu().numpy().tobytes(), digest_size=16
        ).hexdigest()
        text = {"text": text_identity(pipe), "version": 1}
        self.identity: Mapping[str, Any] = {"stats": stats, "prompts": text}
        self._prompts = ShardCache("motion-prompts", text, dtype=np.float32)
        self._stats = copy.deepcopy(pipe.stats).cpu()  # the pipeline's own move with it
        self._refs: dict[str, MotionRef] = {}
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def add_motions(self, refs: Iterable[MotionRef]) -> None:
        """Make motions known."""
        self._refs |= {ref.digest: ref for ref in refs}

    def add_prompts(self, prompts: Sequence[str]) -> int:
        """Embed texts that the cache lacks; returns how many."""

        def compute(batch: list[str]) -> list[np.ndarray]:
            return list(self.loaded.pipe.encode_texts(batch).cpu().numpy())

        wanted = {text_key(prompt): prompt for prompt in prompts if prompt}

        return self._prompts.fill(
            wanted,
            compute,
            chunks(TEXT_BATCH),
            shard_items=SHARD_ITEMS,
            label="Text embeddings",
            **self.options,
        )

    def embeddings(self, prompts: Sequence[str]) -> Tensor:
        """(N, E) embeddings; zeros of the empty text, which stands for none."""
        width = int(self.loaded.pipe.denoiser.config.text_width)
        rows = [self._prompts[text_key(p)] if p else np.zeros(width, np.float32) for p in prompts]
        return torch.from_numpy(np.stack(rows))

    def motion(self, key: str) -> Tensor:
        """(F, D) features of a motion in physical units."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        features = self._refs[key].read().float()
        self._kept[key] = features
        self._bytes += features.nbytes
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return features

    def normalize(self, features: Tensor) -> Tensor:
        """Z-scores, on the CPU."""
        return self._stats.normalize(features)

    def denormalize(self, z: Tensor) -> Tensor:
        """Physical units, on the CPU."""
        return self._stats.denormalize(z.float().cpu())

    def latents(self, keys: Sequence[str]) -> tuple[Tensor, None]:
        """(N, F, D) z-scores of whole motions, zeros behind their ends; what is longer than the model's motions is cut."""
        whole = torch.zeros(len(keys), *self.shape)
        for n, key in enumerate(keys):
            z = self.normalize(self.motion(key)[: self.shape[0]])
            whole[n, : len(z)] = z
        return whole, None

    def conditions(
        self, prompts: Sequence[str], sizes: Sequence[tuple[int, ...]] | None = None
    ) -> dict[str, Tensor]:
        """Embeddings of texts, as `text`."""
        return {"text": self.embeddings(prompts)}


def text_identity(pipe: Any) -> str:
    """Digest of all that text embeddings depend on besides the text."""
    state = json.loads(pipe.tokenizer.backend_tokenizer.to_str())
    rules = {k: v for k, v in state.items() if k not in ("truncation", "padding")}
    known = [fingerprint(pipe.text_encoder), rules, int(pipe.config.max_text_tokens)]
    return hashlib.blake2b(
        json.dumps(known, sort_keys=True, default=str).encode(), digest_size=16
    ).hexdigest()
