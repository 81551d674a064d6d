"""Runs on videos: what the reference sees, videos drawn anew, features on disk, exact resume, two stages."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny_vision
from modalities.image.image_runs import note, record
from modalities.vision_language.video.video_runs import anchored_rows, column, written
from modalities.vision_language.vision_runs import train
from prefopt.config import ConfigError
from prefopt.modalities.vision_language.video.strips import ANCHOR, EDGE


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision.save_tiny("qwen2_5_vl", tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("clips")
    made = anchored_rows(folder)
    for n, row in enumerate(made):  # absolute, so that rows can be written anywhere
        row["prompt"][0]["content"] = f"what is in {tiny_vision.WORDS[7 + n]} picture ?"
        for clip in (*row["video"], *row["pool"]):
            clip["source"] = [str(folder / name) for name in clip["source"]]
    return made


SHORT: dict[str, Any] = {
    "max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3, "eval_size": 0,
}  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return all(torch.equal(a[k], b[k]) for k in a)


def run(method: str, qwen: Path, rows: list[dict[str, Any]], folder: Path, **options: Any) -> Any:
    folder.mkdir(exist_ok=True)
    return train(method, qwen, written(folder, rows), folder / "run", **{**SHORT, **options})


def test_the_start_is_the_offset_of_the_reference(qwen, rows, own_cache, tmp_path):
    anchored = run("longvpo", qwen, rows, tmp_path / "a", alpha=0, redraw_videos=False)
    whole = run("dpo", qwen, rows, tmp_path / "b", reference_context="full")
    assert column(tmp_path / "b" / "run", "loss")[0] == pytest.approx(math.log(2), abs=1e-6)
    start = column(tmp_path / "a" / "run", "loss")[0]
    assert abs(start - math.log(2)) > 1e-4
    told = note(tmp_path / "a" / "run", "start margin")
    assert float(told.partition("start at zero: ")[2].split()[0]) == pytest.approx(
        column(tmp_path / "a" / "run", "rewards/margins")[0] / 0.1, rel=0.5, abs=3
    )
    assert "policy equals reference" in note(tmp_path / "a" / "run", "start value")
    assert anchored.metrics
    assert whole.metrics


def test_a_cached_reference_is_a_live_one(qwen, rows, own_cache, tmp_path):
    cached = run("longvpo", qwen, rows, tmp_path / "a")
    live = run("longvpo", qwen, rows, tmp_path / "b", reference="live")
    for name in ("loss", "rewards/margins"):
        assert column(tmp_path / "a" / "run", name) == pytest.approx(
            column(tmp_path / "b" / "run", name), abs=2e-5
        )
    assert "4 of 8" not in note(tmp_path / "a" / "run", "reference cache")
    assert cached.metrics
    assert live.metrics


def test_the_reference_is_scored_once_however_videos_are_drawn(qwen, rows, own_cache, tmp_path):
    run("longvpo", qwen, rows, tmp_path / "a")
    assert "8 of 8 items scored" in note(tmp_path / "a" / "run", "reference cache")
    run("longvpo", qwen, rows, tmp_path / "b", seed=3, redraw_videos=False)
    assert "items were there already" in note(tmp_path / "b" / "run", "reference cache")
    # a reference that sees the whole video has to see each of them
    run("longvpo", qwen, rows, tmp_path / "c", reference_context="full")
    scored, items = note(tmp_path / "c" / "run", "reference cache").split()[0:3:2]
    assert int(items) == 8 + 2 * 8
    assert 8 + 8 < int(scored) <= int(items)  # few clips: some videos are drawn twice


def test_videos_are_drawn_anew_each_epoch(qwen, rows, own_cache, tmp_path):
    run("longvpo", qwen, rows, tmp_path / "a")
    assert "of 4 of 4 examples" in note(tmp_path / "a" / "run", "videos drawn anew")
    run("longvpo", qwen, rows, tmp_path / "b", redraw_videos=False)
    assert column(tmp_path / "a" / "run", "loss") != column(tmp_path / "b" / "run", "loss")


@pytest.mark.parametrize("name", ["qwen2_5_vl", pytest.param("internvl", marks=pytest.mark.slow)])
def test_features_from_disk_give_the_same_run(name, rows, own_cache, tmp_path):
    model = tiny_vision.save_tiny(name, tmp_path / "model")
    frozen = {"freeze": ["vision_tower", "projector"]}
    run("longvpo", model, rows, tmp_path / "a", **frozen)
    run("longvpo", model, rows, tmp_path / "b", cache_vision_features=True, **frozen)
    for key in ("loss", "rewards/margins"):
        assert column(tmp_path / "a" / "run", key) == pytest.approx(
            column(tmp_path / "b" / "run", key), abs=1e-5
        )
    assert "20 of 20 pictures or clips encoded" in note(tmp_path / "b" / "run", "vision features")
    run("longvpo", model, rows, tmp_path / "c", cache_vision_features=True, seed=5, **frozen)
    assert "0 of 20" in note(tmp_path / "c" / "run", "vision features")


def test_an_interrupted_run_ends_as_an_unbroken_one(qwen, rows, own_cache, tmp_path):
    run("longvpo", qwen, rows, tmp_path / "whole", max_steps=6)
    keep: dict[str, Any] = {"max_steps": 6, "save_steps": 3, "save_strategy": None}
    run("longvpo", qwen, rows, tmp_path / "part", **keep)
    checkpoints = tmp_path / "part" / "run" / "checkpoints"
    for path in checkpoints.iterdir():
        if path.name != "step-00000003":
            shutil.rmtree(path)
    shutil.rmtree(tmp_path / "part" / "run" / "model")
    run("longvpo", qwen, rows, tmp_path / "part", **keep, resume=True)
    assert same(tmp_path / "whole" / "run", tmp_path / "part" / "run")


def test_two_stages_in_a_row(qwen, rows, own_cache, tmp_path):
    second = [
        {
            **{k: v for k, v in row.items() if k not in ("pool", "pinned", "anchor")},
            "reference_context": "full",
        }
        for row in rows
    ]
    path = written(tmp_path, second, "second.jsonl")
    result = run("longvpo", qwen, rows, tmp_path / "both", stage2_data=str(path), max_steps=2)
    stages = tmp_path / "both" / "run" / "stages"
    assert column(stages / "2" / "run", "loss")[0] == pytest.approx(
        math.log(2) + column(stages / "2" / "run", "sft")[0], abs=1e-5
    )
    assert same(stages / "2" / "run", tmp_path / "both" / "run")
    assert not same(stages / "1" / "run", tmp_path / "both" / "run")
    alone = run("longvpo", qwen, rows, tmp_path / "first", max_steps=2)
    assert same(stages / "1" / "run", tmp_path / "first" / "run")
    assert json.loads((stages / "2" / "run" / "record" / "manifest.json").read_text())["model"][
        "source"
    ].endswith("stages/1/run/model")
    assert result.metrics
    assert alone.metrics


def test_the_second_stage_belongs_to_methods_that_have_one(qwen, rows, own_cache, tmp_path):
    with pytest.raises(ConfigError, match="stage2_data: for methods of several runs, and dpo is one run"):
        run("dpo", qwen, rows, tmp_path / "a", stage2_data="x.jsonl")


def test_beta_0_needs_no_reference(qwen, rows, own_cache, tmp_path):
    result = run("longvpo", qwen, rows, tmp_path / "a", beta=0.0)
    first = column(tmp_path / "a" / "run", "loss")[0]
    assert first == pytest.approx(math.log(2) + column(tmp_path / "a" / "run", "sft")[0], abs=1e-5)
    assert result.metrics


@pytest.mark.parametrize(
    "method", ["dpo_rk", *(pytest.param(name, marks=pytest.mark.slow) for name in ("kto", "simpo"))]
)
def test_objectives_of_text_take_videos(method, qwen, rows, own_cache, tmp_path):
    result = run(method, qwen, rows, tmp_path / "a", max_steps=2)
    assert math.isfinite(result.metrics["loss"])


def test_a_saved_model_loads_in_transformers(qwen, rows, own_cache, tmp_path):
    from transformers import AutoModelForImageTextToText

    run("longvpo", qwen, rows, tmp_path / "a", max_steps=2)
    saved = tmp_path / "a" / "run" / "model"
    assert (saved / "video_preprocessor_config.json").read_bytes() == (
        qwen / "video_preprocessor_config.json"
    ).read_bytes()
    AutoModelForImageTextToText.from_pretrained(saved)
    pair = record(tmp_path / "a" / "run", "first_pair")
    (strip,) = pair["pictures"]
    assert strip["name"] == "video"
    with Image.open(tmp_path / "a" / "run" / strip["path"]) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    assert pixels.shape[1] == 3 * (96 + 2 * EDGE)
    marked = [tuple(pixels[0, k * (96 + 2 * EDGE)]) == ANCHOR for k in range(3)]
    assert sum(marked) == 1
    texts = [segment["text"] for side in pair["sides"] for segment in side["segments"]]
    assert any("[video: 24 tokens]" in text for text in texts)
