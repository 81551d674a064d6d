"""Embeddings of the frames of clips, kept in the user's cache by content.

Legend: F frames of a clip, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prefopt.comparisons import UnusableItem
from prefopt.modalities.vision_language.building.embedders import AT_ONCE, Embedder
from prefopt.modalities.vision_language.video.building.clips import Clip
from prefopt.modalities.vision_language.video.frames import images_of
from prefopt.shards import ShardCache
from prefopt.sources.progress import with_bar
from prefopt.sources.report import Dropped


def embedded(
    clips: Sequence[Clip], embedder: Embedder
) -> tuple[list[Clip], list[np.ndarray[Any, Any]], list[Dropped]]:
    """Clips that can be decoded, (F, D) embeddings of the frames of each, and the others with reasons.

    Args:
        clips: with their frames chosen.
        embedder: of images.

    Raises:
        ValueError: the embedder returns something else than embeddings.
        OSError: the cache cannot be written.
    """
    cache = ShardCache("clip-embeddings", embedder.identity)
    pending: dict[str, np.ndarray[Any, Any]] = {}
    kept, dropped, frames = [], [], 0
    for clip in with_bar(clips, "embedding clips"):
        digest = clip.ref.digest
        if digest not in cache and digest not in pending:
            try:
                images = images_of(clip.ref)
            except UnusableItem as error:
                dropped.append(Dropped(clip.row, clip.id, error.reason, str(error)))
                continue
            size = embedder.batch_size
            parts = [embedder.of(images[n : n + size]) for n in range(0, len(images), size)]
            pending[digest] = np.concatenate(parts).ravel()
            frames += len(images)
        if frames >= AT_ONCE:
            cache.add(pending)
            pending, frames = {}, 0
        kept.append(clip)
    cache.add(pending)
    return kept, [cache[clip.ref.digest].reshape(len(clip.ref.frames or ()), -1) for clip in kept], dropped
