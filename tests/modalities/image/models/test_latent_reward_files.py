"""The judge's own files: whole, without pickle, and the same judge again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modalities.image.models.pipeline_cases import Folders, latents
from prefopt.modalities.image.models.latent_reward import LatentRewardModel

PROMPTS = ["a red circle", "two blue squares, top left", ""]


def test_round_trip(judge: LatentRewardModel, tmp_path: Path, family: str) -> None:
    with torch.no_grad():
        judge.tau.add_(0.5)
        judge.config = replace(judge.config, gs=3.0, timestep_range=(1, 951))
    x, t = latents(judge, 3), torch.tensor([1, 451, 951])
    folder = tmp_path / "judge"
    judge.save_pretrained(folder)
    judge.save_pretrained(folder)  # an older judge gives way
    assert [p.name for p in tmp_path.iterdir()] == ["judge"], "no temporary folder may stay"
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]
    again = LatentRewardModel.from_pretrained(folder)
    assert again.config == judge.config
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(x, t, PROMPTS), judge(x, t, PROMPTS))
    assert not any(p.is_meta for p in again.parameters())
    assert not any(b.is_meta for b in again.buffers())
    trainable = {n for n, p in judge.named_parameters() if p.requires_grad}
    assert trainable == {n for n, p in again.named_parameters() if p.requires_grad}
    if family == "sd":
        half = LatentRewardModel.from_pretrained(folder, dtype="bfloat16")
        assert next(half.backbone.parameters()).dtype == next(half.text.parameters()).dtype == torch.bfloat16
        assert half.W_v.weight.dtype == torch.float32


def test_files_that_do_not_fit(sd: LatentRewardModel, folders: Folders, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(FileNotFoundError, match="holds no latent reward model"):
        LatentRewardModel.from_pretrained(folders("sd"))
    with pytest.raises(FileNotFoundError):
        LatentRewardModel.from_pipeline(tmp_path / "nothing")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    with pytest.raises(FileExistsError, match="holds something else"):
        sd.save_pretrained(tmp_path / "work")
    assert (tmp_path / "work" / "thesis.txt").exists()
    sd.save_pretrained(tmp_path / "judge")
    weights = load_file(tmp_path / "judge" / "model.safetensors")
    del weights["W_v.weight"]
    save_file(weights, tmp_path / "judge" / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit config.json: it lacks \['W_v.weight'\]"):
        LatentRewardModel.from_pretrained(tmp_path / "judge")


def test_a_failed_save_leaves_the_old_judge(sd: LatentRewardModel, tmp_path: Path, monkeypatch: Any) -> None:
    sd.save_pretrained(tmp_path / "judge")
    before = (tmp_path / "judge" / "model.safetensors").read_bytes()
    with torch.no_grad():
        sd.tau.zero_()

    def full_disk(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        sd.save_pretrained(tmp_path / "judge")
    assert (tmp_path / "judge" / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["judge"]


def test_a_failed_replacement_puts_the_old_judge_back(
    sd: LatentRewardModel, tmp_path: Path, monkeypatch: Any
) -> None:
    sd.save_pretrained(tmp_path / "judge")
    rename = Path.rename

    def once(self: Path, target: Path) -> Path:
        if target.name == "judge" and "-old-" not in self.name:
            raise OSError("in use")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(OSError, match="in use"):
        sd.save_pretrained(tmp_path / "judge")
    assert [p.name for p in tmp_path.iterdir()] == ["judge"]
    LatentRewardModel.from_pretrained(tmp_path / "judge")
