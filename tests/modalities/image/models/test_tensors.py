"""What we encode, decode and sample is what plain diffusers makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from modalities.image.models.pipeline_cases import KINDS, ONE_EACH, PROMPTS, Folders, plain, sampled
from prefopt.modalities.image.models.denoiser import Conditions
from prefopt.modalities.image.models.pipelines import load_pipeline
from prefopt.modalities.image.models.tensors import (
    decode_latents,
    encode_images,
    encode_prompts,
    encode_unconditional,
    generate_images,
)
from tiny_pipelines import tiny_sdxl

pytestmark = pytest.mark.filterwarnings("ignore:.*prompts have more than 77 tokens")


# -- text ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_are_encoded_as_the_pipeline_does(kind: str, folders: Folders) -> None:
    loaded = load_pipeline(str(folders(kind)))
    pipe = plain(folders(kind))
    extra = {"sd": {}, "sdxl": {}, "sd3": {"prompt_2": None, "prompt_3": None}}[loaded.family]
    with torch.no_grad():
        out = pipe.encode_prompt(
            prompt=PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **extra
        )
    mine = encode_prompts(loaded, PROMPTS, batch_size=2)
    empty = encode_unconditional(loaded)
    names = ["prompt_embeds"] if loaded.family == "sd" else ["prompt_embeds", "pooled_prompt_embeds"]
    assert list(mine.tensors) == list(empty.tensors) == names
    for k, name in enumerate(names):
        torch.testing.assert_close(mine.tensors[name], out[2 * k], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(empty.tensors[name], out[2 * k + 1][:1], rtol=1e-5, atol=1e-5)
        assert not mine.tensors[name].requires_grad
    # only SDXL makes a difference between the empty text and no text
    zeros = not empty.tensors["prompt_embeds"].any()
    assert zeros == (kind == "sdxl")
    assert torch.equal(mine[[1]].tensors["prompt_embeds"], empty.tensors["prompt_embeds"]) or zeros


def test_conditions_are_rows_that_survive_a_file(tmp_path: Path) -> None:
    tensors = {"prompt_embeds": torch.arange(24.0).view(3, 4, 2), "pooled_prompt_embeds": torch.rand(3, 5)}
    conditions = Conditions(tensors).with_sizes([(1023, 1, 2, 3, 4, 5)])
    conditions.save(tmp_path / "c.safetensors")
    again = Conditions.load(tmp_path / "c.safetensors")
    assert again.tensors.keys() == conditions.tensors.keys()
    rows = Conditions.cat([conditions, again])[[4, 0, 0]]
    assert torch.equal(rows.tensors["prompt_embeds"], tensors["prompt_embeds"][[1, 0, 0]])
    assert torch.equal(conditions[torch.tensor([False, True, False])].tensors["pooled_prompt_embeds"],
                       tensors["pooled_prompt_embeds"][1:2])  # fmt: skip
    half = conditions.to(dtype=torch.bfloat16)
    assert half.tensors["prompt_embeds"].dtype == torch.bfloat16
    assert half.tensors["time_ids"].tolist()[2] == [1023, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="same number of rows"):
        Conditions({"a": torch.zeros(2), "b": torch.zeros(3)})
    with pytest.raises(ValueError, match="1 or 3 rows of 6"):
        conditions.with_sizes([(1, 2, 3, 4, 5, 6)] * 2)
    with pytest.raises(ValueError, match="same names"):
        Conditions.cat([conditions, Conditions(tensors)])
    with pytest.raises(TypeError, match=r"by a list, \[1\]"):
        conditions[1]  # type: ignore[index]


def test_cut_prompts_are_counted(
    folders: Folders, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    loaded = load_pipeline(str(folders("sd")))
    capfd.readouterr()
    encode_prompts(loaded, ["x" * 75, ""], batch_size=1)
    assert not [w for w in recwarn if "tokens" in str(w.message)]
    with pytest.warns(UserWarning, match="2 of 3 prompts have more than 77 tokens"):
        encode_prompts(loaded, ["x" * 76, "", PROMPTS[2]], batch_size=1)
    assert "truncated" not in capfd.readouterr().err


def test_prompts_must_be_a_list(folders: Folders) -> None:
    loaded = load_pipeline(str(folders("sd")))
    for wrong in ("one text", []):
        with pytest.raises(ValueError, match="list of one or more texts"):
            encode_prompts(loaded, wrong)


# -- images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ONE_EACH)
def test_latents_are_scaled_as_the_pipeline_decodes_them(kind: str, folders: Folders) -> None:
    loaded, pipe = load_pipeline(str(folders(kind))), plain(folders(kind))
    pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):  # must not reach the VAE
        mean, std = encode_images(loaded, pixels)
        images = decode_latents(loaded, mean)
    with torch.no_grad():
        posterior = pipe.vae.encode(pixels).latent_dist
    scaling, shift = {"sd": (0.18215, 0.0), "sdxl": (0.13025, 0.0), "sd3": (1.5305, 0.0609)}[kind]
    torch.testing.assert_close(mean, (posterior.mean - shift) * scaling)
    torch.testing.assert_close(std, posterior.std * scaling)
    # the pipeline's own decoding, by a sampling of no steps
    factor, channels = pipe.vae_scale_factor, mean.shape[1]
    assert mean.shape == (2, channels, 32 // factor, 48 // factor)
    with torch.no_grad():
        raw = pipe.vae.decode(posterior.mean, return_dict=False)[0]
    torch.testing.assert_close(
        images, pipe.image_processor.postprocess(raw, output_type="pt"), rtol=0, atol=1e-5
    )
    assert images.min() >= 0
    assert images.max() <= 1
    with pytest.raises(ValueError, match=r"divisible by 4.*\(2, 3, 30, 32\)"):
        encode_images(loaded, torch.zeros(2, 3, 30, 32))


def test_channel_statistics_of_an_sdxl_vae(tmp_path: Path) -> None:
    folder = tiny_sdxl(tmp_path / "xl", scheduler="ddim")
    config = json.loads((folder / "vae/config.json").read_text())
    config |= {"latents_mean": [-1.0, 0.5, 2.0, 0.0], "latents_std": [5.0, 6.0, 7.0, 8.0]}
    (folder / "vae/config.json").write_text(json.dumps(config))
    loaded = load_pipeline(str(folder))
    mean, _ = encode_images(loaded, torch.rand(1, 3, 32, 32) * 2 - 1)
    mine = generate_images(loaded, ["a"], [1], num_inference_steps=3, guidance_scale=4.0)
    torch.testing.assert_close(
        mine, sampled(plain(folder), ["a"], [1], guidance_scale=4.0), rtol=0, atol=1e-5
    )
    z = loaded.vae.encode(torch.zeros(1, 3, 32, 32)).latent_dist.mean
    ours, _ = encode_images(loaded, torch.zeros(1, 3, 32, 32))
    expected = (z[0, 2] - 2.0) * 0.13025 / 7.0
    torch.testing.assert_close(ours[0, 2], expected)
    assert mean.shape == (1, 4, 8, 8)


# -- samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_the_plain_pipelines(kind: str, folders: Folders) -> None:
    loaded = load_pipeline(str(folders(kind)))
    seeds = [5, 6, 7]
    timesteps = loaded.scheduler.timesteps
    mine = generate_images(loaded, PROMPTS, seeds, num_inference_steps=3, guidance_scale=4.0)
    assert loaded.scheduler.timesteps is timesteps  # training reads this object
    expected = sampled(plain(folders(kind)), PROMPTS, seeds, guidance_scale=4.0)
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-4)
    assert mine.shape == (3, 3, 32, 32)
    one_by_one = generate_images(
        loaded,
        encode_prompts(loaded, PROMPTS),
        seeds,
        num_inference_steps=3,
        guidance_scale=4.0,
        batch_size=1,
    )
    torch.testing.assert_close(mine, one_by_one, rtol=0, atol=1e-4)
    other = generate_images(loaded, PROMPTS, [8, 9, 10], num_inference_steps=3, guidance_scale=4.0)
    assert (mine - other).abs().mean() > 0.01


def test_samples_without_guidance_and_with_noise(folders: Folders) -> None:
    from diffusers import DDIMScheduler

    loaded, pipe = load_pipeline(str(folders("sd"))), plain(folders("sd"))
    given = {"num_inference_steps": 3, "guidance_scale": 1.0, "eta": 1.0, "height": 32, "width": 48}
    mine = generate_images(loaded, PROMPTS, [1, 2, 3], batch_size=2, **given)
    plain_options = {k: v for k, v in given.items() if k != "num_inference_steps"}
    torch.testing.assert_close(mine, sampled(pipe, PROMPTS, [1, 2, 3], **plain_options), rtol=0, atol=1e-4)
    assert mine.shape == (3, 3, 32, 48)
    xl = load_pipeline(str(folders("sdxl")))
    with pytest.raises(ValueError, match=r"eta=1 .* EulerDiscreteScheduler"):
        generate_images(xl, PROMPTS, [1, 2, 3], eta=1.0)
    ddim = DDIMScheduler.from_config(xl.scheduler.config)
    assert (
        generate_images(xl, PROMPTS, [1, 2, 3], num_inference_steps=2, eta=1.0, scheduler=ddim).shape[0] == 3
    )
    with pytest.raises(ValueError, match="3 prompts need as many seeds; given 2"):
        generate_images(xl, PROMPTS, [1, 2])
