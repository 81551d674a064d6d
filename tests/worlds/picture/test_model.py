"""The picture world's pipeline, on a much smaller model than the real one, trained for three steps."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from prefopt.worlds import get_world
from prefopt.worlds.picture.task import ATTRIBUTES

TINY = {
    "width": 8,
    "pretrain_pictures": 300,
    "pretrain_steps": 3,
    "pretrain_batch_size": 8,
    "codec_steps": 2,
}


@pytest.fixture(scope="module")
def world(cache_folder):
    return get_world("picture", seed=3, **TINY)


@pytest.fixture(scope="module")
def pipeline(world):
    from prefopt.worlds.picture.model import load

    return load(world.model_dir())


def weights_hash(folder) -> str:
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == 3
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


# -- the pipeline --------------------------------------------------------------------------------------------


def test_the_folder_loads_as_a_plain_pipeline_and_draws(world):
    from diffusers import StableDiffusionPipeline

    folder = world.model_dir()
    assert not [f for f in folder.rglob("*") if f.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    kinds = {name: type(part).__name__ for name, part in pipeline.components.items()}
    assert kinds == {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "scheduler": "DDIMScheduler",
        "safety_checker": "NoneType",
        "feature_extractor": "NoneType",
        "image_encoder": "NoneType",
    }
    [prompt] = world.prompts(1)
    [image] = pipeline(prompt, num_inference_steps=2).images
    assert (image.size, image.mode) == ((16, 16), "RGB")
    assert np.isfinite(world.verify(prompt, image))


def test_the_scheduler_is_stable_diffusions(pipeline):
    config = pipeline.scheduler.config
    assert (config.beta_schedule, config.beta_start, config.beta_end) == ("scaled_linear", 0.00085, 0.012)
    assert (config.set_alpha_to_one, config.steps_offset, config.clip_sample) == (False, 1, False)
    assert config.prediction_type == "epsilon"
    pipeline.scheduler.set_timesteps(20)
    assert pipeline.scheduler.timesteps.tolist() == list(range(951, 0, -50))


def test_every_word_of_a_caption_is_one_token(world, pipeline):
    tokenizer = pipeline.tokenizer
    for values in ATTRIBUTES.values():
        for text in values:
            assert len(tokenizer.tokenize(text)) == len(text.split())
    captions = [*world.prompts(144), *world.prompts(48, "test")]
    ids = tokenizer(captions)["input_ids"]
    assert {len(i) for i in ids} == {9}
    assert len({tuple(i) for i in ids}) == 192
    assert all(i[0] == tokenizer.bos_token_id and i[-1] == tokenizer.eos_token_id for i in ids)
    assert tokenizer.decode(ids[0], skip_special_tokens=True).replace(" ,", ",") == captions[0]
    # text of any kind has tokens of its own; the end token is not its unknown one
    foreign = tokenizer("Zebra #7 ~ {x} é")["input_ids"]
    assert foreign.count(tokenizer.eos_token_id) == 1
    assert len(tokenizer("one two three four five six seven", truncation=True)["input_ids"]) == 12
    assert pipeline.text_encoder.config.eos_token_id == tokenizer.eos_token_id


def test_the_pooled_feature_depends_on_every_word(pipeline):
    tokenizer = pipeline.tokenizer
    captions = [
        "a small red circle, top left",
        "a small red circle, bottom left",
        "a large red circle, top left",
    ]
    ids = tokenizer(captions, padding="max_length", return_tensors="pt")["input_ids"]
    pooled = pipeline.text_encoder(ids).pooler_output
    assert torch.cdist(pooled, pooled).add(torch.eye(3)).min() > 0.01


# -- the codec -----------------------------------------------------------------------------------------------


def test_the_encoder_is_the_principal_components_of_patches(world, pipeline):
    from prefopt.worlds.picture.parts import build_codec

    images = world.pictures(300, mismatch=1.0).images_BCHW
    codec = build_codec(images).eval()
    with torch.no_grad():
        posterior = codec.encode(2 * images - 1).latent_dist
    pixels = (2 * images - 1).double().numpy()
    patches = np.stack(
        [
            pixels[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(300, 48)
            for i in range(4)
            for j in range(4)
        ],
        axis=1,
    )  # picture, place, number
    centred = patches - patches.reshape(-1, 48).mean(0)
    variances, axes = np.linalg.eigh(np.cov(centred.reshape(-1, 48).T))
    components = centred @ axes[:, ::-1][:, :12]
    found = posterior.mean.flatten(2).transpose(1, 2).double().numpy()
    # eigh's axes have their own signs
    signs = np.sign((found * components).sum((0, 1)))
    assert np.abs(found - signs * components).max() < 0.01
    assert np.allclose(found.reshape(-1, 12).var(0), variances[::-1][:12], rtol=0.02)
    assert found.std() * codec.config.scaling_factor == pytest.approx(1, abs=0.01)
    assert posterior.std.max() < 0.02
    # also of pictures far from those that it was built on
    with torch.no_grad():
        extremes = torch.stack([torch.ones(3, 16, 16), -torch.ones(3, 16, 16)])
        white, black = codec.encode(extremes).latent_dist.mean.double()
    step = np.full(48, 2.0) @ axes[:, ::-1][:, :12] * signs
    assert np.abs((white - black)[:, 1, 2].numpy() - step).max() < 0.05
    assert pipeline.vae.config.scaling_factor != 1  # so that code which forgets it fails


# -- the cache -----------------------------------------------------------------------------------------------


def test_same_seed_same_weights_other_seed_other_weights(world, tmp_path, monkeypatch):
    first = weights_hash(world.model_dir())
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    torch.manual_seed(12345)  # the global state must not matter
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    again = world.model_dir()
    assert tmp_path in again.parents
    assert weights_hash(again) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert weights_hash(get_world("picture", seed=4, **TINY).model_dir()) != first


def test_any_setting_changes_the_place(world):
    changes = {
        "seed": 9,
        "caption_mismatch": 0.2,
        "width": 16,
        "pretrain_pictures": 301,
        "pretrain_steps": 4,
        "pretrain_batch_size": 9,
        "pretrain_learning_rate": 1e-4,
        "codec_steps": 3,
    }
    places = {replace(world, **{name: value})._place("model") for name, value in changes.items()}
    assert len(places | {world._place("model")}) == len(changes) + 1
    assert set(changes) == set(world.__dataclass_fields__)


def test_a_damaged_model_is_rebuilt(cache_folder):
    world = get_world("picture", seed=5, **TINY)
    folder = world.model_dir()
    good = weights_hash(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert weights_hash(world.model_dir()) == good


# -- samples -------------------------------------------------------------------------------------------------


def test_samples_are_counted_and_leave_the_pipeline_as_found(world, pipeline):
    from prefopt.worlds.diffusion import sample_images

    prompts = world.prompts(5)
    pipeline.unet.train()
    state = torch.get_rng_state()
    images = sample_images(pipeline, prompts, seed=1, num_inference_steps=3)
    assert images.shape == (5, 3, 16, 16)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(torch.get_rng_state(), state)
    assert pipeline.unet.training
    assert not pipeline.vae.training
    assert pipeline._progress_bar_config == {}
    pipeline.unet.eval()
    small = sample_images(pipeline, prompts[:4], seed=1, num_inference_steps=3, batch_size=3)
    torch.testing.assert_close(small, images[:4], atol=1e-4, rtol=0)
    other = sample_images(pipeline, prompts, seed=2, num_inference_steps=3)
    assert (other - images).abs().amax((1, 2, 3)).min() > 0.01
    # eta adds noise in the steps, with the same start
    still = sample_images(pipeline, prompts, seed=1, num_inference_steps=3, eta=0.0)
    assert (still - images).abs().max() > 0.01


def test_the_two_pictures_of_a_prompt_differ(world):
    images = world.samples(4, 2)
    assert images.shape == (4, 2, 3, 16, 16)
    assert ((images[:, 0] - images[:, 1]).abs().amax((1, 2, 3)) > 0.02).all()
    assert torch.equal(world.samples(4, 2), images)
    rows = world.comparisons(4, candidates="model", tie_margin=0, progress=False)
    assert {row["source"] for row in rows} == {"world:picture/model"}
    from prefopt.worlds.pixels import as_batch

    for row, pair in zip(rows, images, strict=True):
        stored = as_batch([row["chosen_image"], row["rejected_image"]])
        assert torch.equal(stored, pair) or torch.equal(stored.flip(0), pair)


def test_expected_rewards(world, pipeline):
    found = world.expected_rewards(pipeline, 10, num_inference_steps=2)
    assert set(found) >= {"match", "full", "aesthetic", "utility"}
    for estimate in found.values():
        assert estimate.low <= estimate.mean <= estimate.high
    utility = 4 * found["match"].mean + found["aesthetic"].mean
    assert found["utility"].mean == pytest.approx(utility, abs=1e-5)
    assert world.expected_rewards(pipeline, 10, num_inference_steps=2) == found
    assert world.expected_rewards(pipeline, 10, num_inference_steps=2, seed=1) != found
    with pytest.raises(ValueError, match="at least 2"):
        world.expected_rewards(pipeline, 1)


# -- the real size -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_default_model_draws_half_well(tmp_path, monkeypatch):
    from prefopt.worlds.picture import model as picture_model

    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    world = get_world("picture")
    pipeline = picture_model.load(world.model_dir())
    pictures = world.pictures(1000, "test")
    with torch.no_grad():
        latents = pipeline.vae.encode(2 * pictures.images_BCHW - 1).latent_dist.mean
        decoded = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert world.rewards(pictures.captions, decoded)["match"].mean() > 0.97
    found = world.expected_rewards(pipeline, 512)
    assert 0.6 < found["match"].mean < 0.82
    assert 0.1 < found["full"].mean < 0.45
    assert 0.35 < found["aesthetic"].mean < 0.7
    for name, values in ATTRIBUTES.items():
        assert found[name].low > 1 / len(values), f"{name} is drawn by chance"
    without = world.expected_rewards(pipeline, 256, guidance_scale=1.0)
    assert without["match"].high < found["match"].low
