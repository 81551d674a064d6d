"""Images under fixed prompts and control images through a run, drawn from the same noise each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefopt.config import TrainConfig
from prefopt.modalities.control.models import LoadedControl
from prefopt.modalities.control.store import CachedControls
from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.samples import ImageSamples, Scorer
from prefopt.runs.record import Record


class ControlSamples(ImageSamples):
    """One image a condition; see `ImageSamples`.

    Args:
        config: number of conditions, steps, guidance.
        loaded: the policy's pipeline.
        store: for embeddings and control images.
        conditions: {"prompt": text, "control": ImageRef}, held out where possible.
        scorer: of the images; None for none.
        record: where pictures go.
    """

    _store: CachedControls

    def __init__(
        self,
        config: TrainConfig,
        loaded: LoadedControl,
        store: CachedControls,
        conditions: Sequence[Mapping[str, Any]],
        scorer: Scorer | None,
        record: Record,
    ) -> None:
        super().__init__(config, loaded, store, [c["prompt"] for c in conditions], scorer, record)
        self._keys = [c["control"].digest for c in conditions][: len(self.prompts)]

    def conditions(self) -> Conditions:
        """Prompts and control images."""
        found = super().conditions()
        return Conditions({**found.tensors, "control": self._store.controls(self._keys)})
