"""Pipelines as users have them: what is loaded, what is trainable, what leaves memory and what names it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from modalities.image.models.pipeline_cases import KINDS, PROMPTS, Folders, conditions_of, noisy, plain, shake
from prefopt.modalities.image.models.denoiser import denoise
from prefopt.modalities.image.models.pipelines import (
    borrowed,
    check_pipeline_source,
    free,
    is_pipeline,
    load_pipeline,
    restore,
    text_identity,
    vae_identity,
)
from prefopt.modalities.image.models.tensors import (
    decode_latents,
    encode_images,
    encode_prompts,
    encode_unconditional,
    generate_images,
)
from prefopt.models.loading import LoraSettings
from prefopt.models.networks import adapter_parameters
from tiny_pipelines import tiny_sd, tiny_sd3

pytestmark = pytest.mark.filterwarnings("ignore:.*prompts have more than 77 tokens")


# -- loading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_network_is_trainable_and_everything_is_in_eval_mode(kind: str, folders: Folders) -> None:
    loaded = load_pipeline(str(folders(kind)))
    assert loaded.family == kind.split("_")[0]
    assert all(p.requires_grad for p in loaded.denoiser.parameters())
    for name, part in loaded.pipe.components.items():
        if isinstance(part, torch.nn.Module):
            assert not any(module.training for module in part.modules()), name
            if part is not loaded.denoiser:
                assert not any(p.requires_grad for p in part.parameters()), name
    frozen = load_pipeline(str(folders(kind)), trainable=False, lora=LoraSettings())
    assert not any(p.requires_grad for p in frozen.denoiser.parameters())
    assert frozen.adapter is None


def test_dropout_is_off_even_in_train_mode(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = tiny_sd(tmp_path / "sd")
    config = json.loads((folder / "unet/config.json").read_text()) | {"dropout": 0.5}
    (folder / "unet/config.json").write_text(json.dumps(config))
    assert any(m.p == 0.5 for m in UNet2DConditionModel.from_pretrained(folder / "unet").modules()
               if isinstance(m, torch.nn.Dropout))  # fmt: skip
    loaded = load_pipeline(str(folder))
    loaded.denoiser.train()
    x, conditions = noisy(loaded, 1), conditions_of(loaded, ["a"])
    first, second = (denoise("sd", loaded.denoiser, x, torch.tensor(5), conditions) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_dtype_auto_is_that_of_the_networks_file(tmp_path: Path) -> None:
    folder = tiny_sd3(tmp_path / "sd3")
    assert load_pipeline(str(folder)).denoiser.dtype == torch.float32
    pipe = plain(folder)
    pipe.transformer.to(torch.bfloat16).save_pretrained(folder / "transformer")
    loaded = load_pipeline(str(folder), lora=LoraSettings(r=2))
    assert loaded.pipe.text_encoder.dtype == torch.bfloat16
    assert loaded.vae.dtype == torch.float32
    kinds = {(p.dtype, p.requires_grad) for p in loaded.denoiser.parameters()}
    assert kinds == {(torch.bfloat16, False), (torch.float32, True)}
    conditions = encode_prompts(loaded, PROMPTS)
    assert conditions.tensors["prompt_embeds"].dtype == torch.bfloat16
    out = denoise("sd3", loaded.denoiser, noisy(loaded, 3), torch.tensor(500.0), conditions)
    out.float().square().mean().backward()
    assert all(p.grad is not None for p in adapter_parameters(loaded.denoiser, "default").values())
    assert generate_images(loaded, conditions, [0, 1, 2], num_inference_steps=2).isfinite().all()
    assert load_pipeline(str(folder), dtype="float32").denoiser.dtype == torch.float32


def test_sources_that_are_no_trainable_pipeline(tmp_path: Path, folders: Folders) -> None:
    assert is_pipeline(str(folders("sd")))
    assert not is_pipeline(str(tmp_path))
    assert not is_pipeline(str(tmp_path / "nowhere"))
    assert not is_pipeline("not-a-hub-id")
    assert check_pipeline_source(str(folders("sdxl"))) == "sdxl"
    with pytest.raises(FileNotFoundError, match=r"no pipeline folder at .*nowhere"):
        load_pipeline(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"needed model_index\.json.*found config\.json"):
        load_pipeline(str(tmp_path))
    (tmp_path / "pytorch_lora_weights.safetensors").touch()
    with pytest.raises(FileNotFoundError, match="is a LoRA, not a pipeline"):
        load_pipeline(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match=r"FluxPipeline.*StableDiffusionPipeline, StableDiffusionXL"):
        load_pipeline(str(tmp_path))


def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path) -> None:
    folder = tiny_sd(tmp_path / "sd")
    (folder / "unet/diffusion_pytorch_model.safetensors").rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(OSError, match="no safetensors weights"):
        load_pipeline(str(folder))


def test_distilled_guidance_and_lora_dropout_are_refused(tmp_path: Path) -> None:
    folder = tiny_sd(tmp_path / "sd")
    with pytest.raises(ValueError, match="lora_dropout=0"):
        load_pipeline(str(folder), lora=LoraSettings(dropout=0.1))
    pipe = plain(folder)
    type(pipe.unet).from_config(pipe.unet.config, time_cond_proj_dim=8).save_pretrained(folder / "unet")
    with pytest.raises(ValueError, match="time_cond_proj_dim"):
        load_pipeline(str(folder))


# -- memory and identity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "sd3_t5"])
def test_freed_parts_come_back_when_needed(kind: str, folders: Folders) -> None:
    loaded = load_pipeline(str(folders(kind)))
    shake(loaded)
    network = loaded.denoiser
    conditions, images = encode_prompts(loaded, PROMPTS), generate_images(loaded, PROMPTS, [1, 2, 3])
    latents, _ = encode_images(loaded, images * 2 - 1)
    n_encoders = len(loaded.text_encoders)
    assert n_encoders == {"sd": 1, "sdxl": 2, "sd3": 2, "sd3_t5": 3}[kind]
    free(loaded, "vae", "text_encoders")
    assert loaded.vae is None
    assert loaded.text_encoders == {}
    again = encode_prompts(loaded, PROMPTS)
    assert all(torch.equal(again.tensors[name], value) for name, value in conditions.tensors.items())
    assert torch.equal(encode_images(loaded, images * 2 - 1)[0], latents)
    torch.testing.assert_close(generate_images(loaded, PROMPTS, [1, 2, 3]), images, rtol=0, atol=1e-4)
    assert loaded.vae is None
    assert loaded.text_encoders == {}
    with borrowed(loaded, "vae"):
        assert loaded.vae is not None
        vae = loaded.vae
        decode_latents(loaded, latents)
        assert loaded.vae is vae
    restore(loaded, "text_encoders")
    assert loaded.vae is None
    assert len(loaded.text_encoders) == n_encoders
    assert not any(p.requires_grad for part in loaded.text_encoders.values() for p in part.parameters())
    assert loaded.denoiser is network
    with pytest.raises(ValueError, match="vae or text_encoders"):
        free(loaded, "unet")


def test_samples_from_given_conditions_need_no_text_encoder(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_pipeline(str(folders("sdxl")))
    conditions, empty = encode_prompts(loaded, PROMPTS), encode_unconditional(loaded)
    expected = generate_images(loaded, PROMPTS, [1, 2, 3], num_inference_steps=2)
    free(loaded, "text_encoders")
    monkeypatch.setattr("prefopt.modalities.image.models.pipelines.from_files", None)  # nothing may be read
    mine = generate_images(loaded, conditions, [1, 2, 3], num_inference_steps=2, unconditional=empty)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


def test_identities_follow_what_they_stand_for(folders: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "sdxl"
    shutil.copytree(folders("sdxl"), folder)

    def both(where: Path, **options: Any) -> tuple[str, str]:
        loaded = load_pipeline(str(where), **options)
        return vae_identity(loaded), text_identity(loaded)

    vae, text = both(folders("sdxl"))
    used = load_pipeline(str(folder))
    shake(used)
    generate_images(used, PROMPTS, [1, 2, 3], num_inference_steps=2)
    assert (vae_identity(used), text_identity(used)) == (vae, text)  # other place, use and network: the same
    free(used, "vae", "text_encoders")
    assert (vae_identity(used), text_identity(used)) == (vae, text)
    unseen = load_pipeline(str(folder))
    free(unseen, "vae", "text_encoders")
    assert (vae_identity(unseen), text_identity(unseen)) == (vae, text)
    assert both(folder, dtype="bfloat16")[0] == vae
    assert both(folder, dtype="bfloat16")[1] != text

    def edit(file: str, **values: Any) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    edit("vae/config.json", scaling_factor=1.0)
    assert both(folder)[0] != vae
    assert both(folder)[1] == text
    edit("model_index.json", force_zeros_for_empty_prompt=False)
    assert both(folder)[1] != text
    edit("model_index.json", force_zeros_for_empty_prompt=True)
    assert both(folder)[1] == text
    edit("tokenizer_2/tokenizer_config.json", model_max_length=60)
    assert both(folder)[1] != text
