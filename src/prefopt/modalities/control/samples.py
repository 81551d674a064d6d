"""Images under fixed prompts and control images through a run, drawn from the same noise each time, and read by a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prefopt.config import TrainConfig
from prefopt.modalities.control.building import without_ignored
from prefopt.modalities.control.detectors import HEADLINE, Detector, Labels, fidelity
from prefopt.modalities.control.models import LoadedControl
from prefopt.modalities.control.store import CachedControls
from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.samples import SHOWN, ImageSamples, Scorer, file_name
from prefopt.runs.record import Record


class ControlSamples(ImageSamples):
    """One image a condition; see `ImageSamples`. With a detector their score is how far it agrees with the condition.

    Args:
        config: number of conditions, steps, guidance.
        loaded: the policy's pipeline.
        store: for embeddings and control images.
        conditions: {"prompt": text, "control": ImageRef}, held out where possible.
        scorer: of the images; None for the detector's agreement, or none.
        record: where pictures go.
        detector: reads the images; None for none. Poses cannot be read from a control image, so they are not judged here.
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
        detector: Detector | None = None,
    ) -> None:
        super().__init__(config, loaded, store, [c["prompt"] for c in conditions], scorer, record)
        self._keys = [c["control"].digest for c in conditions][: len(self.prompts)]
        self._detector = None if detector is None or detector.metric == "pose" else detector
        self._true: Labels | None = None
        self._found: tuple[Tensor, Labels] | None = None

    def conditions(self) -> Conditions:
        """Prompts and control images."""
        found = super().conditions()
        return Conditions({**found.tensors, "control": self._store.controls(self._keys)})

    def measure(self, drawn: Tensor, step: int) -> dict[str, float]:
        """As of images, and `sample_diversity`; `fidelity_NAME`, by the detector's metric, and `sample_agreement`."""
        measured = super().measure(drawn, step)
        if len(drawn) > 1:
            measured["sample_diversity"] = diversity(drawn)
        if self._detector is None:
            return measured
        true, found = self._read(drawn)
        name, _ = HEADLINE[self._detector.metric]
        told = fidelity(self._detector.metric, list(true), list(found))
        agreement = float(self._detector.agreement(true, found).mean())
        return measured | {f"fidelity_{name}": told[name], "sample_agreement": agreement}

    def rewards(self, drawn: Tensor) -> list[float | None]:
        """What the scorer gives; without one, how far the detector agrees with the condition."""
        if self._scorer is not None or self._detector is None:
            return super().rewards(drawn)
        return list(self._detector.agreement(*self._read(drawn)).tolist())

    def entries(self, drawn: Tensor, step: int) -> list[dict[str, Any]]:
        """Paths of the first images, of their conditions, and of what the detector sees in them.

        How far it agrees on every image goes to record/fidelity.json.
        """
        entries = super().entries(drawn, step)
        controls = self._store.controls(self._keys[:SHOWN])
        for n, (entry, control_CHW) in enumerate(zip(entries, controls, strict=True)):
            entry["given"] = self._record.picture(f"given-{n}", control_CHW)
        if self._detector is None:
            return entries
        true, found = self._read(drawn)
        agreement_B = [round(x, 6) for x in self._detector.agreement(true, found).tolist()]
        for n, picture_CHW in enumerate(self._detector.draw(found)[:SHOWN]):
            entries[n]["read"] = self._record.picture(f"{file_name(step, n)}-read", picture_CHW)
            entries[n]["agreement"] = agreement_B[n]
        self._note(step, agreement_B)
        return entries

    def _note(self, step: int, agreement_B: list[float]) -> None:
        """Agreement of all samples: a change can be told from chance only image by image."""
        assert self._detector is not None
        name, higher = HEADLINE[self._detector.metric]
        before = self._record.read("fidelity")["steps"] if self._record.has("fidelity") else []
        steps = [
            *(entry for entry in before if entry["step"] != step),
            {"step": step, "agreement": agreement_B},
        ]
        self._record.add(
            "fidelity", detector=self._detector.name, metric=name, higher_is_better=higher, steps=steps
        )

    def _read(self, drawn: Tensor) -> tuple[Labels, Labels]:
        """Labels of the conditions and of the images."""
        assert self._detector is not None
        if self._true is None:
            self._true = self._detector.read(self._store.controls(self._keys))
        if self._found is None or self._found[0] is not drawn:
            with torch.autocast("cpu", enabled=False):
                self._found = drawn, without_ignored(self._true, self._detector.detect(drawn.float()))
        return self._true, self._found[1]


def diversity(images_BCHW: Tensor) -> float:
    """Mean root mean square distance of two of these images, at least two, each in [0, 1].

    Example:
        >>> diversity(torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)]))
        1.0
    """
    flat_BD = images_BCHW.flatten(1).float()
    return float(torch.pdist(flat_BD).mean() / flat_BD.shape[1] ** 0.5)
