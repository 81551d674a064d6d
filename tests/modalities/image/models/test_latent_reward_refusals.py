"""What the judge refuses: inputs it was not trained on, other latents, models that cannot be judges."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

import tiny_pipelines
from modalities.image.models.pipeline_cases import Folders, latents
from prefopt.modalities.image.models.latent_reward import LatentRewardModel
from prefopt.modalities.image.models.latent_space import LatentSpace, NoiseSchedule
from prefopt.modalities.image.models.pipelines import load_pipeline


def test_refuses_what_it_was_not_trained_on(sd: LatentRewardModel) -> None:
    sd.config = replace(sd.config, timestep_range=(1, 951))
    conditions = sd.encode_prompts(["a", "b"])
    for t in (0, 952, torch.tensor([1, 999])):
        with pytest.raises(ValueError, match="trained on 1 to 951"):
            sd.score(latents(sd, 2), t, conditions)
    with pytest.raises(ValueError, match=r"\(B, 4, H, W\)"):
        sd.score(torch.zeros(2, 16, 8, 8), 1, conditions)
    with pytest.raises(ValueError, match="3 latents and 2 prompts: give `rows`"):
        sd.score(latents(sd, 3), 1, conditions)
    with pytest.raises(ValueError, match=r"rows has shape \(2,\)"):
        sd.score(latents(sd, 3), 1, conditions, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="one, or one each"):
        sd.score(latents(sd, 2), torch.tensor([1, 2, 3]), conditions)
    with pytest.raises(TypeError, match="list of texts"):
        sd.encode_prompts("a red circle")


def test_range_of_timesteps_comes_from_the_scheduler(judges: dict[str, LatentRewardModel]) -> None:
    assert judges["sd"].config.timestep_range == (0, 999)
    assert judges["sd3"].config.timestep_range == (0, 1000)


def test_long_prompts_warn_once(sd: LatentRewardModel) -> None:
    with pytest.warns(UserWarning, match="1 of 2 prompts have more than 77 tokens"):
        conditions = sd.encode_prompts(["word " * 90, "a"])
    assert conditions.tensors["prompt_embeds"].shape[1] == 77


def test_latent_space_is_checked(judge: LatentRewardModel, folders: Folders, family: str) -> None:
    pipe = load_pipeline(str(folders(family))).pipe
    judge.check_latent_space(pipe)
    judge.check_latent_space(pipe.vae)
    judge.check_latent_space(copy.deepcopy(pipe.vae).to(torch.bfloat16))
    with torch.no_grad():
        tuned = copy.deepcopy(pipe.vae)
        for p in tuned.decoder.parameters():
            p.add_(0.3)
    judge.check_latent_space(tuned)  # a new decoder leaves the latents as they are

    other = copy.deepcopy(pipe.vae)
    with torch.no_grad():
        for p in other.encoder.parameters():
            p.copy_(p.flip(0))
    with pytest.raises(ValueError, match=r"different latent space.*relative distance of"):
        judge.check_latent_space(other)
    scaled = copy.deepcopy(pipe.vae)
    scaled.register_to_config(scaling_factor=0.5)
    with pytest.raises(ValueError, match=r"different latent space.*scaling_factor 0\.5"):
        judge.check_latent_space(scaled)
    wider = tiny_pipelines.vae(latent_channels=6)
    with pytest.raises(ValueError, match=r"different latent space.*6 channels.*inf"):
        judge.check_latent_space(wider)


def test_noise_schedule_is_checked(sd: LatentRewardModel, folders: Folders) -> None:
    pipe = load_pipeline(str(folders("sd"))).pipe
    pipe.scheduler = tiny_pipelines.scheduler_of("euler", "v_prediction")
    sd.check_latent_space(pipe)  # another solver, the same noise
    pipe.scheduler = type(pipe.scheduler)(beta_start=0.0001, beta_end=0.02)
    with pytest.raises(ValueError, match="different noise schedule"):
        sd.check_latent_space(pipe)
    pipe.scheduler = load_pipeline(str(folders("sd3"))).pipe.scheduler
    with pytest.raises(ValueError, match="different noise schedule"):
        sd.check_latent_space(pipe)
    assert NoiseSchedule.of(pipe.scheduler).is_flow


def test_half_precision_moves_the_test_image_far_less_than_the_tolerance(folders: Folders) -> None:
    vae = load_pipeline(str(folders("sd"))).pipe.vae
    space = LatentSpace.of(vae)
    assert space.distance(LatentSpace.of(copy.deepcopy(vae).half())) < 0.01
    assert space == LatentSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert (space.channels, space.spatial_factor) == (4, 4)


@pytest.mark.parametrize("change", ["class_embed", "inpainting", "no_encoder", "controlnet"])
def test_models_that_cannot_be_judges(folders: Folders, change: str) -> None:
    pipe = load_pipeline(str(folders("sd"))).pipe
    width = tiny_pipelines.WIDTH
    message = ""
    if change == "class_embed":
        pipe.unet = tiny_pipelines.unet(cross_attention_dim=width, num_class_embeds=3)
        message = "no class embedding"
    elif change == "inpainting":
        pipe.unet = tiny_pipelines.unet(cross_attention_dim=width, in_channels=9)
        message = "takes 9 channels and the VAE makes 4"
    elif change == "no_encoder":
        pipe.text_encoder = None
        message = "has no text_encoder"
    else:
        pipe = torch.nn.Linear(1, 1)
        message = "a judge cannot be made of a Linear"
    with pytest.raises(ValueError, match=message):
        LatentRewardModel.from_pipeline(pipe)
