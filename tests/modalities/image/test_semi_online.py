"""SoPo on images: winners from the data, losers drawn by the pipeline, any judge of images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import prefopt
import tiny_pipelines
from modalities.image.image_runs import picture, png
from prefopt.config import ConfigError
from prefopt.modalities.image import offline
from prefopt.modalities.image.judges import PixelJudge

SMALL: dict[str, Any] = {
    "num_inference_steps": 3, "guidance_scale": 1, "sample_prompts": 0, "logging_steps": 1, "eval_steps": 1000, "bf16": False,
    "eval_size": 0, "per_device_train_batch_size": 2, "max_steps": 4, "learning_rate": 1e-4, "lr_scheduler_type": "constant",
}  # fmt: skip


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.tiny_sd(tmp_path_factory.mktemp("pipelines") / "sd")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Single images, each good."""
    folder = tmp_path_factory.mktemp("rows")
    lines = []
    for n in range(6):
        (folder / f"{n}.png").write_bytes(png(picture(n)))
        lines.append({"prompt": f"picture {n}", "image": f"{n}.png", "label": True})
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "rows.jsonl"


def brightness(prompts: Sequence[str], images_BCHW: Tensor) -> Tensor:
    return images_BCHW.flatten(1).mean(1)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges by brightness, whatever `judge` names."""
    monkeypatch.setattr(offline, "find_judge", lambda context, loaded: PixelJudge(brightness, loaded))
    monkeypatch.setattr(offline, "find_scorer", lambda context: None)


def train(model: Path, rows: Path, folder: Path, **more: Any) -> prefopt.TrainResult:
    given = SMALL | {"judge": "aesthetic:a:b"} | more
    return prefopt.train("sopo", model=str(model), data=str(rows), output_dir=str(folder), **given)


def column(result: prefopt.TrainResult, name: str) -> list[float]:
    return [line[name] for line in result.history if name in line]


def weights(result: prefopt.TrainResult) -> dict[str, Tensor]:
    return result.load_model().unet.state_dict()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_losers_are_the_darkest_samples_and_the_model_learns(sd, rows, tmp_path, judged):
    found = train(sd, rows, tmp_path / "run")
    assert column(found, "loss")[0] == pytest.approx(np.log(2), abs=1e-5)
    assert column(found, "loss")[-1] != column(found, "loss")[0]
    worst, mean, best = (
        column(found, f"collect/{name}") for name in ("rejected_reward", "reward", "best_reward")
    )
    assert all(a < b < c for a, b, c in zip(worst, mean, best, strict=True))
    assert column(found, "collect/network_calls") == [6.0] * 4
    assert column(found, "sopo/weight") == [2.0] * 4  # no embeddings: C - 0
    assert "recognition" not in json.loads((found.output_dir / "record" / "calibration.json").read_text())


def test_it_resumes_to_the_same_bits(sd, rows, tmp_path, judged):
    straight = train(sd, rows, tmp_path / "s", save_strategy="no")
    train(sd, rows, tmp_path / "r", save_steps=2, save_total_limit=5)
    shutil.rmtree(tmp_path / "r" / "checkpoints" / "step-00000004")
    again = train(sd, rows, tmp_path / "r", save_steps=2, resume=True)
    assert_same(weights(again), weights(straight))


def test_adapters_and_samples_against_samples(sd, rows, tmp_path, judged):
    found = train(
        sd,
        rows,
        tmp_path / "l",
        use_peft=True,
        lora_r=2,
        lora_alpha=2,
        pairs="online",
        variant="dsopo",
        max_steps=2,
    )
    assert column(found, "loss")[0] == pytest.approx(np.log(2), abs=1e-5)


def test_without_a_judge_and_with_controls_it_says_what_is_needed(sd, rows, tmp_path):
    with pytest.raises(ConfigError, match="sopo needs a judge of candidates"):
        train(sd, rows, tmp_path / "x", judge=None)
    control = tiny_pipelines.tiny_control(tmp_path / "control")
    with pytest.raises(ConfigError, match="sopo trains"):
        train(control, rows, tmp_path / "y")
