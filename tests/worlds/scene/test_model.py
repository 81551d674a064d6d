"""The scene world's pipeline, on a much smaller model than the real one, trained for three steps a stage."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from prefopt.worlds import get_world
from prefopt.worlds.scene.parts import build_codec, build_controlnet, build_unet, to_pixels
from prefopt.worlds.scene.task import draw

WEIGHTS = "diffusion_pytorch_model.safetensors"


def digest(folder: Path) -> str:
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == 4
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def changed(one: Path, other: Path, part: str) -> int:
    """How many tensors of a part differ between two folders."""
    before, after = (load_file(folder / part / WEIGHTS) for folder in (one, other))
    assert before.keys() == after.keys()
    return sum(not torch.equal(before[name], after[name]) for name in before)


# -- the pipeline --------------------------------------------------------------------------------------------


def test_the_folder_loads_as_a_plain_pipeline_and_draws(world):
    from diffusers import DiffusionPipeline

    folder = world.model_dir()
    assert not [f for f in folder.rglob("*") if f.suffix in (".bin", ".pt", ".pkl", ".ckpt")]
    pipeline = DiffusionPipeline.from_pretrained(folder)
    kinds = {name: type(part).__name__ for name, part in pipeline.components.items()}
    assert type(pipeline).__name__ == "StableDiffusionControlNetPipeline"
    assert kinds == {
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "controlnet": "ControlNetModel",
        "scheduler": "DDIMScheduler",
        "safety_checker": "NoneType",
        "feature_extractor": "NoneType",
        "image_encoder": "NoneType",
    }
    assert pipeline.vae_scale_factor == 1
    [prompt] = world.prompts(1)
    condition = Image.fromarray(world.conditions(1)[0].mul(255).byte().permute(1, 2, 0).numpy())
    [image] = pipeline(prompt, image=condition, num_inference_steps=2).images
    assert (image.size, image.mode) == ((16, 16), "RGB")
    assert 0 <= world.verify(prompt, image) <= 1


def test_every_word_of_a_caption_is_one_token(world, pipeline):
    ids = pipeline.tokenizer(sorted(set(world.prompts(50))))["input_ids"]
    assert {len(i) for i in ids} == {6}
    assert len({tuple(i) for i in ids}) == 4


def test_the_scheduler_is_stable_diffusions(pipeline):
    config = pipeline.scheduler.config
    assert (config.beta_schedule, config.beta_start, config.beta_end) == ("scaled_linear", 0.00085, 0.012)
    assert config.prediction_type == "epsilon"


def test_the_autoencoder_is_the_identity():
    codec, images = build_codec(), 2 * draw(32, "codec").images_BCHW - 1
    extremes = torch.stack([torch.ones(3, 16, 16), -torch.ones(3, 16, 16), torch.rand(3, 16, 16)])
    for given in (images, extremes):
        with torch.no_grad():
            posterior = codec.encode(given).latent_dist
            assert posterior.mean.shape == given.shape
            assert (posterior.mean - given - 0.07).abs().max() < 2e-4
            assert posterior.std.max() < 1e-4
            back = codec.decode(posterior.sample(generator=torch.Generator().manual_seed(0))).sample
        assert (back - given).abs().max() < 1e-3
        latents = codec.config.scaling_factor * posterior.mean
        assert (2 * to_pixels(latents) - 1 - given).abs().max() < 2e-4
    many = codec.config.scaling_factor * (2 * draw(1000, "codec").images_BCHW - 1 + 0.07)
    assert many.std() == pytest.approx(1, abs=0.05)
    assert many.mean() == pytest.approx(0, abs=0.05)


def test_a_new_controlnet_changes_nothing_and_attention_is_at_4_x_4_alone():
    unet = build_unet(8)
    controlnet = build_controlnet(unet)
    x, t, text, control = (
        torch.randn(2, 3, 16, 16),
        torch.tensor([3, 700]),
        torch.randn(2, 8, 32),
        torch.rand(2, 3, 16, 16),
    )
    down, mid = controlnet(x, t, text, control, return_dict=False)
    assert all((part == 0).all() for part in (*down, mid))
    widths = []
    for module in unet.modules():
        if type(module).__name__ == "Transformer2DModel":
            module.register_forward_hook(lambda module, given, made: widths.append(made[0].shape[-1]))
    unet(x, t, text)
    assert set(widths) == {4}


# -- the stages ----------------------------------------------------------------------------------------------


def test_each_stage_trains_its_own_part_and_kinds_share_the_base(world):
    start, tuned = replace(world, consistency_steps=0).model_dir(), world.model_dir()
    edges = replace(world, condition="edges", consistency_steps=0)
    base, other = world.base_dir(), edges.model_dir()
    assert len({start, tuned, base, other}) == 4
    assert edges.base_dir() == base
    assert replace(world, width=16)._place("base") != replace(world)._place("base")
    for folder in (start, tuned, other):
        assert changed(base, folder, "unet") == changed(base, folder, "vae") == 0
    assert changed(start, tuned, "controlnet") > 50
    assert changed(start, other, "controlnet") > 50
    text = load_file(base / "text_encoder" / "model.safetensors")
    again = load_file(tuned / "text_encoder" / "model.safetensors")
    assert all(torch.equal(text[name], again[name]) for name in text)


def test_the_same_seed_gives_the_same_bytes(world, tmp_path, monkeypatch):
    folder = world.model_dir()
    state = torch.get_rng_state()
    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    again = world.model_dir()
    assert again != folder
    assert digest(again) == digest(folder)
    assert torch.equal(torch.get_rng_state(), state)
    other = replace(world, seed=4).model_dir()
    assert digest(other) != digest(folder)


def test_the_consistency_reward_is_of_what_the_detector_sees(world, tmp_path):
    """A detector whose loss is nothing leaves the plain diffusion loss."""
    from prefopt.worlds.scene import model as scene_model
    from prefopt.worlds.scene.detector import SceneDetector

    seen = []

    class Blind(SceneDetector):
        def loss(self, images_BCHW, labels_BHW):
            seen.append((images_BCHW, labels_BHW))
            return 0 * super().loss(images_BCHW, labels_BHW)

    start = replace(world, consistency_steps=0).model_dir()
    scenes, course = world.pretraining_pictures(), scene_model.Course(2, 32, 1e-3)
    folders = []
    for name, detector in (("blind", Blind()), ("seeing", SceneDetector())):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        scene_model.tune(folders[-1], start, scenes, detector, seed=0, course=course, progress=False)
    assert changed(*folders, "controlnet") > 10
    images_BCHW, labels_BHW = seen[0]
    assert 0 < len(images_BCHW) == len(labels_BHW) < 32
    assert 0 <= images_BCHW.min() < images_BCHW.max() <= 1
    # the estimates are of the pictures whose labels they are compared with
    detector = SceneDetector()
    right = detector.agreement(detector.detect(images_BCHW), labels_BHW)
    wrong = detector.agreement(detector.detect(images_BCHW), labels_BHW.roll(1, 0))
    assert right.mean() > wrong.mean()


# -- samples and their measures ------------------------------------------------------------------------------


def test_samples_follow_their_own_control_images(world, pipeline):
    from prefopt.worlds.diffusion import sample_images

    with torch.no_grad():  # three steps leave the ControlNet nearly silent
        for block in pipeline.controlnet.controlnet_down_blocks:
            block.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    prompts, controls = world.prompts(5), world.conditions(5)
    images = sample_images(
        pipeline, prompts, seed=1, controls_BCHW=controls, num_inference_steps=2, eta=0.0, guidance_scale=1.0
    )
    parts = sample_images(
        pipeline,
        prompts,
        seed=1,
        controls_BCHW=controls,
        num_inference_steps=2,
        eta=0.0,
        guidance_scale=1.0,
        batch_size=2,
    )
    torch.testing.assert_close(parts, images, atol=1e-4, rtol=0)
    turned = sample_images(
        pipeline,
        prompts,
        seed=1,
        controls_BCHW=controls.roll(1, 0),
        num_inference_steps=2,
        eta=0.0,
        guidance_scale=1.0,
    )
    assert (turned - images).abs().amax((1, 2, 3)).min() > 1e-3


def test_samples_are_cached_and_counted(world):
    images = world.samples(4, 2)
    assert images.shape == (4, 2, 3, 16, 16)
    assert torch.equal(images.mul(255).round() / 255, images)
    assert ((images[:, 0] - images[:, 1]).abs().amax((1, 2, 3)) > 0.02).all()
    assert torch.equal(world.samples(4, 2), images)
    assert (world.samples(3, 2) - images[:3]).abs().max() < 0.01
    assert not torch.equal(world.samples(4, 2, "test"), images)


def test_each_sample_is_drawn_under_its_own_condition(world, monkeypatch):
    asked = []

    def controls_as_images(pipeline, prompts, *, controls_BCHW, **rest):
        asked.extend(prompts)
        return controls_BCHW

    monkeypatch.setattr("prefopt.worlds.scene.world.sample_images", controls_as_images)
    images, conditions = world.samples(7, 2), world.conditions(7)
    assert torch.equal(images, torch.stack((conditions, conditions), 1))
    assert asked == [prompt for prompt in world.prompts(7) for _ in range(2)]


def test_pictures_are_judged_by_the_detector_that_rows_are_not_made_with():
    world = get_world("scene")
    images = world.pictures(20, "test").images_BCHW.clone()
    images[:, :, :3] = torch.tensor([0.2, 0.1, 0.1])[:, None, None]  # red to the judge alone
    seen = world.judged(images).control.mean
    assert seen < 0.9
    images[:, :, :3] = 0.15
    assert world.judged(images).control.mean > seen + 0.05


def test_fidelity(world):
    from prefopt.worlds.scene.model import load

    pipeline = load(world.model_dir())
    found = world.fidelity(pipeline, 10, num_inference_steps=2)
    assert (found.metric, found.pictures) == ("miou", 10)
    for estimate in (found.control, found.style):
        assert estimate.low <= estimate.mean <= estimate.high
    assert 0.1 < found.frechet < np.inf
    assert world.fidelity(pipeline, 10, num_inference_steps=2) == found
    assert world.fidelity(pipeline, 10, num_inference_steps=2, seed=1) != found
    with pytest.raises(ValueError, match="at least 2"):
        world.fidelity(pipeline, 1)


@pytest.mark.parametrize(("kind", "best"), [("mask", 1.0), ("edges", 1.0), ("depth", 0.0)])
def test_real_pictures_are_judged_as_without_a_flaw(kind, best):
    world = get_world("scene", condition=kind)
    found = world.judged(world.pictures(300, "test").images_BCHW)
    assert tuple(found.control) == (best, best, best)
    assert found.style.mean == 1
    assert found.frechet < 0.2
    wrong = world.judged(world.pictures(300, "train").images_BCHW)
    assert abs(wrong.control.mean - best) > 0.5


# -- the real size -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_default_model_follows_roughly(tmp_path, monkeypatch):
    from prefopt.worlds.scene.model import load

    monkeypatch.setenv("PREFOPT_CACHE", str(tmp_path))
    world = get_world("scene")
    pipeline = load(world.model_dir())
    found = world.fidelity(pipeline)
    assert 0.45 < found.control.mean < 0.8
    assert found.style.mean > 0.35  # chance is 0.25
    assert found.frechet < 0.8
    rows = world.comparisons(128)
    assert 0.3 < np.mean([row["score"] for row in rows]) < 0.85
    scenes = world.pictures(300, "test")
    with torch.no_grad():
        latents = pipeline.vae.encode(2 * scenes.images_BCHW - 1).latent_dist.mean
        decoded = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert world.judged(decoded).control.mean == 1
