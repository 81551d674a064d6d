"""Scores under control images: what both sides share, and the same numbers from plain diffusers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import tiny_pipelines
from modalities.image.image_runs import picture, png
from prefopt.comparisons import Encoded
from prefopt.likelihoods.process import Process
from prefopt.modalities.control.likelihood import ControlLikelihood, EncodedControl
from prefopt.modalities.control.models import denoise_controlled, is_control_pipeline, load_control
from prefopt.modalities.control.rows import load_control_comparisons
from prefopt.modalities.control.setup import encoded
from prefopt.modalities.control.store import CachedControls, as_control
from prefopt.sources.pictures import ImageRef

IMAGE, TRUE, WRONG = (png(picture(n)) for n in range(3))
CONDITIONS = {"prompt": "a cat", "image": IMAGE, "chosen_condition": TRUE, "rejected_condition": WRONG}
IMAGES = {"prompt": "a cat", "chosen_image": TRUE, "rejected_image": WRONG, "condition": IMAGE}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.tiny_control(tmp_path_factory.mktemp("control") / "sd")


@pytest.fixture
def rig(folder, own_cache):
    """Loaded pipeline, likelihood, and a function from a row to its encoded example."""
    loaded = load_control(str(folder), trainable=False)
    store = CachedControls(loaded, 32, "center")
    likelihood = ControlLikelihood(
        process=Process.from_scheduler(loaded.scheduler),
        network=partial(denoise_controlled, "sd"),
        store=store,
    )

    def read(row):
        part = load_control_comparisons([row])
        items = [item for e in part.examples for item in e.items]
        store.add_images({i.sample.digest: i.sample for i in items})
        store.add_controls({i.condition["control"].digest: i.condition["control"] for i in items})
        store.add_prompts([i.condition["prompt"] for i in items])
        (example,) = part.examples
        return Encoded(example.id, tuple(encoded(store, i) for i in example.items), example.comparisons)

    return loaded, likelihood, read


def test_two_conditions_share_latent_noise_and_timestep(rig):
    _, likelihood, encoded = rig
    plan = likelihood.plan(likelihood.at(encoded(CONDITIONS), 3).items)
    assert torch.equal(plan.x0_NCHW[0], plan.x0_NCHW[1])
    assert torch.equal(plan.noise_NCHW[0], plan.noise_NCHW[1])
    assert plan.t_N[0] == plan.t_N[1]
    assert not torch.equal(plan.conditions["control"][0], plan.conditions["control"][1])


def test_two_images_share_noise_and_condition_alone(rig):
    _, likelihood, encoded = rig
    plan = likelihood.plan(likelihood.at(encoded(IMAGES), 3).items)
    assert not torch.equal(plan.x0_NCHW[0], plan.x0_NCHW[1])
    assert torch.equal(plan.noise_NCHW[0], plan.noise_NCHW[1])
    assert torch.equal(plan.conditions["control"][0], plan.conditions["control"][1])


def test_an_item_is_named_by_its_condition_too(rig):
    _, likelihood, encoded = rig
    one, other = likelihood.at(encoded(CONDITIONS), 0).items
    assert isinstance(one, EncodedControl)
    assert likelihood.key(one) != likelihood.key(other)
    assert likelihood.key(one) == likelihood.key(likelihood.at(encoded(CONDITIONS), 0).items[0])


@torch.no_grad()
def test_the_score_is_the_error_of_plain_diffusers(rig, folder):
    loaded, likelihood, encoded = rig
    plan = likelihood.plan(likelihood.at(encoded(CONDITIONS), 0).items)
    pipe = DiffusionPipeline.from_pretrained(folder, safety_checker=None)
    noised = pipe.scheduler.add_noise(plan.x0_NCHW, plan.noise_NCHW, plan.t_N)
    embeds, _ = pipe.encode_prompt(["a cat"] * 2, "cpu", 1, False)
    down, mid = pipe.controlnet(
        noised,
        plan.t_N,
        encoder_hidden_states=embeds,
        controlnet_cond=plan.conditions["control"],
        return_dict=False,
    )
    output = pipe.unet(
        noised, plan.t_N, encoder_hidden_states=embeds, down_block_additional_residuals=down,
        mid_block_additional_residual=mid, return_dict=False,
    )[0]  # fmt: skip
    by_hand = -(output - plan.noise_NCHW).square().flatten(1).mean(1)
    found = likelihood.score(loaded.model, plan).logp_N
    torch.testing.assert_close(found, by_hand, rtol=1e-5, atol=1e-6)
    assert found[0] != found[1]


def test_only_the_controlnet_is_trained(folder):
    loaded = load_control(str(folder))
    trained = {n.split(".")[0] for n, p in loaded.model.named_parameters() if p.requires_grad}
    assert trained == {"controlnet"}


def test_maps_are_resized_by_the_nearest_pixel():
    classes = Image.new("RGB", (64, 64), (255, 0, 0))
    classes.paste((0, 0, 255), (0, 0, 31, 64))
    colours = as_control(ImageRef(png(classes)), 20, "center").reshape(3, -1).T.tolist()
    assert {tuple(c) for c in colours} == {(255, 0, 0), (0, 0, 255)}
    few = {tuple(c) for c in np.asarray(picture(0)).reshape(-1, 3).tolist()}
    smooth = as_control(ImageRef(IMAGE), 64, "center").reshape(3, -1).T.tolist()
    assert len({tuple(c) for c in smooth} - few) > 1000  # colours between those of the picture


def test_pipelines_without_a_controlnet_are_images(folder, pipelines):
    assert is_control_pipeline(str(folder))
    assert not is_control_pipeline(str(pipelines("sd")))
    with pytest.raises(
        ValueError,
        match=r"is a StableDiffusionPipeline, which cannot be trained here; supported are StableDiff",
    ):
        load_control(str(pipelines("sd")))


@pytest.mark.parametrize(
    ("levels", "grey", "mixed"),
    [(2, True, False), (40, True, False), (200, True, True), (30, False, False)],
)
def test_maps_are_resized_by_the_nearest_pixel_and_depth_smoothly(levels, grey, mixed):
    stripes = (np.arange(128) * 37 % levels * 255 // max(levels - 1, 1)).astype(np.uint8)
    across = np.broadcast_to(stripes, (128, 128))
    picture = np.stack([across, across if grey else 255 - across, across], -1)
    small = as_control(ImageRef(png(Image.fromarray(picture))), 32, "center")
    known = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    found = {tuple(colour) for colour in small.reshape(3, -1).T.tolist()}
    assert (not found <= known) == mixed
