"""What keys and labels must reach: own draws, dropout of conditions, pixels of true maps that have no class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import prefopt
import tiny_pipelines
from modalities.control.edges import condition_rows, edge_rows
from modalities.image.image_runs import QUIET, column
from prefopt.cli.main import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.tiny_control(tmp_path_factory.mktemp("control") / "sd")


# -- keys ----------------------------------------------------------------------------------------------------


def first_loss(model: Path, data: Path, folder: Path, **options: Any) -> float:
    """Of the first step, which moves nothing yet."""
    given = {
        "form": "sigmoid",
        "max_steps": 1,
        "per_device_train_batch_size": 6,
        "warmup_steps": 0,
        **options,
    }
    result = prefopt.train(
        "condition_po",
        model=model,
        data=data,
        output_dir=str(folder),
        **{**QUIET, "learning_rate": 1e-9, **given},
    )
    return column(result, "loss")[0]


@pytest.mark.slow  # four runs
def test_the_diffusion_term_is_an_error_of_its_own_draw(model, own_cache, tmp_path):
    data = condition_rows(tmp_path)
    without = first_loss(model, data, tmp_path / "without", diffusion_weight=0.0)
    pair = first_loss(model, data, tmp_path / "pair", diffusion_weight=1.0, diffusion_draw="pair") - without
    own = first_loss(model, data, tmp_path / "own", diffusion_weight=1.0) - without
    assert own == pytest.approx(pair, rel=0.5)  # an error of the same size
    assert own > 0.3
    assert abs(own - pair) > 1e-4  # under other noise
    black = (
        first_loss(model, data, tmp_path / "black", diffusion_weight=1.0, condition_dropout=0.99) - without
    )
    assert abs(black - own) > 1e-6  # a tiny ControlNet of random weights changes little


# -- true maps with pixels of no class -----------------------------------------------------------------------

DETECTOR = """
import torch


class Halves:
    name, metric = "halves", "miou"

    def detect(self, images):  # never 255
        return (images.mean(1) > 0.5).long()

    def draw(self, labels):  # no class is white
        levels = torch.where(labels == 255, 1.0, labels * 0.5)
        return levels[:, None].repeat(1, 3, 1, 1)

    def read(self, conditions):
        levels = conditions[:, 0]
        return torch.where(levels > 0.75, 255, (levels > 0.25).long())

    def agreement(self, a, b):
        known = (a != 255) & (b != 255)
        return ((a == b) & known).flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
"""


@pytest.fixture
def halves(tmp_path: Path) -> tuple[str, Path]:
    """A detector, and rows whose true maps say nothing of their upper half."""
    (tmp_path / "own.py").write_text(DETECTOR)
    data = edge_rows(tmp_path)
    for path in tmp_path.glob("*-condition.png"):
        levels = np.zeros((32, 32, 3), np.uint8)
        levels[:16], levels[16:, ::2] = 255, 128
        Image.fromarray(levels).save(path)
    return f"{tmp_path / 'own.py'}:Halves", data


def command(*words: str) -> str:
    done = CliRunner().invoke(main, [*words, "--num_inference_steps", "2"])
    assert done.exit_code == 0, done.output
    return done.output


def test_losing_conditions_say_nothing_where_true_ones_say_nothing(halves, model, tmp_path):
    detector, data = halves
    command(
        "build",
        "conditions",
        str(data),
        "--model",
        str(model),
        "--detector",
        detector,
        "-o",
        str(tmp_path / "pairs"),
    )
    rows = [json.loads(line) for line in (tmp_path / "pairs" / "rows.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        made = np.array(Image.open(tmp_path / "pairs" / row["rejected_condition"]))
        assert (made[:16] == 255).all()
        assert (made[16:] < 255).all()


def test_what_has_no_class_is_not_judged(halves, model, tmp_path):
    detector, data = halves
    command(
        "evaluate", str(model), "--data", str(data), "--detector", detector, "--output", str(tmp_path / "out")
    )
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    right = []
    for path in (tmp_path / "out" / "samples" / "model").glob("*.png"):
        seen = np.array(Image.open(path).convert("RGB"))[16:].mean(-1) > 127.5
        right.append((seen == (np.arange(32) % 2 == 0)).mean())
    assert told["model"]["pixel_accuracy"] == pytest.approx(np.mean(right), abs=0.01)


def test_made_conditions_say_nothing_there_either(halves, model, own_cache, tmp_path, monkeypatch):
    from prefopt.modalities.control.store import CachedControls

    kept: list[np.ndarray] = []
    keep = CachedControls.keep

    def spied(self: CachedControls, made: Any, for_good: bool = False) -> None:
        kept.extend(made.values())
        keep(self, made, for_good)

    monkeypatch.setattr(CachedControls, "keep", spied)
    detector, data = halves
    options = {"losing_condition": "online", "detector": detector, "num_inference_steps": 2}
    first_loss(model, data, tmp_path / "run", **options)
    assert kept
    assert all((levels[:, :16] == 255).all() and (levels[:, 16:] < 255).all() for levels in kept)
