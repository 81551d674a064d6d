"""`prefopt build symmetric-pairs`: two plain pairs a row, whose loss is SymMPO's pair term."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import prefopt
import tiny_vision
from modalities.image.image_runs import QUIET
from modalities.vision_language.building.build_runs import (
    built,
    noisy,
    read,
    row,
)
from prefopt.cli.main import main
from prefopt.modalities.vision_language.rows import PAIRS, load_pictured


def split(folder: Path, rows: Path, *options: str) -> Any:
    return CliRunner().invoke(
        main, ["build", "symmetric-pairs", str(rows), "-o", str(folder / "split.jsonl"), *options]
    )


def test_rows_of_two_pictures_become_two_pairs(tmp_path):
    built(tmp_path, noisy(tmp_path, 3), "shuffle")
    done = split(tmp_path, tmp_path / "out" / "rows.jsonl")
    assert done.exit_code == 0, done.output
    assert "6 pairs of 3 rows" in done.output
    rows = read(tmp_path / "out")
    pairs = read(tmp_path, "split")
    for one, own, other in zip(rows, pairs[::2], pairs[1::2], strict=True):
        assert own["id"], other["id"] == (f"{one['id']}-own", f"{one['id']}-contrast")
        assert (own["chosen"], own["rejected"]) == (one["chosen"], one["contrast_chosen"])
        assert (other["chosen"], other["rejected"]) == (one["contrast_chosen"], one["chosen"])
        for half, column in ((own, "images"), (other, "contrast_images")):
            assert (tmp_path / half["images"][0]).resolve() == (tmp_path / "out" / one[column][0]).resolve()
    assert len(load_pictured(str(tmp_path / "split.jsonl"), wanted=PAIRS)) == 6
    assert "is there already" in split(tmp_path, tmp_path / "out" / "rows.jsonl").output
    assert split(tmp_path, tmp_path / "out" / "rows.jsonl", "--force").exit_code == 0


def test_rows_without_a_contrast_cannot_be_split(tmp_path):
    data = tmp_path / "data.jsonl"
    rows = noisy(tmp_path, 2, contrast_image="noise-0.png", contrast_chosen="c")
    data.write_text("".join(json.dumps(one) + "\n" for one in [*rows, row(4, "noise-1.png")]))
    done = split(tmp_path, data)
    assert "2 pairs of 1 rows; 1 identical_images; 1 missing_value" in done.output


def test_dpo_on_the_pairs_is_the_pair_term_of_symmpo(tmp_path):
    """Specification 12, condition 7: no margin, no anchor, no response pair; a step over all rows is the same step."""
    model = tiny_vision.save_tiny("llava", tmp_path / "llava")
    rows = noisy(tmp_path, 3)
    for n, one in enumerate(rows):  # in the model's words
        one |= {side: [{"role": "assistant", "content": f"{side_word} {tiny_vision.WORDS[n + 7]}"}]
                for side, side_word in (("chosen", "a"), ("rejected", "no"))}  # fmt: skip
    built(tmp_path, rows, "shuffle")
    assert split(tmp_path, tmp_path / "out" / "rows.jsonl").exit_code == 0
    shared = {"model": str(model), "max_steps": 2, "learning_rate": 1e-2, "warmup_ratio": 0, **QUIET}
    pairs = prefopt.train(
        "dpo",
        data=str(tmp_path / "split.jsonl"),
        output_dir=str(tmp_path / "dpo"),
        per_device_train_batch_size=6,
        **shared,
    )
    symmetric = prefopt.train(
        "symmpo", data=str(tmp_path / "out" / "rows.jsonl"), output_dir=str(tmp_path / "symmpo"), per_device_train_batch_size=3,
        response_weight=0, margin_weight=0, anchor_weight=0, pair_weight=0.5, **shared,
    )  # fmt: skip
    ours, theirs = ([line["loss"] for line in run.history if "loss" in line] for run in (symmetric, pairs))
    assert ours[0] == pytest.approx(math.log(2), rel=1e-5)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert abs(ours[1] - ours[0]) > 1e-3
