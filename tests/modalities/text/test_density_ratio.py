"""BCO's weights by prompts, through whole runs: what the loss sees of them, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import prefopt
from prefopt.config import ConfigError

WORDS = ("red", "blue", "apple", "fig", "pear")
ROWS = [
    {
        "prompt": f"{'Count' if good else 'Sort'}: {WORDS[n % 5]} {WORDS[n // 5]}",
        "completion": f" {WORDS[(n + 1) % 5]}",
        "label": good,
    }
    for good in (True, False)
    for n in range(20)
]
# a few bad samples under prompts of the good kind
ROWS += [{"prompt": f"Count: {word} {word}", "completion": " one", "label": False} for word in WORDS[:3]]
QUIET: dict[str, Any] = {
    "eval_size": 0,
    "sample_prompts": 0,
    "save_strategy": "no",
    "logging_steps": 1,
    "max_steps": 2,
    "per_device_train_batch_size": len(ROWS),
    "learning_rate": 1e-3,
}


def train(model: Path, data: Any, folder: Path, **options: Any) -> prefopt.TrainResult:
    return prefopt.train("bco", model=model, data=data, output_dir=str(folder), **{**QUIET, **options})


def losses(result: prefopt.TrainResult) -> list[float]:
    return [line["loss"] for line in result.history if "loss" in line and "grad_norm" in line]


def test_weights_are_found_told_and_read(
    tiny_model: Path, rows_file: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    bounds = {"min_density_ratio": 0.25, "max_density_ratio": 3.0}
    result = train(tiny_model, rows_file(ROWS), tmp_path / "run", density_ratio_weights=True, **bounds)
    manifest = json.loads((tmp_path / "run" / "record" / "manifest.json").read_text())
    told = manifest["density_ratio"]
    assert told["accuracy"] > 0.9  # the first word says it
    assert told["least"] == 0.25
    assert 1 < told["greatest"] <= 3.0
    (check,) = [c for c in manifest["checks"] if c["name"] == "density-ratio weights"]
    assert f"accuracy {told['accuracy']:.2f}" in check["detail"]
    assert f"from 0.25 to {told['greatest']:.3g}" in check["detail"]
    # log 2 a sample at the start, where all rewards are 0
    start = 0.6931472 * (20 + 23 * told["mean"]) / 43
    assert losses(result)[0] == pytest.approx(start, rel=1e-5)


def test_rows_may_bring_their_own(
    tiny_model: Path, rows_file: Callable[[list[dict[str, Any]]], Path], tmp_path: Path
) -> None:
    own = [{**row, "density_ratio": 2.0} for row in ROWS]
    result = train(tiny_model, rows_file(own), tmp_path / "own")
    assert losses(result)[0] == pytest.approx(
        0.6931472 * (20 + 2 * 23) / 43, rel=1e-5
    )  # good ones keep theirs
    with pytest.raises(ConfigError, match="the rows have a column density_ratio"):
        train(tiny_model, rows_file(own), tmp_path / "both", density_ratio_weights=True)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"min_density_ratio": 0.1}, "min_density_ratio: said of density-ratio weights, which are off"),
        ({"density_ratio_weights": True, "min_density_ratio": 20}, "is above max_density_ratio=10"),
    ],
)
def test_keys_that_say_nothing_or_contradict_each_other(
    options: dict[str, Any], why: str, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=why):
        train(tiny_model, ROWS, tmp_path / "run", **options)


def test_too_few_prompts(tiny_model: Path, tmp_path: Path) -> None:
    rows = [row for row in ROWS if not row["label"]][:10]
    one = [{**ROWS[0], "completion": f" {word}"} for word in WORDS]
    with pytest.raises(ConfigError, match=r"1 prompt\(s\) have desirable"):
        train(tiny_model, [*rows, *one], tmp_path / "run", density_ratio_weights=True)
