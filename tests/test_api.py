"""The Python face of a run: what `load_model` gives back, and what may be given as a reward."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import prefopt
from conftest import ROWS
from modalities.image.image_runs import LORA, column, pair, record, train
from prefopt.config import ConfigError
from prefopt.modalities.image.models.latent_reward import LatentRewardModel
from prefopt.modalities.image.models.pipelines import load_pipeline
from tiny_pipelines import tiny_sd


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sd(tmp_path_factory.mktemp("pipelines") / "sd")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pairs of images."""
    rows = [pair(n) for n in range(2)]
    for n, row in enumerate(rows):
        for side in ("chosen_image", "rejected_image"):
            (tmp_path / f"{n}-{side}.png").write_bytes(row[side])
            row[side] = f"{n}-{side}.png"
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


# ---- the model on demand


def drawn(pipe: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    images = pipe("picture 0", generator=generator, num_inference_steps=3, output_type="pt").images
    return images.float()


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_on_images_gives_its_pipeline(lora, sd, pictures, own_cache, tmp_path):
    result = train(
        "diffusion_dpo", sd, pictures, tmp_path / "run", learning_rate=1e-2 if lora else 1e-3, **(LORA if lora else {})
    )  # fmt: skip
    pipe: Any = result.load_model()
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert not any(p.requires_grad for p in pipe.unet.parameters())
    expected: Any = load_pipeline(str(sd if lora else tmp_path / "run" / "model")).pipe
    start = drawn(load_pipeline(str(sd)).pipe)
    if lora:
        expected.load_lora_weights(tmp_path / "run" / "model")
    torch.testing.assert_close(drawn(pipe), drawn(expected), rtol=0, atol=0)
    assert (drawn(pipe) - start).abs().max() > 0.05


def test_adapters_of_a_model_that_has_gone(sd, pictures, own_cache, tmp_path):
    moved = shutil.copytree(sd, tmp_path / "sd")
    result = train("diffusion_dpo", moved, pictures, tmp_path / "run", **LORA)
    moved.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no pipeline folder at .*/sd;"):
        result.load_model()


def test_a_judge_comes_back_as_a_judge(sd, pictures, own_cache, tmp_path):
    result = train("lrm", sd, pictures, tmp_path / "run", num_inference_steps=3, feature_scale=1)
    judge = result.load_model()
    assert isinstance(judge, LatentRewardModel)
    again = LatentRewardModel.from_pretrained(tmp_path / "run" / "model")
    x, t = torch.randn(2, 4, 8, 8), max(judge.config.timestep_range)
    with torch.no_grad():
        assert torch.equal(judge(x, t, ["a", "b"]), again(x, t, ["a", "b"]))


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_on_text_gives_model_and_tokenizer(lora, tiny_model, rows_file, own_cache, tmp_path):
    result = prefopt.train(
        "sft", model=tiny_model, data=rows_file(ROWS), output_dir=str(tmp_path / "run"), max_steps=1, sample_prompts=0,
        save_strategy="no", **(LORA if lora else {}),
    )  # fmt: skip
    model, tokenizer = result.load_model()
    ids = tokenizer(ROWS[0]["prompt"], return_tensors="pt").input_ids
    assert model(ids).logits.shape[:2] == ids.shape
    assert any(".lora_" in name for name, _ in model.named_parameters()) == lora


# ---- rewards


def test_a_rewards_name_is_the_configurations_key(sd, pictures, own_cache, tmp_path, monkeypatch):
    asked: list[str] = []

    class Brightness:
        def score(self, prompts: list[str], images_BCHW: Tensor) -> Tensor:
            return images_BCHW.flatten(1).mean(1)

    def get_scorer(spec: str, device: str) -> Brightness:
        asked.append(spec)
        return Brightness()

    monkeypatch.setattr("prefopt.modalities.image.scorers.get_scorer", get_scorer)
    given = {"sample_prompts": 2, "num_inference_steps": 2, "max_steps": 1}
    named = train("diffusion_dpo", sd, pictures, tmp_path / "named", reward="pickscore:some/folder", **given)
    assert asked == ["pickscore:some/folder"]
    assert yaml.safe_load((tmp_path / "named" / "config.yaml").read_text())["reward"] == asked[0]
    called = train(
        "diffusion_dpo", sd, pictures, tmp_path / "called", reward=lambda prompt, image: image.mean(), **given
    )
    assert len(asked) == 1
    assert column(called, "train_rows_reward") == pytest.approx(column(named, "train_rows_reward"))
    scores = [entry["generations"][-1]["score"] for entry in record(tmp_path / "named", "samples")["prompts"]]
    assert sum(scores) / 2 == pytest.approx(named.metrics["train_rows_reward"])


def test_rewards_that_cannot_be(sd, pictures, tiny_model, rows_file, own_cache, tmp_path):
    for reward, error, message in (
        ("pickscoer:x", ValueError, "no scorer is called 'pickscoer'"),
        (7, ConfigError, "function of .*, or the name of a scorer; given int"),
    ):
        with pytest.raises(error, match=message):
            train("diffusion_dpo", sd, pictures, tmp_path / "images", reward=reward)
    with pytest.raises(ConfigError, match=r"no reward of texts is called 'clip:x': needed reward:DIR"):
        prefopt.train(
            "dpo", model=tiny_model, data=rows_file(ROWS), output_dir=str(tmp_path / "text"), reward="clip:x"
        )
    assert not (tmp_path / "text").exists()
