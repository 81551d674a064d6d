"""Pipelines, scorers and judges that lack weights are refused, as language models are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from modalities.image.models.pipeline_cases import Folders
from models.test_whole_weights import edited
from prefopt.modalities.image.models.latent_reward import LatentRewardModel
from prefopt.modalities.image.models.pipelines import load_pipeline
from prefopt.modalities.image.scorers import clip_scorer

NETWORK = "diffusion_pytorch_model.safetensors"


def broken(source: Path, folder: Path, part: str, change: Any) -> Path:
    """A pipeline with other tensors in one part."""
    shutil.copytree(source, folder)
    shutil.rmtree(folder / part)
    file = "model.safetensors" if part.startswith("text") else NETWORK
    edited(source / part, folder / part, change, file)
    return folder


def less(words: str) -> Any:
    return lambda t: [t.pop(name) for name in list(t) if words in name]


def wider(name: str) -> Any:
    return lambda t: t.update({name: torch.zeros(*t[name].shape[:-1], t[name].shape[-1] + 1)})


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("unet", less("conv_out."), r"UNet2DConditionModel: it lacks conv_out\.bias, conv_out\.weight, which would start"),
        ("unet", lambda t: t.update(other=torch.zeros(1)), r"holds other, for which the model has no place"),
        ("unet", wider("time_embedding.linear_1.weight"), r"time_embedding\.linear_1\.weight is \d+ x \d+ in the file"),
        ("vae", less("decoder.conv_in."), r"AutoencoderKL: it lacks decoder\.conv_in\.bias"),
        ("text_encoder", less("final_layer_norm"), r"CLIPTextModel\S*: it lacks \S*final_layer_norm\.bias"),
    ],
    ids=["missing", "besides", "shape", "vae", "text encoder"],
)  # fmt: skip
def test_parts_of_pipelines(part, change, told, trainable, folders: Folders, tmp_path):
    folder = broken(folders("sd"), tmp_path / "broken", part, change)
    with pytest.raises(ValueError, match=told) as caught:
        load_pipeline(str(folder), trainable=trainable)
    assert str(folder / part) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["sdxl", "sd3"])
def test_other_families(family, folders: Folders, tmp_path):
    part = "transformer" if family == "sd3" else "unet"
    word = "proj_out." if family == "sd3" else "conv_in."
    folder = broken(folders(family), tmp_path / "broken", part, less(word))
    with pytest.raises(ValueError, match=r"it lacks "):
        load_pipeline(str(folder))


def test_text_encoders_of_a_judge(judges: dict[str, LatentRewardModel], tmp_path):
    judges["sd"].save_pretrained(tmp_path / "judge")
    shutil.move(tmp_path / "judge" / "text_encoder", tmp_path / "whole")
    edited(tmp_path / "whole", tmp_path / "judge" / "text_encoder", less("final_layer_norm"))
    with pytest.raises(ValueError, match=r"it lacks \S*final_layer_norm"):
        LatentRewardModel.from_pretrained(tmp_path / "judge")


def test_scorers(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=sizes | {"vocab_size": 50},
        vision_config=sizes | {"image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    folder = edited(tmp_path / "clip", tmp_path / "broken", less("visual_projection"))
    with pytest.raises(ValueError, match=r"CLIPModel: it lacks visual_projection\.weight"):
        clip_scorer(folder).score(["a"], torch.zeros(1, 3, 8, 8))
