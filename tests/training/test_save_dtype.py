"""save_dtype: what is saved, not what is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import prefopt
from conftest import ROWS
from modalities.image.image_runs import pair
from modalities.image.image_runs import train as train_images
from prefopt.config import ConfigError
from prefopt.models.dtypes import in_dtype

OPTIONS = {
    "max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "sample_prompts": 0, "eval_size": 0, "bf16": False,
}  # fmt: skip


def train(model: Path, data: Path, folder: Path, **more: object) -> prefopt.TrainResult:
    return prefopt.train("dpo", model=model, data=data, output_dir=str(folder), **{**OPTIONS, **more})


PISSA = {"use_peft": True, "lora_r": 2, "peft": {"init_lora_weights": "pissa"}}


@pytest.mark.parametrize(
    "more",
    [{}, {"use_peft": True, "lora_r": 2}, PISSA],
    ids=["weights", "adapters", "differences of adapters"],
)
def test_saved_rounded_and_trained_whole(more, tiny_model, rows_file, own_cache, tmp_path):
    data = rows_file(ROWS)
    file = "adapter_model.safetensors" if more else "model.safetensors"
    whole = load_file(train(tiny_model, data, tmp_path / "auto", **more).model_dir / file)
    assert {value.dtype for value in whole.values()} == {torch.float32}
    run = train(tiny_model, data, tmp_path / "run", save_dtype="bfloat16", **more)
    found = load_file(run.model_dir / file)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name].bfloat16()) for name in whole)
    step = "checkpoints/step-00000002/weights.safetensors"
    one, other = (load_file(tmp_path / name / step) for name in ("auto", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    # another dtype afterwards, from the checkpoint: nothing was lost
    train(tiny_model, data, tmp_path / "run", resume=True, **more)
    again = load_file(run.model_dir / file)
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_transformers_loads_it_so(tiny_model, rows_file, own_cache, tmp_path):
    """Tied weights stay one tensor, and the configuration tells the dtype."""
    tied = shutil.copytree(tiny_model, tmp_path / "tied")
    model = AutoModelForCausalLM.from_pretrained(tiny_model, tie_word_embeddings=True)
    model.tie_weights()
    model.save_pretrained(tied)
    for source, name in ((tiny_model, "untied"), (tied, "tied-run")):
        run = train(source, rows_file(ROWS), tmp_path / name, save_dtype="float16")
        loaded = AutoModelForCausalLM.from_pretrained(run.model_dir)
        assert {p.dtype for p in loaded.parameters()} == {torch.float16}
        assert json.loads((run.model_dir / "config.json").read_text())["dtype"] == "float16"
        assert (
            load_file(run.model_dir / "model.safetensors").keys()
            == load_file(source / "model.safetensors").keys()
        )
        assert {p.dtype for p in run.load_model()[0].parameters()} == {torch.float16}


def test_what_does_not_fit_is_no_model():
    state = {"a": torch.tensor([1.0]), "b": torch.tensor([7e4, float("inf")]), "n": torch.tensor([3])}
    with pytest.raises(
        ValueError, match=r"b holds inf, which float16 cannot hold .*resume=true with save_dtype"
    ):
        in_dtype(state, "float16")
    found = in_dtype(state | {"b": torch.tensor([float("inf")])}, "float16")
    assert (found["b"].dtype, found["n"].dtype) == (torch.float16, torch.int64)


def test_methods_of_several_runs_refuse_it(tiny_model, rows_file, own_cache, tmp_path):
    with pytest.raises(
        ConfigError, match=r"^save_dtype: for a single run, and spa is several: each would begin"
    ):
        prefopt.train(
            "spa",
            model=tiny_model,
            data=rows_file(ROWS),
            save_dtype="bfloat16",
            output_dir=str(tmp_path / "run"),
        )


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"use_peft": True, "lora_r": 2}], ids=["weights", "adapters"])
def test_diffusers_loads_it_so(more, sd, images_file, own_cache, tmp_path):
    from diffusers import StableDiffusionPipeline

    data = images_file([pair(n) for n in range(2)])
    run = train_images(
        "diffusion_dpo", sd, data, tmp_path / "run", save_dtype="bfloat16", max_steps=1, **more
    )
    if more:
        (file,) = run.model_dir.glob("*.safetensors")
        assert {value.dtype for value in load_file(file).values()} == {torch.bfloat16}
        StableDiffusionPipeline.from_pretrained(sd).load_lora_weights(run.model_dir)
        return
    found = load_file(run.model_dir / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in found.values()} == {torch.bfloat16}
    pipe = StableDiffusionPipeline.from_pretrained(run.model_dir, torch_dtype=torch.bfloat16)
    assert all(torch.equal(found[name], value) for name, value in pipe.unet.state_dict().items())
