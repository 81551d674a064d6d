"""Accuracy by position: where the anchor is put, what counts as right, and when it is measured."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prefopt.comparisons import Comparison, Encoded, Item
from prefopt.modalities.vision_language.plan import EncodedPictured
from prefopt.modalities.vision_language.video.positions import PositionProbe, around_anchors
from prefopt.modalities.vision_language.video.redrawing import Redraw
from prefopt.sources.pictures import as_ref
from prefopt.sources.videos import ClipRef


def clip(number: int) -> ClipRef:
    image = as_ref(np.full((4, 4, 3), number, np.uint8), f"{number}")
    return ClipRef((image,), frames=(0,), name=f"{number}")


ANCHOR = clip(0)
REDRAW = Redraw(ANCHOR, (clip(1),), tuple(clip(n) for n in range(2, 9)), 4)


def example(name: str, redraw: Redraw | None = REDRAW) -> Encoded[Any]:
    condition = {"prompt": "?", **({} if redraw is None else {"redraw": redraw})}
    items = [
        EncodedPictured(array("i", [1, 2]), 1, drawn_from=None if redraw is None else Item(condition, answer))
        for answer in ("right", "wrong")
    ]
    return Encoded(name, tuple(items), (Comparison(0, 1),))


class Likelihood:
    """Prefers the right answer where the anchor stands in the first two of five places, the wrong one in the last, and neither between."""

    def encode(self, item: Item) -> Any:
        (video,) = item.condition["pictures"]
        assert len(video.clips) == 5
        assert REDRAW.pinned[0] in video.clips
        return EncodedPictured(array("i", [video.clips.index(ANCHOR), item.sample == "right"]), 1)

    def align(self, items: list[Any]) -> list[Any]:
        return items

    def plan(self, items: list[Any]) -> Any:
        return SimpleNamespace(items=items, to=lambda device: SimpleNamespace(items=items))

    def score(self, model: Any, plan: Any) -> Any:
        preference = {0: 1.0, 1: 1.0, 2: 0.0, 3: 0.0, 4: -1.0}
        scores = [preference[item.ids[0]] * (1 if item.ids[1] else -1) for item in plan.items]
        return SimpleNamespace(logp_N=torch.tensor(scores))


class Accelerator:
    device = torch.device("cpu")

    def autocast(self) -> Any:
        return torch.no_grad()


def probe(examples: list[Encoded[Any]], kept: dict[str, Any]) -> PositionProbe:
    record: Any = SimpleNamespace(add=lambda name, **values: kept.update(values))
    inner: Any = SimpleNamespace(take=lambda step, label: {"kl": 1.0})
    likelihood: Any = Likelihood()
    return PositionProbe(inner, likelihood, torch.nn.Linear(1, 1), Accelerator(), record, examples, "eval")


def test_the_anchor_is_put_at_five_places():
    kept: dict[str, Any] = {}
    found = probe([example("a"), example("b")], kept).take(0, "before")
    assert kept["before"] == [1.0, 1.0, 0.5, 0.5, 0.0]
    assert kept["positions"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert found == {"kl": 1.0, "position_accuracy": pytest.approx(0.6), "position_spread": 1.0}


def test_it_is_measured_at_both_ends_alone():
    kept: dict[str, Any] = {}
    assert probe([example("a")], kept).take(5, "step 5") == {"kl": 1.0}
    assert not kept


def test_only_pairs_around_an_anchor_are_measured():
    known = [example("a"), example("b", None), example("c")]
    assert [one.id for one in around_anchors(known)] == ["a", "c"]
