"""Examples whose videos are drawn anew: what was known of their texts is used again where it is the same, and there alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import tiny_vision
from modalities.vision_language.video.video_runs import anchored_rows, clip_row, written
from prefopt.comparisons import Encoded, Item
from prefopt.modalities.vision_language.opening import open_images, pictured_likelihood
from prefopt.modalities.vision_language.rows import load_pictured
from prefopt.modalities.vision_language.video.redrawing import Redrawing


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "smolvlm"])
@pytest.mark.parametrize("frames", [4, 2], ids=["alike", "of other lengths"])
def test_a_video_drawn_anew_is_read_as_if_it_had_been_there_from_the_start(
    name, frames, tmp_path, monkeypatch
):
    source = str(tiny_vision.save_tiny(name, tmp_path / "model"))
    likelihood: Any = pictured_likelihood(open_images(source), None, source)
    rows = anchored_rows(tmp_path)
    for n, row in enumerate(rows):
        row["pool"] = [clip_row(tmp_path, f"spare{n}{k}", frames) for k in range(2)]
    examples = load_pictured(written(tmp_path, rows)).examples
    encoded = [
        Encoded(one.id, tuple(likelihood.encode(item) for item in one.items), one.comparisons)
        for one in examples
    ]
    likelihood.redrawing = Redrawing(0, {one.id: 3 for one in examples})
    again = []
    encode = likelihood.encode
    monkeypatch.setattr(likelihood, "encode", lambda item: again.append(item) or encode(item))
    for epoch in range(6):
        for example, fresh in zip(encoded, (likelihood.at(one, epoch) for one in encoded), strict=True):
            for item, old in zip(fresh.items, example.items, strict=True):
                [video] = item.pictures
                slow = encode(Item({**old.drawn_from.condition, "pictures": (video,)}, old.drawn_from.sample))
                own = {"reference": None, "changed": None, "drawn_from": None}
                assert replace(item, **own) == replace(slow, **own)
                assert item.reference == old.reference
                assert item.drawn_from == old.drawn_from
    assert (again == []) == (frames == 4)
    assert len({v.digest for one in encoded for v in one.items[0].pictures}) == 4
