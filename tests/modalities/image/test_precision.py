"""Pipelines saved in half precision train on any device: in float32, or under float32 adapters."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from modalities.image.image_runs import LORA, column, pair, record, train
from prefopt.config import ConfigError

NETWORK = "unet/diffusion_pytorch_model.safetensors"


def cast(source: Path, folder: Path, dtype: torch.dtype) -> Path:
    """The pipeline with all its weights in another precision."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(source, torch_dtype=dtype, safety_checker=None)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def half(sd: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return cast(sd, tmp_path / "half", request.param)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], indirect=True)
def test_all_weights_are_trained_in_single_precision(half, images_file, own_cache, tmp_path):
    data = images_file([pair(0), pair(1)])
    same = cast(half, tmp_path / "same", torch.float32)
    run, other = (
        train("diffusion_dpo", m, data, tmp_path / f"run-{m.name}", sample_prompts=1, num_inference_steps=2)
        for m in (half, same)
    )
    assert column(run, "loss") == column(other, "loss")
    assert record(run.output_dir, "manifest")["model"]["dtype"] == "float32"
    start, end = load_file(half / NETWORK), load_file(run.model_dir / NETWORK)
    assert all(value.dtype == torch.float32 for value in end.values())
    assert any(not torch.equal(end[name], start[name].float()) for name in end)
    diffusers.StableDiffusionPipeline.from_pretrained(run.model_dir, safety_checker=None)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], indirect=True)
def test_adapters_are_single_precision_on_half_precision_weights(half, images_file, own_cache, tmp_path):
    data = images_file([pair(0), pair(1)])
    given = {**LORA, "max_steps": 12, "noise_epochs": 1, "learning_rate": 1e-3, "bf16": False}
    run = train(
        "diffusion_dpo", half, data, tmp_path / "run", sample_prompts=1, num_inference_steps=2, **given
    )
    assert record(run.output_dir, "manifest")["model"]["dtype"] in ("bfloat16", "float16")
    losses = column(run, "loss")
    assert losses[-1] < losses[0]
    (file,) = run.model_dir.iterdir()
    assert all(value.dtype == torch.float32 for value in load_file(file).values())


@pytest.mark.parametrize("half", [torch.bfloat16], indirect=True)
def test_a_judge_keeps_to_the_rule(half, images_file, own_cache, tmp_path):
    data = images_file([pair(0), pair(1)])
    for dtype, expected in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        run = train("lrm", half, data, tmp_path / dtype, num_inference_steps=2, dtype=dtype, bf16=False)
        saved = load_file(run.model_dir / "model.safetensors")
        assert saved["backbone.unet.conv_in.weight"].dtype == expected
        assert saved["W_v.weight"].dtype == torch.float32


@pytest.mark.parametrize("method", ["diffusion_dpo", "lrm", "spo"])
def test_float16_weights_are_not_trained(method, sd, tmp_path):
    with pytest.raises(ConfigError, match=r"dtype=float16 is not possible .* use_peft=true"):
        train(method, sd, tmp_path / "none", tmp_path / "run", dtype="float16", use_peft=False)
