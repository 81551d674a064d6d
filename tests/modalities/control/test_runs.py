"""Runs on control images: the method of conditions, what it leaves alone, and what plain diffusers makes of the result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file

import prefopt
import tiny_pipelines
from modalities.battery import control_rows, picture_rows
from modalities.image.image_runs import QUIET, column, record, rotten
from prefopt.config import ConfigError
from prefopt.modalities.control.models import load_control


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.tiny_control(tmp_path_factory.mktemp("control") / "sd")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return control_rows(tmp_path)


def train(method: str, model: Path, data: Path, folder: Path, **options: Any) -> prefopt.TrainResult:
    given = {
        **QUIET,
        "learning_rate": 1e-4,
        "max_steps": 18,
        "noise_epochs": 1,
        "warmup_steps": 0,
        "lr_scheduler_type": "constant",
    }
    return prefopt.train(method, model=model, data=data, output_dir=str(folder), **{**given, **options})


@pytest.mark.parametrize("form", ["gated", pytest.param("sigmoid", marks=pytest.mark.slow)])
def test_the_true_condition_comes_to_explain_the_image_better(form, model, data, own_cache, tmp_path):
    given = {"form": form, "margin": 1.0, "diffusion_weight": 0.0, "learning_rate": 1e-3}  # both gates open
    result = train("condition_po", model, data, tmp_path / "run", per_device_train_batch_size=6, **given)
    delta = column(result, "condition_po/delta")
    assert delta[-1] < delta[0] - 1e-4
    assert column(result, "condition_po/weight")[0] == pytest.approx(0.5, abs=1e-3)
    assert column(result, "rewards/margins")[0] == pytest.approx(0, abs=1e-3)


def test_the_base_network_stays_and_plain_diffusers_draws(model, data, own_cache, tmp_path):
    result = train(
        "condition_po", model, data, tmp_path / "run", max_steps=3, sample_prompts=2, num_inference_steps=2
    )
    saved = result.model_dir
    name = "diffusion_pytorch_model.safetensors"
    before, after = (load_file(folder / "unet" / name) for folder in (model, saved))
    assert all(torch.equal(before[key], after[key]) for key in before)
    before, after = (load_file(folder / "controlnet" / name) for folder in (model, saved))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    pipe = DiffusionPipeline.from_pretrained(saved, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    control = Image.new("RGB", (32, 32), (255, 0, 0))
    drawn = pipe(
        "a cat", image=control, num_inference_steps=2, generator=torch.Generator().manual_seed(0)
    ).images[0]
    assert drawn.size == (32, 32)
    ours = result.load_model()
    ours.set_progress_bar_config(disable=True)
    again = ours(
        "a cat", image=control, num_inference_steps=2, generator=torch.Generator().manual_seed(0)
    ).images[0]
    assert again.tobytes() == drawn.tobytes()
    page = (result.output_dir / "report.html").read_text()
    assert "What the model draws" in page
    assert "image=Image.open" in page


def test_losses_of_log_ratios_take_tied_conditions(model, data, own_cache, tmp_path):
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[0]["label"] = "tie"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = train("dpo_rk", model, data, tmp_path / "run", max_steps=2, beta=5000.0)
    assert result.history[0]["train_rows_ties/share"] == pytest.approx(1 / 6)


@pytest.mark.slow
def test_a_control_image_with_damage_inside_loses_its_row_and_nothing_else(model, data, own_cache, tmp_path):
    broken = data.parent / "0-chosen_condition.png"
    broken.write_bytes(rotten(broken.read_bytes()))
    details = []
    for name in ("first", "again"):  # found now, and remembered
        given = {"max_steps": 1, "sample_prompts": 6, "num_inference_steps": 2}
        result = train("condition_po", model, data, tmp_path / name, **given)
        (dropped,) = map(json.loads, (result.output_dir / "dropped.jsonl").read_text().splitlines())
        assert (dropped["row"], dropped["reason"]) == (1, "broken_image")
        details.append(dropped["detail"])
        drawn = record(result.output_dir, "samples")["prompts"]
        assert [sample["prompt"] for sample in drawn] == [f"picture {n}" for n in range(1, 6)]
    assert "damaged" in details[0]
    assert details[0] == details[1]


def test_a_frozen_reference_shares_the_base_network(model):
    policy = load_control(str(model))
    reference = load_control(str(model), trainable=False)
    own = reference.model.base
    reference.share_base(policy)
    assert reference.model.base is policy.pipe.unet is reference.pipe.unet
    assert reference.model.base is not own
    assert reference.model.controlnet is not policy.model.controlnet


def test_a_base_network_distilled_to_take_guidance_is_refused(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "distilled")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    type(unet).from_config(unet.config, time_cond_proj_dim=8).save_pretrained(folder / "unet")
    with pytest.raises(ValueError, match="time_cond_proj_dim"):
        load_control(str(folder))


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("lpo", "lpo trains image models, and"),
        ("simpo", "simpo trains text models, and"),
    ],
)
def test_methods_that_do_not_fit(method, told, model, data, own_cache, tmp_path):
    with pytest.raises(ConfigError, match=told):
        train(method, model, data, tmp_path / "run")


def test_conditions_need_a_controlnet(pipelines, data, tmp_path):
    with pytest.raises(
        ConfigError, match=r"condition_po trains control models.*give the folder of a diffusers ControlNet"
    ):
        train("condition_po", pipelines("sd"), data, tmp_path / "run")


# -- a ControlNet beside a base pipeline ---------------------------------------------------------------------


def drawn_by(folder: Path) -> bytes:
    pipe = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    assert type(pipe).__name__.endswith("ControlNetPipeline")
    pipe.set_progress_bar_config(disable=True)
    control = Image.new("RGB", (32, 32), (255, 0, 0))
    seed = torch.Generator().manual_seed(0)
    return pipe("a cat", image=control, num_inference_steps=2, generator=seed).images[0].tobytes()


@pytest.mark.parametrize("base", ["sd", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_a_base_pipeline_starts_a_controlnet_from_its_own_weights(base, pipelines, data, own_cache, tmp_path):
    folder = pipelines(base)
    fresh = load_control(str(folder), controlnet="new", seed=3)
    base_net, net = fresh.pipe.unet.state_dict(), fresh.pipe.controlnet.state_dict()
    shared = [name for name in net if name in base_net and name.startswith(("down_blocks", "mid_block"))]
    assert len(shared) > 10
    assert all(torch.equal(net[name], base_net[name]) for name in shared)
    options = {"controlnet": "new", "form": "sigmoid", "max_steps": 2, "learning_rate": 1e-3}
    result = train("condition_po", folder, data, tmp_path / "run", **options)
    assert column(result, "condition_po/delta")[0] == pytest.approx(0, abs=1e-7)  # a new one is silent
    before = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(result.model_dir / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert drawn_by(result.model_dir)


def test_a_saved_controlnet_beside_its_base_is_the_pipeline_that_it_came_from(model, pipelines, tmp_path):
    whole, beside = (
        load_control(str(model)),
        load_control(str(pipelines("sd")), controlnet=str(model / "controlnet")),
    )
    for name, tensor in whole.pipe.controlnet.state_dict().items():
        assert torch.equal(tensor, beside.pipe.controlnet.state_dict()[name])
    assert type(beside.pipe) is type(whole.pipe)
    via_pipeline = load_control(str(pipelines("sd")), controlnet=str(model))
    assert torch.equal(via_pipeline.pipe.controlnet.conv_in.weight, whole.pipe.controlnet.conv_in.weight)


def test_adapters_of_a_controlnet_beside_a_base_load_again(model, pipelines, data, own_cache, tmp_path):
    options = {"controlnet": str(model / "controlnet"), "use_peft": True, "max_steps": 1}
    result = train("condition_po", pipelines("sd"), data, tmp_path / "run", **options)
    assert result.load_model().controlnet.peft_config
    page = (result.output_dir / "README.md").read_text()
    assert f'ControlNetModel.from_pretrained("{model / "controlnet"}")' in page


@pytest.mark.parametrize(
    ("controlnet", "told"),
    [
        ("nowhere/at/all", "no model folder at nowhere/at/all"),
        ("unet", "is UNet2DConditionModel: needed a ControlNetModel"),
        ("wider", "cross_attention_dim = 64 and the base network 32: it was made for another base"),
        ("coarser", "makes control images 8 times smaller, and the latents of this base are 4"),
    ],
)
def test_a_controlnet_that_cannot_stand_beside_the_base(controlnet, told, model, pipelines, tmp_path):
    from diffusers import ControlNetModel

    base = pipelines("sd")
    source = base / "unet" if controlnet == "unet" else controlnet
    if controlnet in ("wider", "coarser"):
        config = dict(ControlNetModel.load_config(model / "controlnet"))
        if controlnet == "wider":
            config["cross_attention_dim"] = 64
        else:
            config["conditioning_embedding_out_channels"] = (8, 8, 8, 16)
        source = tmp_path / controlnet
        ControlNetModel.from_config(config).save_pretrained(source)
    with pytest.raises((ValueError, OSError), match=told):
        load_control(str(base), controlnet=str(source))


def test_new_adapters_of_a_new_controlnet_are_refused(pipelines, data, own_cache, tmp_path):
    with pytest.raises(ValueError, match="controlnet=new and use_peft=true exclude each other"):
        train("condition_po", pipelines("sd"), data, tmp_path / "run", controlnet="new", use_peft=True)


# -- single images -------------------------------------------------------------------------------------------


def test_single_images_under_conditions_train_a_controlnet_as_diffusers_does(pipelines, own_cache, tmp_path):
    rows = picture_rows(tmp_path, ("image", "conditioning_image"))
    result = train(
        "sft", pipelines("sd"), rows, tmp_path / "run", controlnet="new", learning_rate=1e-3,
        per_device_train_batch_size=6,
    )  # fmt: skip
    losses = column(result, "loss")
    assert losses[-1] < losses[0]
    assert "rewards/margins" not in result.metrics
    assert column(result, "logps/chosen")[0] == pytest.approx(-losses[0])


def test_single_images_that_are_not_good_are_left_out(model, own_cache, tmp_path):
    rows = picture_rows(tmp_path, ("image", "condition"))
    told = [json.loads(line) | {"label": n > 0} for n, line in enumerate(rows.read_text().splitlines())]
    rows.write_text("".join(json.dumps(row) + "\n" for row in told))
    result = train("sft", model, rows, tmp_path / "run", max_steps=1)
    (dropped,) = map(json.loads, (result.output_dir / "dropped.jsonl").read_text().splitlines())
    assert (dropped["row"], dropped["reason"]) == (1, "not_good")
    assert record(result.output_dir, "manifest")["data"]["examples"] == 5
    with pytest.raises(ConfigError, match=r"dpo compares pairs.*sft for good ones"):
        train("dpo", model, rows, tmp_path / "pairs")
