"""Accuracy by where the evidence stands: the same examples with their anchor at the beginning, at the end, and between.

An example counts as right where the policy finds the chosen answer likelier than the rejected one. No reference is asked, so
that before and after training are measured alike.

Source: LongVPO (arXiv 2602.02341), evaluation by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from prefopt.comparisons import Encoded, Item
from prefopt.likelihoods.plan import EncodedText
from prefopt.modalities.base import Probe
from prefopt.modalities.vision_language.likelihood import PicturedLikelihood
from prefopt.modalities.vision_language.plan import EncodedPictured
from prefopt.runs.record import Record

POSITIONS = 5
MOST = 32
"""Examples that are measured."""
MOMENTS = ("before", "after")


@dataclass(frozen=True)
class PositionProbe:
    """Measures what another probe does, and accuracy by position before and after training.

    Attributes:
        inner: the other probe.
        likelihood: of the run.
        model: the policy, unwrapped.
        accelerator: for autocast and the device.
        record: where accuracies go.
        examples: pairs around an anchor.
        split: what they are, "eval" or training rows.
    """

    inner: Probe
    likelihood: PicturedLikelihood
    model: nn.Module
    accelerator: Any
    record: Record
    examples: Sequence[Encoded[EncodedText]]
    split: str

    def take(self, step: int, label: str) -> dict[str, float]:
        """What the other probe gives; at either end also the spread of accuracies over positions."""
        values = self.inner.take(step, label)
        if label not in MOMENTS or not self.examples:
            return values
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            accuracies = [self.accuracy(share / (POSITIONS - 1)) for share in range(POSITIONS)]
        self.model.train()
        self.record.add(
            "positions",
            **{label: accuracies, "examples": len(self.examples), "split": self.split},
            positions=[share / (POSITIONS - 1) for share in range(POSITIONS)],
        )
        return {
            **values,
            "position_accuracy": sum(accuracies) / POSITIONS,
            "position_spread": max(accuracies) - min(accuracies),
        }

    def accuracy(self, position: float) -> float:
        """Share of examples that are right with the anchor at a position in [0, 1]; ties count one half."""
        right = 0.0
        for example in self.examples:
            items = self.likelihood.align(
                [self._placed(item, position, example.id) for item in example.items]
            )
            plan = self.likelihood.plan(items).to(self.accelerator.device)
            better, worse = self.likelihood.score(self.model, plan).logp_N.tolist()
            right += (better > worse) + (better == worse) / 2
        return right / len(self.examples)

    def _placed(self, item: EncodedText, position: float, name: str) -> EncodedText:
        source = item.drawn_from if isinstance(item, EncodedPictured) else None
        assert source is not None  # only such examples are measured
        redraw = source.condition["redraw"]
        video = redraw.video(round(position * redraw.distractors), f"position/{name}")
        return replace(
            self.likelihood.encode(Item({**source.condition, "pictures": (video,)}, source.sample)),
            reference=None,
        )


def around_anchors(examples: Sequence[Encoded[EncodedText]]) -> list[Encoded[EncodedText]]:
    """The first pairs whose video can be put together anew."""
    found = [
        example
        for example in examples
        if len(example.items) == 2
        and all(isinstance(item, EncodedPictured) and item.drawn_from is not None for item in example.items)
    ]
    return found[:MOST]
