"""What is saved of a trained pipeline draws the same images in plain diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from modalities.image.models.pipeline_cases import ONE_EACH, PROMPTS, Folders, plain, sampled, shake
from prefopt.modalities.image.models.pipelines import NETWORK, free, load_pipeline
from prefopt.modalities.image.models.saving import write_trained
from prefopt.modalities.image.models.tensors import generate_images
from prefopt.models.ema import EMA
from prefopt.models.loading import LoraSettings
from prefopt.models.networks import adapter_parameters
from tiny_pipelines import tiny_sd

pytestmark = pytest.mark.filterwarnings("ignore:.*prompts have more than 77 tokens")


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "sd3_t5"])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_trained_network_is_saved_as_a_whole_pipeline(
    kind: str, sharded: bool, folders: Folders, tmp_path: Path
) -> None:
    loaded = load_pipeline(str(folders(kind)))
    shake(loaded)
    expected = generate_images(loaded, PROMPTS, [1, 2, 3], num_inference_steps=3)
    free(loaded, "vae", "text_encoders")
    state = None
    if sharded:
        state = {k: v.clone() for k, v in loaded.denoiser.state_dict().items()}
        for parameter in loaded.denoiser.parameters():
            parameter.data.zero_()  # as if the weights were elsewhere
    folder = tmp_path / "model"
    write_trained(folder, loaded, state)
    pipe = plain(folder)
    assert type(pipe) is type(loaded.pipe)
    torch.testing.assert_close(
        sampled(pipe, PROMPTS, [1, 2, 3], guidance_scale=7.5), expected, rtol=0, atol=1e-4
    )
    for file in (folders(kind) / "vae").iterdir():
        assert (folder / "vae" / file.name).read_bytes() == file.read_bytes()
    index = {p: json.loads((p / "model_index.json").read_text()) for p in (folder, folders(kind))}
    assert index[folder] == index[folders(kind)]
    again = generate_images(load_pipeline(str(folder)), PROMPTS, [1, 2, 3], num_inference_steps=3)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ONE_EACH)
@pytest.mark.parametrize("sharded", [False, True])
def test_trained_adapters_are_saved_as_a_lora(
    kind: str, sharded: bool, folders: Folders, tmp_path: Path
) -> None:
    # a file has no place for scales of their own: they have to be in its weights
    own = {"use_rslora": True, "use_dora": True, "alpha_pattern": {"to_q": 3}} if sharded else {}
    loaded = load_pipeline(str(folders(kind)), lora=LoraSettings(r=4, alpha=6, fields=own))
    ema = EMA(loaded.denoiser, 0.9)
    base = generate_images(loaded, PROMPTS, [1, 2, 3], num_inference_steps=3)
    shake(loaded)
    expected = generate_images(loaded, PROMPTS, [1, 2, 3], num_inference_steps=3)
    with ema.swapped_in():  # the average of a run is not what it saves
        averaged = generate_images(loaded, PROMPTS, [1, 2, 3], num_inference_steps=3)
    torch.testing.assert_close(averaged, base, rtol=0, atol=0)
    assert (expected - base).abs().max() > 1e-2
    state = None
    if sharded:
        state = {k: v.clone() for k, v in loaded.denoiser.state_dict().items()}
        for parameter in adapter_parameters(loaded.denoiser, "default").values():
            parameter.data.zero_()
    write_trained(tmp_path / "model", loaded, state)
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["pytorch_lora_weights.safetensors"]
    pipe = plain(folders(kind))
    pipe.load_lora_weights(tmp_path / "model")
    torch.testing.assert_close(
        sampled(pipe, PROMPTS, [1, 2, 3], guidance_scale=7.5), expected, rtol=0, atol=1e-4
    )
    tensors = load_file(tmp_path / "model/pytorch_lora_weights.safetensors")
    assert all(t.dtype == torch.float32 for t in tensors.values())
    assert len(tensors) == len(adapter_parameters(loaded.denoiser, "default"))


def test_a_safety_checker_is_kept_unless_it_is_a_pickle(tmp_path: Path) -> None:
    folder = tiny_sd(tmp_path / "sd")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    checker = folder / "safety_checker"
    checker.mkdir()
    (checker / "config.json").write_text("{}")
    (checker / "pytorch_model.bin").touch()
    (folder / "vae/diffusion_pytorch_model.fp16.safetensors").touch()
    loaded = load_pipeline(str(folder))
    assert loaded.pipe.safety_checker is None
    write_trained(tmp_path / "one", loaded)
    plain(tmp_path / "one")
    assert not (tmp_path / "one/safety_checker").exists()
    assert not (tmp_path / "one/vae/diffusion_pytorch_model.fp16.safetensors").exists()
    (checker / "model.safetensors").touch()
    write_trained(tmp_path / "two", loaded)
    assert sorted(p.name for p in (tmp_path / "two/safety_checker").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    saved = json.loads((tmp_path / "two/model_index.json").read_text())
    assert saved["safety_checker"] == index["safety_checker"]


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3"])
def test_configurations_are_the_checkpoints(kind: str, folders: Folders, tmp_path: Path) -> None:
    """Dropout is off in training, and as it was in what is saved."""
    source = tmp_path / "source"
    shutil.copytree(folders(kind), source)
    config = source / NETWORK[load_pipeline(str(source)).family] / "config.json"
    values = json.loads(config.read_text())
    if "dropout" in values:
        values["dropout"] = 0.25
    config.write_text(json.dumps(values))
    loaded = load_pipeline(str(source))
    assert not any(m.p for m in loaded.denoiser.modules() if isinstance(m, torch.nn.Dropout))
    network: Any = loaded.model
    network.enable_gradient_checkpointing()
    write_trained(tmp_path / "model", loaded)
    told = {"_diffusers_version", "_name_or_path"}
    for file in sorted(path.relative_to(source) for path in source.rglob("*.json")):
        before, after = (json.loads((folder / file).read_text()) for folder in (source, tmp_path / "model"))
        if isinstance(before, dict):
            before, after = ({k: v for k, v in x.items() if k not in told} for x in (before, after))
        assert after == before, file
